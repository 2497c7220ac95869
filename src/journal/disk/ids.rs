//! The ids file of a sealed segment: what the dedup index and the reader need to know of each offset.
//!
//! ```text
//!  at  size
//!   0     8  magic "TRUNKIDS"
//!   8     4  format version
//!  12     4  CRC32C of the 48 bytes that follow
//!  16    16  log id
//!  32     8  generation of the segment
//!  40     8  first offset
//!  48     8  how many offsets
//!  56     8  where the segment's last frame ends
//!  64    36  per offset: key (16; zero = no mark), CRC32C of the body (4), place of the frame (4; 0 = nothing there),
//!            received at in ms (8), CRC32C of the offset and the 32 bytes before (4)
//! ```
//!
//! Each offset has a checksum of its own, so that a damaged byte costs one mark and not a segment's. An ids file says what a scan
//! of the segment would say; where the segment is still there it can be made anew.

use std::io;
use std::path::Path;

use super::file_header::LogId;
use super::frame::{Key, NO_KEY, u32_at, u64_at};
use super::fs::{FileHandle, FileSystem, read_exact_at, read_whole};
use super::layout::FORMAT_VERSION;
use crate::crash::crash_point;

const MAGIC: [u8; 8] = *b"TRUNKIDS";
const HEADER_LEN: usize = 64;
const ID_LEN: usize = 36;

/// One offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id {
    pub key: Key,
    pub body_crc: u32,
    /// Where the frame stands in its segment; 0 where there is none.
    pub position: u32,
    pub received_ms: i64,
}

impl Id {
    /// An offset at which nothing can be read.
    pub(super) const HOLE: Self = Self { key: NO_KEY, body_crc: 0, position: 0, received_ms: 0 };

    pub(super) const fn is_hole(&self) -> bool {
        self.position == 0
    }
}

/// What one sealed segment holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ids {
    pub generation: u64,
    pub first: u64,
    /// By offset, from `first` on.
    pub ids: Vec<Id>,
    /// Where the last frame ends.
    pub end: u64,
}

/// What was found of an ids file.
pub(super) struct LoadedIds {
    pub ids: Ids,
    /// The header or some offsets did not verify; they are holes without marks.
    pub is_damaged: bool,
}

impl Ids {
    pub(super) fn next(&self) -> u64 {
        self.first + self.ids.len() as u64
    }

    pub(super) fn entries(&self) -> u64 {
        self.ids.iter().filter(|id| !id.is_hole()).count() as u64
    }

    pub(super) fn newest_ms(&self) -> i64 {
        self.ids.iter().filter(|id| !id.is_hole()).map(|id| id.received_ms).max().unwrap_or(i64::MIN)
    }

    /// Writes the file beside its final name, syncs, and gives it that name.
    pub(super) fn write(&self, fs: &dyn FileSystem, path: &Path, log_id: LogId) -> io::Result<()> {
        let temporary = path.with_extension("ids.tmp");
        let file = fs.create(&temporary)?;
        file.write_all_at(&self.to_bytes(log_id), 0)?;
        crash_point("journal.ids_write");
        file.sync()?;
        fs.rename(&temporary, path)?;
        crash_point("journal.ids_rename");
        fs.sync_dir(path.parent().unwrap_or(Path::new(".")))
    }

    fn to_bytes(&self, log_id: LogId) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.ids.len() * ID_LEN);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&log_id);
        for number in [self.generation, self.first, self.ids.len() as u64, self.end] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        for (offset, id) in (self.first..).zip(&self.ids) {
            let start = bytes.len();
            bytes.extend_from_slice(&id.key);
            bytes.extend_from_slice(&id.body_crc.to_le_bytes());
            bytes.extend_from_slice(&id.position.to_le_bytes());
            bytes.extend_from_slice(&id.received_ms.to_le_bytes());
            let crc = id_crc(offset, &bytes[start..]);
            bytes.extend_from_slice(&crc.to_le_bytes());
        }
        bytes
    }

    /// Reads the file of the segment that begins at `first`. `None` where it belongs to another log or is none at all.
    pub(super) fn load(file: &dyn FileHandle, first: u64, log_id: LogId) -> io::Result<Option<LoadedIds>> {
        let bytes = read_whole(file, u64::MAX)?;
        let Some((header, rest)) = bytes.split_at_checked(HEADER_LEN) else { return Ok(None) };
        let verified = header[..8] == MAGIC && crc32c::crc32c(&header[16..]) == u32_at(header, 12);
        if verified && (header[16..32] != log_id || u64_at(header, 40) != first) {
            return Ok(None);
        }
        let count = if verified { u64_at(header, 48) } else { (rest.len() / ID_LEN) as u64 };
        let mut is_damaged = !verified;
        let mut ids = Vec::with_capacity(rest.len() / ID_LEN);
        for (offset, bytes) in (first..).zip(rest.chunks_exact(ID_LEN)) {
            ids.push(read_id(offset, bytes).unwrap_or_else(|| {
                is_damaged = true;
                Id::HOLE
            }));
        }
        is_damaged |= ids.len() as u64 != count;
        if !verified && ids.iter().all(Id::is_hole) {
            return Ok(None);
        }
        let (generation, end) = if verified { (u64_at(header, 32), u64_at(header, 56)) } else { (0, 0) };
        Ok(Some(LoadedIds { ids: Self { generation, first, ids, end }, is_damaged }))
    }
}

/// Where the frame of `offset` stands, from the ids file of its segment: `None` where nothing can be read there.
pub(super) fn position_in(file: &dyn FileHandle, first: u64, offset: u64) -> io::Result<Option<u32>> {
    let mut bytes = [0; ID_LEN];
    read_exact_at(file, &mut bytes, HEADER_LEN as u64 + (offset - first) * ID_LEN as u64)?;
    let id = read_id(offset, &bytes).ok_or_else(|| io::Error::other("a damaged ids file"))?;
    Ok((!id.is_hole()).then_some(id.position))
}

fn read_id(offset: u64, bytes: &[u8]) -> Option<Id> {
    if id_crc(offset, &bytes[..32]) != u32_at(bytes, 32) {
        return None;
    }
    let mut key = NO_KEY;
    key.copy_from_slice(&bytes[..16]);
    Some(Id { key, body_crc: u32_at(bytes, 16), position: u32_at(bytes, 20), received_ms: u64_at(bytes, 24) as i64 })
}

fn id_crc(offset: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&offset.to_le_bytes()), bytes)
}
