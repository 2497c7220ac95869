//! The header of a segment and of a log of dead letters. Pure.
//!
//! ```text
//!  at  size
//!   0     8  magic "TRUNKLOG"
//!   8     4  format version
//!  12     4  flags: bit 0 = the file held other frames before
//!  16    16  log id, the same in all files of one journal
//!  32     8  generation: random, of this file in this life
//!  40     8  first offset that the file may hold; a log of dead letters: its number
//!  48    12  the release that wrote it, such as "0.1.0", filled up with zeros; all zero in version 1
//!  60     4  CRC32C of the 60 bytes before
//!  64    64  the same again, for when the first copy is damaged
//! 128     …  frames
//! ```

use std::fmt;

use super::frame::{u32_at, u64_at};
use super::layout::FORMAT_VERSION;

pub(super) const FILE_HEADER_LEN: u64 = 128;
const COPY_LEN: usize = 64;
const MAGIC: [u8; 8] = *b"TRUNKLOG";
const RECYCLED: u32 = 1;

pub(super) type LogId = [u8; 16];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub log_id: LogId,
    pub generation: u64,
    pub first: u64,
    /// What follows the last frame may be left from an earlier life of the file.
    pub recycled: bool,
    pub writer: Writer,
}

/// The release that wrote a file: `major.minor.patch`, and what follows as far as there is room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Writer([u8; 12]);

impl Writer {
    /// This one.
    pub(super) fn this() -> Self {
        let mut padded = [0; 12];
        let version = env!("CARGO_PKG_VERSION").as_bytes();
        let len = version.len().min(padded.len());
        padded[..len].copy_from_slice(&version[..len]);
        Self(padded)
    }
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<u8> = self.0.iter().copied().take_while(u8::is_ascii_graphic).collect();
        if named.is_empty() {
            f.write_str("a release of format 1")
        } else {
            f.write_str(&String::from_utf8_lossy(&named))
        }
    }
}

/// What the start of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadHeader {
    Ours(FileHeader),
    /// Written by a later version.
    Newer(u32),
    /// Not a header, or no copy of it verifies.
    Broken,
}

impl FileHeader {
    pub(super) fn to_bytes(self) -> [u8; FILE_HEADER_LEN as usize] {
        let mut copy = [0; COPY_LEN];
        copy[..8].copy_from_slice(&MAGIC);
        copy[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        copy[12..16].copy_from_slice(&if self.recycled { RECYCLED } else { 0 }.to_le_bytes());
        copy[16..32].copy_from_slice(&self.log_id);
        copy[32..40].copy_from_slice(&self.generation.to_le_bytes());
        copy[40..48].copy_from_slice(&self.first.to_le_bytes());
        copy[48..60].copy_from_slice(&self.writer.0);
        let crc = crc32c::crc32c(&copy[..60]);
        copy[60..].copy_from_slice(&crc.to_le_bytes());
        let mut both = [0; FILE_HEADER_LEN as usize];
        both[..COPY_LEN].copy_from_slice(&copy);
        both[COPY_LEN..].copy_from_slice(&copy);
        both
    }

    pub(super) fn read(bytes: &[u8]) -> ReadHeader {
        let copies = bytes.chunks_exact(COPY_LEN).take(2);
        copies.map(Self::read_copy).find(|read| *read != ReadHeader::Broken).unwrap_or(ReadHeader::Broken)
    }

    fn read_copy(copy: &[u8]) -> ReadHeader {
        if copy[..8] != MAGIC || crc32c::crc32c(&copy[..60]) != u32_at(copy, 60) {
            return ReadHeader::Broken;
        }
        let version = u32_at(copy, 8);
        if version > FORMAT_VERSION {
            return ReadHeader::Newer(version);
        }
        let mut log_id = [0; 16];
        log_id.copy_from_slice(&copy[16..32]);
        let mut writer = [0; 12];
        writer.copy_from_slice(&copy[48..60]);
        ReadHeader::Ours(Self {
            log_id,
            generation: u64_at(copy, 32),
            first: u64_at(copy, 40),
            recycled: u32_at(copy, 12) & RECYCLED != 0,
            writer: Writer(writer),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_flipped_byte_never_costs_the_header() {
        let header = FileHeader { log_id: [7; 16], generation: 9, first: 42, recycled: true, writer: Writer::this() };
        let bytes = header.to_bytes();
        for at in 0..bytes.len() {
            let mut bytes = bytes;
            bytes[at] ^= 0x40;
            assert_eq!(FileHeader::read(&bytes), ReadHeader::Ours(header), "byte {at}");
        }
    }

    #[test]
    fn a_header_says_which_release_wrote_it() {
        assert_eq!(Writer::this().to_string(), env!("CARGO_PKG_VERSION"));
        assert_eq!(Writer([0; 12]).to_string(), "a release of format 1");
    }

    #[test]
    fn what_is_no_header_is_said_so() {
        assert_eq!(FileHeader::read(&[]), ReadHeader::Broken);
        assert_eq!(FileHeader::read(&[0; 128]), ReadHeader::Broken);
    }
}
