//! Reading entries: bounded by what is durable, verified on every read, past what is damaged.
//!
//! Where a frame stands is known from the read before (several sinks read at several places, so some places are remembered), else
//! from memory for the segment being written, else from the ids file. A frame that does not verify is reported once and skipped; a
//! body that does not match its checksum is given back as [`Item::Corrupt`].

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::catalog::Segment;
use super::file_header::FILE_HEADER_LEN;
use super::frame::{self, Decoded, HEADER_LEN, Head, Kind, Meta};
use super::fs::Handle;
use super::ids;
use super::report::set_aside;
use super::scan::{Bounds, Stretch, scan};
use super::shared::{Shared, lock};
use crate::journal::{Entry, Item, Page, ReadLimits};
use crate::names::Offset;

const CHUNK: usize = 256 << 10;
const OPEN_MAX: usize = 16;
const CURSORS_MAX: usize = 32;
/// Damaged offsets that are remembered as reported.
const REPORTED_MAX: usize = 10_000;

#[derive(Default)]
pub(super) struct Reader {
    /// Files of recently read segments, the latest last.
    open: Mutex<VecDeque<Arc<OpenSegment>>>,
    cursors: Mutex<VecDeque<Cursor>>,
    reported: Mutex<BTreeSet<u64>>,
}

struct OpenSegment {
    first: u64,
    generation: u64,
    file: Handle,
}

/// Where a read ended, for the next one.
#[derive(Clone, Copy)]
struct Cursor {
    offset: u64,
    segment: u64,
    at: u64,
}

/// A part of a file, read ahead.
#[derive(Default)]
struct Chunk {
    at: u64,
    bytes: Vec<u8>,
}

impl Reader {
    /// Closes the file of a segment that is given back.
    pub(super) fn forget(&self, first: u64) {
        lock(&self.open).retain(|open| open.first != first);
        lock(&self.cursors).retain(|cursor| cursor.segment != first);
    }

    /// The durable entries behind `after`. Blocks on the disk.
    pub(super) fn read(&self, shared: &Shared, after: Offset, limits: ReadLimits) -> io::Result<Page> {
        let durable = shared.durable();
        let mut room = Room { limits, items: Vec::new(), bytes: 0, is_full: false };
        let mut offset = after.0 + 1;
        while offset <= durable && !room.is_full && room.items.len() < limits.events_max.max(1) {
            let Some(segment) = shared.catalog.at_or_after(offset) else {
                offset = durable + 1;
                break;
            };
            offset = offset.max(segment.first);
            match self.read_segment(shared, &segment, offset, &mut room) {
                Ok(next) => offset = next,
                // It was given back meanwhile: what follows is in the next one.
                Err(_) if !shared.catalog.contains(&segment) => {}
                Err(error) => return Err(error),
            }
        }
        let end = Offset((offset - 1).min(durable).max(after.0));
        Ok(Page { items: room.items, end })
    }

    /// Reads from `offset` on; gives the offset to go on with.
    fn read_segment(
        &self,
        shared: &Shared,
        segment: &Arc<Segment>,
        mut offset: u64,
        room: &mut Room,
    ) -> io::Result<u64> {
        let open = self.open(shared, segment)?;
        let (next, end) = {
            let state = segment.state();
            (state.next, state.end)
        };
        let mut chunk = Chunk::default();
        let mut known = self.take_cursor(offset, segment.first);
        while offset < next && !room.is_full {
            let at = match known.take() {
                Some(at) => at,
                None => match position(shared, segment, &open, offset)? {
                    Some(at) => at,
                    None => {
                        offset += 1;
                        continue;
                    }
                },
            };
            let found = read_frame(&open.file, segment.seed(), &mut chunk, at, end)?
                .filter(|(head, _)| head.kind == Kind::Entry && (offset..next).contains(&head.number));
            let item = found.and_then(|(head, frame)| item_of(&head, frame));
            let Some(item) = item else {
                self.report(shared, segment, &open, offset, at, "the frame does not verify");
                offset += 1;
                continue;
            };
            let entry = item.entry();
            let (number, len) = (entry.offset.0, frame::push_frame_len(&entry.push));
            if let Item::Corrupt { detail, .. } = &item {
                self.report(shared, segment, &open, number, at, detail);
            }
            if !room.take(item) {
                known = Some(at);
                break;
            }
            offset = number + 1;
            known = (at + len < end).then_some(at + len);
        }
        if let Some(at) = known {
            self.put_cursor(Cursor { offset, segment: segment.first, at });
        }
        Ok(offset)
    }

    fn open(&self, shared: &Shared, segment: &Segment) -> io::Result<Arc<OpenSegment>> {
        let mut opened = lock(&self.open);
        let is_it = |open: &Arc<OpenSegment>| open.first == segment.first && open.generation == segment.generation;
        if let Some(open) = opened.iter().find(|open| is_it(open)) {
            return Ok(Arc::clone(open));
        }
        let file = shared.fs.open(&shared.layout.segment(segment.first))?;
        let open = Arc::new(OpenSegment { first: segment.first, generation: segment.generation, file });
        if opened.len() == OPEN_MAX {
            opened.pop_front();
        }
        opened.push_back(Arc::clone(&open));
        Ok(open)
    }

    fn take_cursor(&self, offset: u64, segment: u64) -> Option<u64> {
        let mut cursors = lock(&self.cursors);
        let index = cursors.iter().position(|cursor| cursor.offset == offset && cursor.segment == segment)?;
        cursors.remove(index).map(|cursor| cursor.at)
    }

    fn put_cursor(&self, cursor: Cursor) {
        let mut cursors = lock(&self.cursors);
        if cursors.len() == CURSORS_MAX {
            cursors.pop_front();
        }
        cursors.push_back(cursor);
    }

    fn report(&self, shared: &Shared, segment: &Segment, open: &OpenSegment, offset: u64, at: u64, detail: &str) {
        let mut reported = lock(&self.reported);
        if reported.len() >= REPORTED_MAX || !reported.insert(offset) {
            return;
        }
        drop(reported);
        let path = shared.layout.segment(segment.first);
        shared.reporter.corrupt(&path, at, detail);
        let end = position(shared, segment, open, offset + 1).ok().flatten().unwrap_or(segment.state().end);
        let stretch = Stretch { at, len: end.saturating_sub(at) };
        set_aside(&*shared.fs, &shared.layout.quarantine(), &path, &*open.file, stretch);
    }
}

/// What a page still has room for.
struct Room {
    limits: ReadLimits,
    items: Vec<Item>,
    bytes: usize,
    is_full: bool,
}

impl Room {
    /// Takes an item, unless it is too large for what is left; the first one always fits.
    fn take(&mut self, item: Item) -> bool {
        let bytes = self.bytes.saturating_add(item.entry().push.body.len());
        if !self.items.is_empty() && bytes > self.limits.bytes_max {
            self.is_full = true;
            return false;
        }
        self.bytes = bytes;
        self.items.push(item);
        self.is_full = self.items.len() >= self.limits.events_max || bytes >= self.limits.bytes_max;
        true
    }
}

/// Where the frame of `offset` stands; `None` where nothing is.
fn position(shared: &Shared, segment: &Segment, open: &OpenSegment, offset: u64) -> io::Result<Option<u64>> {
    let (next, end) = {
        let state = segment.state();
        if !(segment.first..state.next).contains(&offset) {
            return Ok(None);
        }
        if let Some(positions) = &state.positions {
            let position = positions.get((offset - segment.first) as usize).copied().unwrap_or(0);
            return Ok((position != 0).then_some(u64::from(position)));
        }
        (state.next, state.end)
    };
    let file = shared.fs.open(&shared.layout.ids(segment.first));
    match file.and_then(|file| ids::position_in(&*file, segment.first, offset)) {
        Ok(position) => Ok(position.map(u64::from)),
        // Missing or damaged since it was opened: the segment itself knows.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof | ErrorKind::Other) => {
            let bounds = Bounds {
                seed: segment.seed(),
                from: FILE_HEADER_LEN,
                end,
                first: Some(segment.first),
                number_end: next,
                recycled: true,
            };
            let scanned = scan(&*open.file, bounds)?;
            Ok(scanned.frames.iter().find(|frame| frame.head.number == offset).map(|frame| frame.at))
        }
        Err(error) => Err(error),
    }
}

/// The frame at `at`, with all its bytes, if a whole one stands there before `end`.
fn read_frame<'a>(
    file: &Handle,
    seed: u32,
    chunk: &'a mut Chunk,
    at: u64,
    end: u64,
) -> io::Result<Option<(Head, &'a [u8])>> {
    let mut need = HEADER_LEN;
    loop {
        let available = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
        if need > available {
            return Ok(None);
        }
        let held = at.checked_sub(chunk.at).map_or(0, |skip| chunk.bytes.len().saturating_sub(skip as usize));
        if held < need {
            chunk.bytes.resize(need.max(CHUNK).min(available), 0);
            let read = file.read_at(&mut chunk.bytes, at)?;
            chunk.bytes.truncate(read);
            chunk.at = at;
            if read < need {
                return Ok(None);
            }
        }
        let bytes = &chunk.bytes[(at - chunk.at) as usize..];
        match frame::decode(bytes, seed) {
            Decoded::Head(head) if head.frame_len() <= bytes.len() as u64 => {
                let start = (at - chunk.at) as usize;
                return Ok(Some((head, &chunk.bytes[start..start + head.frame_len() as usize])));
            }
            Decoded::Head(head) => need = head.frame_len() as usize,
            Decoded::More(more) if more > need => need = more,
            Decoded::More(_) | Decoded::Nothing => return Ok(None),
        }
    }
}

fn item_of(head: &Head, frame: &[u8]) -> Option<Item> {
    // A copy of its own: a view of the chunk would keep the whole chunk in memory.
    let body = Bytes::copy_from_slice(&frame[head.meta_end()..]);
    let found = crc32c::crc32c(&body);
    let push = Meta(&frame[HEADER_LEN..head.meta_end()]).push(head.received_ms, body)?;
    let entry = Entry { offset: Offset(head.number), push };
    Some(if found == head.body_crc {
        Item::Entry(entry)
    } else {
        let detail = format!("the body's checksum is {found:08x}, not {:08x}", head.body_crc);
        Item::Corrupt { entry, detail }
    })
}
