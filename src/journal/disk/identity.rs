//! Whose directory it is: `log.json`, with the format's version and the log's id.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::file_header::{LogId, ReadHeader};
use super::fs::{FileSystem, read_whole, replace_file};
use super::layout::{FORMAT_VERSION, Layout, ids_first, segment_first};
use super::options::OpenError;
use super::recovery::read_header;
use super::report::{Reporter, move_aside};

const KIND: &str = "trunkline-journal";
/// What may lie in a directory that is not ours yet.
const HARMLESS: [&str; 2] = ["lock", "lost+found"];

#[derive(Serialize, Deserialize)]
struct LogFile {
    kind: String,
    format: u32,
    /// Hexadecimal.
    log_id: String,
    /// CRC32C over kind, format and id, so that a damaged id is not taken for another journal's.
    crc: u32,
}

impl LogFile {
    fn new(log_id: LogId) -> Self {
        let log_id = log_id.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut file = Self { kind: KIND.to_owned(), format: FORMAT_VERSION, log_id, crc: 0 };
        file.crc = file.checksum();
        file
    }

    fn checksum(&self) -> u32 {
        crc32c::crc32c(format!("{}/{}/{}", self.kind, self.format, self.log_id).as_bytes())
    }

    fn id(&self) -> Option<LogId> {
        let mut id = [0; 16];
        if self.log_id.len() != 32 || !self.log_id.is_ascii() {
            return None;
        }
        for (at, byte) in id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&self.log_id[at * 2..at * 2 + 2], 16).ok()?;
        }
        Some(id)
    }
}

pub(super) enum ReadIdentity {
    Ours(LogId),
    Newer(u32),
    Missing,
    Broken,
}

pub(super) fn read_identity(fs: &dyn FileSystem, layout: &Layout) -> io::Result<ReadIdentity> {
    let bytes = match fs.open(&layout.log_json()) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(ReadIdentity::Missing),
        file => read_whole(&*file?, 4096)?,
    };
    let file: Option<LogFile> = serde_json::from_slice(&bytes).ok();
    let verified = file.filter(|file| file.kind == KIND && file.crc == file.checksum());
    Ok(match verified {
        Some(file) if file.format > FORMAT_VERSION => ReadIdentity::Newer(file.format),
        Some(file) => file.id().map_or(ReadIdentity::Broken, ReadIdentity::Ours),
        None => ReadIdentity::Broken,
    })
}

/// The log's id; made where the directory is new, and found again in the segments where `log.json` is missing or damaged.
pub(super) fn establish(fs: &Arc<dyn FileSystem>, layout: &Layout, reporter: &Reporter) -> Result<LogId, OpenError> {
    let path = layout.log_json();
    let read = read_identity(&**fs, layout).map_err(OpenError::io("read", &path))?;
    match read {
        ReadIdentity::Ours(log_id) => return Ok(log_id),
        ReadIdentity::Newer(found) => return Err(OpenError::NewerVersion { path, found, known: FORMAT_VERSION }),
        ReadIdentity::Missing | ReadIdentity::Broken => {}
    }
    let found = id_in_segments(&**fs, layout).map_err(OpenError::io("read", &layout.dir))?;
    if matches!(read, ReadIdentity::Broken) {
        let is_ours =
            found.is_some() || fs.list(&layout.dir).is_ok_and(|files| files.iter().any(|it| is_one_of_ours(&it.name)));
        if !is_ours {
            return Err(OpenError::Foreign { path });
        }
        reporter.corrupt(&path, 0, "log.json does not verify; written anew from what the segments say");
        move_aside(&**fs, &layout.quarantine(), &path);
    } else if let (None, Some(path)) = (found, foreign_file(&**fs, layout).map_err(OpenError::io("list", &layout.dir))?)
    {
        return Err(OpenError::Foreign { path });
    }
    let log_id = found.unwrap_or_else(|| fastrand::u128(1..).to_le_bytes());
    let text = serde_json::to_vec_pretty(&LogFile::new(log_id)).expect("plain values");
    replace_file(&**fs, &path, &text).map_err(OpenError::io("write", &path))?;
    Ok(log_id)
}

/// The id that the first sound segment names.
fn id_in_segments(fs: &dyn FileSystem, layout: &Layout) -> io::Result<Option<LogId>> {
    for listed in fs.list(&layout.dir)? {
        if segment_first(&listed.name).is_some()
            && let ReadHeader::Ours(header) = read_header(&*fs.open(&layout.dir.join(&listed.name))?)?
        {
            return Ok(Some(header.log_id));
        }
    }
    Ok(None)
}

/// A file that speaks against this being a journal's directory, new or old.
fn foreign_file(fs: &dyn FileSystem, layout: &Layout) -> io::Result<Option<std::path::PathBuf>> {
    let foreign =
        fs.list(&layout.dir)?.into_iter().find(|it| !HARMLESS.contains(&it.name.as_str()) && !is_one_of_ours(&it.name));
    Ok(foreign.map(|it| layout.dir.join(it.name)))
}

fn is_one_of_ours(name: &str) -> bool {
    let plain = ["checkpoints", "dead-letters", "quarantine", super::layout::SPARE];
    plain.contains(&name)
        || name.ends_with(super::layout::TEMPORARY)
        || segment_first(name).is_some()
        || ids_first(name).is_some()
}
