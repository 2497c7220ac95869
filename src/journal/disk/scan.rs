//! Reading a file of frames from front to back, past what is broken.
//!
//! After bytes that are no frame the scan looks for the next place at which a header verifies. Where there is one, what lies
//! between is *bad*: something was there and is damaged. Where there is none, the bytes are the *rest*: nothing, or the beginning
//! of a write that a crash cut off.

use std::io;

use super::frame::{self, Decoded, HEADER_LEN, Head, Kind, MAGIC};
use super::fs::FileHandle;

const CHUNK: usize = 256 << 10;
const BLOCK: usize = 4096;
static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Which frames of a file count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub seed: u32,
    /// Where the first frame stands.
    pub from: u64,
    /// Where the file ends.
    pub end: u64,
    /// Offsets of a segment rise from this on; `None` for dead letters, whose numbers come in any order.
    pub first: Option<u64>,
    /// Frames with this number or a greater one are void.
    pub number_end: u64,
    /// What follows the last frame may stem from an earlier life of the file.
    pub recycled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameAt {
    pub at: u64,
    pub head: Head,
    pub body_ok: bool,
}

impl FrameAt {
    pub(super) fn end(&self) -> u64 {
        self.at + self.head.frame_len()
    }
}

/// A stretch of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub at: u64,
    pub len: u64,
}

#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub frames: Vec<FrameAt>,
    /// Damaged stretches with a frame somewhere behind them.
    pub bad: Vec<Stretch>,
    /// What a crash cut off, behind the last frame.
    pub torn: Option<Stretch>,
}

impl Scanned {
    /// Where the last frame ends.
    pub(super) fn end(&self, from: u64) -> u64 {
        self.frames.last().map_or(from, FrameAt::end)
    }
}

/// Reads all frames within `bounds`.
pub(super) fn scan(file: &dyn FileHandle, bounds: Bounds) -> io::Result<Scanned> {
    let mut window = Window { file, end: bounds.end, start: 0, bytes: Vec::new() };
    let mut scanned = Scanned::default();
    let mut expected = bounds.first.unwrap_or(0);
    let mut at = bounds.from;
    loop {
        let found = match frame_at(&mut window, &bounds, expected, at)? {
            Some(head) => Some((at, head)),
            None => resync(&mut window, &bounds, expected, at + 1)?,
        };
        let Some((found_at, head)) = found else { break };
        if found_at > at {
            scanned.bad.push(Stretch { at, len: found_at - at });
        }
        let body_ok = body_matches(&mut window, found_at, &head)?;
        let frame = FrameAt { at: found_at, head, body_ok };
        at = frame.end();
        if bounds.first.is_some() {
            expected = head.number + 1;
        }
        scanned.frames.push(frame);
    }
    scanned.torn = rest(&mut window, &bounds, expected, at)?;
    Ok(scanned)
}

/// The frame that begins at `at`, if one does that counts and lies in the file whole.
fn frame_at(window: &mut Window, bounds: &Bounds, expected: u64, at: u64) -> io::Result<Option<Head>> {
    let mut need = HEADER_LEN;
    loop {
        if at + need as u64 > bounds.end {
            return Ok(None);
        }
        match frame::decode(window.at(at, need)?, bounds.seed) {
            Decoded::Head(head) => return Ok(counts(&head, bounds, expected, at).then_some(head)),
            Decoded::More(more) if more > need => need = more,
            Decoded::More(_) | Decoded::Nothing => return Ok(None),
        }
    }
}

fn counts(head: &Head, bounds: &Bounds, expected: u64, at: u64) -> bool {
    let is_entry = head.kind == Kind::Entry;
    at + head.frame_len() <= bounds.end
        && is_entry == bounds.first.is_some()
        && (!is_entry || (expected..bounds.number_end).contains(&head.number))
}

/// The next frame at or behind `from`.
fn resync(window: &mut Window, bounds: &Bounds, expected: u64, from: u64) -> io::Result<Option<(u64, Head)>> {
    let mut at = from;
    while at + HEADER_LEN as u64 <= bounds.end {
        let block = window.at(at, BLOCK)?;
        let block = &block[..block.len().min(BLOCK)];
        if *block == ZEROS[..block.len()] {
            at += block.len() as u64;
            continue;
        }
        match block.iter().position(|byte| *byte == MAGIC[0]) {
            None => at += block.len() as u64,
            Some(skip) => {
                at += skip as u64;
                if let Some(head) = frame_at(window, bounds, expected, at)? {
                    return Ok(Some((at, head)));
                }
                at += 1;
            }
        }
    }
    Ok(None)
}

fn body_matches(window: &mut Window, at: u64, head: &Head) -> io::Result<bool> {
    let bytes = window.at(at, head.frame_len() as usize)?;
    let body = bytes.get(head.meta_end()..head.frame_len() as usize);
    Ok(body.is_some_and(|body| crc32c::crc32c(body) == head.body_crc))
}

/// What stands behind the last frame: `None` where nothing was being written there.
fn rest(window: &mut Window, bounds: &Bounds, expected: u64, from: u64) -> io::Result<Option<Stretch>> {
    if bounds.recycled {
        let claimed = frame::claimed_number(window.at(from, HEADER_LEN)?);
        return Ok((claimed == Some(expected)).then_some(Stretch { at: from, len: bounds.end - from }));
    }
    let mut last = None;
    let mut at = from;
    while at < bounds.end {
        let block = window.at(at, BLOCK)?;
        let block = &block[..block.len().min(BLOCK)];
        if *block != ZEROS[..block.len()] {
            last = block.iter().rposition(|byte| *byte != 0).map(|place| at + place as u64 + 1);
        }
        at += block.len() as u64;
        if block.is_empty() {
            break;
        }
    }
    Ok(last.map(|end| Stretch { at: from, len: end - from }))
}

/// A moving view of a file, so that a scan needs the memory of one frame and not of the file.
struct Window<'a> {
    file: &'a dyn FileHandle,
    end: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// The bytes from `at` on: at least `need` of them, or all up to the end.
    fn at(&mut self, at: u64, need: usize) -> io::Result<&[u8]> {
        let available = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX);
        let need = need.min(available);
        let held = at.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        let is_held = held.is_some_and(|skip| skip + need <= self.bytes.len());
        if !is_held {
            self.bytes.resize(need.max(CHUNK).min(available), 0);
            let read = self.file.read_at(&mut self.bytes, at)?;
            self.bytes.truncate(read);
            self.start = at;
        }
        let skip = (at - self.start) as usize;
        Ok(&self.bytes[skip.min(self.bytes.len())..])
    }
}
