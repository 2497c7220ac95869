//! What lies where in the journal's directory, and under which names.
//!
//! ```text
//! lock                              held by the process that has the journal open
//! log.json                          format version and the log's random id, with a checksum
//! 00000000000000000001.segment      entries from that offset on; the last one is being written
//! 00000000000000000001.ids          written when that segment is sealed: key, checksum, place and time of each offset;
//!                                   kept until the segment is gone and the dedup window is over
//! spare.segment                     the next segment, its space reserved already
//! checkpoints/<sink>.a, .b          two slots per sink, written in turn
//! checkpoints/<sink>.paused         empty; there while an operator has paused the sink
//! dead-letters/<sink>/<n>.log       dead letters of a sink, or of `ingress`
//! quarantine/                       bytes that could not be read, and files that are not ours: for a person to look at
//! *.tmp                             unfinished; removed when the journal is opened
//! ```
//!
//! A segment and a log of dead letters begin with their header ([`super::file_header`]), then come frames ([`super::frame`]) one
//! after another. In a segment the offsets rise; any frame whose offset is not below the first offset of the *next* segment is
//! void: it was written but could not be synced, and its place was given to another.

use std::path::{Path, PathBuf};

/// The version of everything above. Each file says its own: files of the version before are read as they are, new ones are written
/// in this one, and a directory or file of a later version is not touched.
///
/// 2: a file's header says which release wrote it. 1: the first.
pub(super) const FORMAT_VERSION: u32 = 2;

/// Offsets stay below this: a dead letter's number has no more bits for them. A file that claims a greater one is not ours.
pub(super) const OFFSET_END: u64 = 1 << 48;

const SEGMENT: &str = "segment";
const IDS: &str = "ids";
pub(super) const SPARE: &str = "spare.segment";
pub(super) const TEMPORARY: &str = ".tmp";
const LOG: &str = "log";

/// The paths below the journal's directory.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub dir: PathBuf,
}

impl Layout {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf() }
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    pub(super) fn log_json(&self) -> PathBuf {
        self.dir.join("log.json")
    }

    pub(super) fn segment(&self, first: u64) -> PathBuf {
        self.dir.join(segment_name(first))
    }

    pub(super) fn ids(&self, first: u64) -> PathBuf {
        self.dir.join(format!("{first:020}.{IDS}"))
    }

    pub(super) fn spare(&self) -> PathBuf {
        self.dir.join(SPARE)
    }

    pub(super) fn checkpoints(&self) -> PathBuf {
        self.dir.join("checkpoints")
    }

    pub(super) fn dead_letters(&self) -> PathBuf {
        self.dir.join("dead-letters")
    }

    pub(super) fn quarantine(&self) -> PathBuf {
        self.dir.join("quarantine")
    }
}

pub(super) fn segment_name(first: u64) -> String {
    format!("{first:020}.{SEGMENT}")
}

/// The first offset, where `name` is that of a segment.
pub(super) fn segment_first(name: &str) -> Option<u64> {
    numbered(name, SEGMENT, 20)
}

/// The first offset, where `name` is that of an ids file.
pub(super) fn ids_first(name: &str) -> Option<u64> {
    numbered(name, IDS, 20)
}

pub(super) fn letters_name(number: u64) -> String {
    format!("{number:010}.{LOG}")
}

pub(super) fn letters_number(name: &str) -> Option<u64> {
    numbered(name, LOG, 10)
}

fn numbered(name: &str, extension: &str, digits: usize) -> Option<u64> {
    let (stem, found) = name.split_once('.')?;
    let plain = stem.len() == digits && stem.bytes().all(|byte| byte.is_ascii_digit());
    (plain && found == extension).then(|| stem.parse().ok())?.filter(|number| *number < OFFSET_END)
}

/// A sink's name as a file name: letters, digits, `-` and `_` stay, every other byte becomes `%` and two hex digits.
pub(super) fn encode_name(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02x}")),
        }
    }
    encoded
}

/// The inverse of [`encode_name`].
pub(super) fn decode_name(encoded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let layout = Layout::new(Path::new("j"));
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(segment_first(&name(layout.segment(42))), Some(42));
        assert_eq!(ids_first(&name(layout.ids(42))), Some(42));
        assert_eq!(letters_number(&letters_name(3)), Some(3));
        for other in [
            "spare.segment",
            "42.segment",
            "00000000000000000042.segment.tmp",
            "18446744073709551615.segment",
            "0000000000000000+042.segment",
        ] {
            assert_eq!(segment_first(other), None, "{other}");
        }
    }

    #[test]
    fn any_sink_name_is_a_file_name() {
        for name in ["events", "a/b", "..", "", "Ä %", "x.a"] {
            let encoded = encode_name(name);
            assert!(!encoded.contains(['/', '.']), "{encoded}");
            assert_eq!(decode_name(&encoded).as_deref(), Some(name));
        }
        assert_eq!(decode_name("%zz"), None);
    }
}
