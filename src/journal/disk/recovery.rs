//! Opening a journal's directory: who we are, what is there, what a crash left half done.
//!
//! Sealed segments are taken as their ids files say; only the one that was being written is read. It is *copied*, frame by valid
//! frame: after a failed sync the page cache can show bytes that are not on the disk, and a copy that was synced is what it shows.
//! What cannot be read is set aside and reported, and everything else is served: no bytes whatever keep a journal from opening.
//! Offsets are never given twice: the next one is greater than any that a segment, an ids file, a checkpoint or a dead letter
//! knows.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::catalog::{Catalog, OldIds, Segment, SegmentState};
use super::file_header::{FILE_HEADER_LEN, FileHeader, LogId, ReadHeader, Writer};
use super::frame::{NO_KEY, seed_of};
use super::fs::{FileHandle, FileSystem, Handle};
use super::ids::{Id, Ids};
use super::index::DedupIndex;
use super::layout::{FORMAT_VERSION, Layout, SPARE, TEMPORARY, ids_first, segment_first};
use super::options::{OpenError, Options};
use super::report::{Reporter, move_aside, set_aside};
use super::scan::{Bounds, FrameAt, Scanned, Stretch, scan};
use crate::crash::crash_point;

/// Bytes of a copy's writes.
const COPY_CHUNK: usize = 1 << 20;

/// What was found.
pub(super) struct Recovered {
    pub catalog: Catalog,
    pub index: DedupIndex,
    /// Greater than every offset that was ever given, as far as segments and ids files know.
    pub next: u64,
    pub latest_ms: i64,
    pub has_spare: bool,
}

pub(super) struct Recovery<'a> {
    pub fs: &'a Arc<dyn FileSystem>,
    pub layout: &'a Layout,
    pub options: &'a Options,
    pub reporter: &'a Reporter,
    pub log_id: LogId,
}

/// A segment file with a header of ours.
struct Found {
    first: u64,
    header: FileHeader,
    file: Handle,
}

impl Recovery<'_> {
    pub(super) fn run(&self) -> Result<Recovered, OpenError> {
        let listed = self.fs.list(&self.layout.dir).map_err(OpenError::io("list", &self.layout.dir))?;
        let mut has_spare = false;
        let (mut segments, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for file in listed.iter().filter(|file| !file.is_dir) {
            let path = self.layout.dir.join(&file.name);
            if let Some(first) = segment_first(&file.name) {
                segments.insert(first);
            } else if let Some(first) = ids_first(&file.name) {
                ids.insert(first);
            } else if file.name == SPARE {
                has_spare = self.keeps_spare(&path);
            } else if file.name.ends_with(TEMPORARY) {
                self.fs.remove(&path).map_err(OpenError::io("remove", &path))?;
            }
        }
        let mut found = Vec::new();
        for first in &segments {
            found.extend(self.find_segment(*first, ids.contains(first))?);
        }
        let mut recovered = Recovered {
            catalog: Catalog::default(),
            index: DedupIndex::new(self.options.window_ms()),
            next: segments.last().copied().unwrap_or(1).max(1),
            latest_ms: i64::MIN,
            has_spare,
        };
        let firsts: BTreeSet<u64> = found.iter().map(|found| found.first).chain(ids.iter().copied()).collect();
        let mut found = found.into_iter().peekable();
        for first in firsts {
            let is_here = found.peek().is_some_and(|found| found.first == first);
            if is_here {
                let this = found.next().expect("just seen");
                let number_end = found.peek().map_or(u64::MAX, |next| next.first);
                self.take_segment(&mut recovered, this, number_end)?;
            } else {
                self.take_old_ids(&mut recovered, first)?;
            }
        }
        Ok(recovered)
    }

    /// A spare segment is kept only at full size: the size may have been changed in the config.
    fn keeps_spare(&self, path: &Path) -> bool {
        let len = self.fs.open(path).and_then(|file| file.len()).ok();
        let fits = len == Some(self.options.segment_size);
        if !fits {
            // Best effort: a spare one that stays is in nobody's way.
            drop(self.fs.remove(path));
        }
        fits
    }

    fn find_segment(&self, first: u64, has_ids: bool) -> Result<Option<Found>, OpenError> {
        let path = self.layout.segment(first);
        let file = self.fs.open(&path).map_err(OpenError::io("open", &path))?;
        let detail = match read_header(&*file).map_err(OpenError::io("read", &path))? {
            ReadHeader::Ours(header) if header.log_id == self.log_id && header.first == first => {
                return Ok(Some(Found { first, header, file }));
            }
            ReadHeader::Newer(found) => {
                return Err(OpenError::NewerVersion { path, found, known: FORMAT_VERSION });
            }
            ReadHeader::Ours(_) => "a segment of another journal, or under a wrong name; set aside",
            ReadHeader::Broken if has_ids => {
                if let Some(header) = self.header_from_ids(first) {
                    self.reporter.corrupt(&path, 0, "the header does not verify; what it says is in the ids file");
                    return Ok(Some(Found { first, header, file }));
                }
                "the header does not verify; set aside"
            }
            ReadHeader::Broken => "the header does not verify; set aside",
        };
        self.reporter.corrupt(&path, 0, detail);
        drop(file);
        move_aside(&**self.fs, &self.layout.quarantine(), &path);
        Ok(None)
    }

    fn header_from_ids(&self, first: u64) -> Option<FileHeader> {
        let file = self.fs.open(&self.layout.ids(first)).ok()?;
        let loaded = Ids::load(&*file, first, self.log_id).ok()??;
        let generation = loaded.ids.generation;
        // What is written behind the last frame of a sealed segment never matters, so that it may be taken as recycled.
        (generation != 0).then_some(FileHeader {
            log_id: self.log_id,
            generation,
            first,
            recycled: true,
            writer: Writer::this(),
        })
    }

    fn take_segment(&self, into: &mut Recovered, found: Found, number_end: u64) -> Result<(), OpenError> {
        let path = self.layout.segment(found.first);
        let sealed = self.load_ids(found.first)?.filter(|loaded| {
            !loaded.is_damaged
                && loaded.ids.generation == found.header.generation
                && loaded.ids.next() <= number_end
                && found.file.len().is_ok_and(|len| len >= loaded.ids.end)
        });
        let ids = match sealed {
            Some(loaded) => loaded.ids,
            None => {
                let is_last = number_end == u64::MAX;
                self.read_segment(&found, number_end, is_last).map_err(OpenError::io("recover", &path))?
            }
        };
        into.next = into.next.max(ids.next());
        self.mark(into, &ids);
        if ids.ids.is_empty() {
            return Ok(());
        }
        let size = self.fs.open(&path).and_then(|file| file.len()).map_err(OpenError::io("open", &path))?;
        let state = SegmentState {
            next: ids.next(),
            end: ids.end,
            size,
            entries: ids.entries(),
            newest_ms: ids.newest_ms(),
            positions: None,
        };
        into.catalog.add(Arc::new(Segment::new(found.first, found.header.generation, state)));
        Ok(())
    }

    /// Marks of a segment that was given back.
    fn take_old_ids(&self, into: &mut Recovered, first: u64) -> Result<(), OpenError> {
        let path = self.layout.ids(first);
        let Some(loaded) = self.load_ids(first)? else {
            self.reporter.corrupt(&path, 0, "an ids file does not verify; set aside, its push ids are forgotten");
            move_aside(&**self.fs, &self.layout.quarantine(), &path);
            return Ok(());
        };
        if loaded.is_damaged {
            self.reporter.corrupt(&path, 0, "a part of an ids file does not verify; its push ids are forgotten");
            set_aside(
                &**self.fs,
                &self.layout.quarantine(),
                &path,
                &*self.fs.open(&path).map_err(OpenError::io("open", &path))?,
                Stretch { at: 0, len: u64::MAX },
            );
            // Written anew, so that it is said once.
            loaded.ids.write(&**self.fs, &path, self.log_id).map_err(OpenError::io("write", &path))?;
        }
        into.next = into.next.max(loaded.ids.next());
        self.mark(into, &loaded.ids);
        into.catalog.add_old_ids(OldIds { first, newest_ms: loaded.ids.newest_ms() });
        Ok(())
    }

    fn load_ids(&self, first: u64) -> Result<Option<super::ids::LoadedIds>, OpenError> {
        let path = self.layout.ids(first);
        let file = match self.fs.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(OpenError::io("open", &path))?,
        };
        Ids::load(&*file, first, self.log_id).map_err(OpenError::io("read", &path))
    }

    fn mark(&self, into: &mut Recovered, ids: &Ids) {
        for (offset, id) in (ids.first..).zip(&ids.ids) {
            if id.key != NO_KEY {
                into.index.insert(offset, id.key, id.body_crc, id.received_ms);
            }
        }
        into.latest_ms = into.latest_ms.max(ids.newest_ms());
        into.index.expire(into.latest_ms);
    }

    /// Reads a segment from front to back, writes its ids file, and says what it holds.
    fn read_segment(&self, found: &Found, number_end: u64, is_last: bool) -> io::Result<Ids> {
        let path = self.layout.segment(found.first);
        let bounds = Bounds {
            seed: seed_of(found.header.generation),
            from: FILE_HEADER_LEN,
            end: found.file.len()?,
            first: Some(found.first),
            number_end,
            recycled: found.header.recycled || !is_last,
        };
        let mut scanned = scan(&*found.file, bounds)?;
        if is_last {
            cut_torn_bodies(&mut scanned);
        }
        self.report(&path, found, &scanned, is_last);
        let frames = match is_last {
            true => self.copy(found, &scanned)?,
            false => scanned.frames,
        };
        let ids = ids_of(found, &frames);
        if !ids.ids.is_empty() {
            ids.write(&**self.fs, &self.layout.ids(found.first), self.log_id)?;
        }
        Ok(ids)
    }

    fn report(&self, path: &Path, found: &Found, scanned: &Scanned, is_last: bool) {
        let quarantine = self.layout.quarantine();
        for stretch in &scanned.bad {
            self.reporter.corrupt(path, stretch.at, "a frame does not verify; set aside");
            set_aside(&**self.fs, &quarantine, path, &*found.file, *stretch);
        }
        for frame in scanned.frames.iter().filter(|frame| !frame.body_ok) {
            self.reporter.corrupt(path, frame.at, "the body of an entry does not match its checksum");
        }
        if let Some(stretch) = scanned.torn.filter(|_| is_last) {
            self.reporter.torn(path, stretch);
            set_aside(&**self.fs, &quarantine, path, &*found.file, stretch);
        }
    }

    /// Copies the frames into a file that takes the segment's place; gives where they stand there.
    fn copy(&self, found: &Found, scanned: &Scanned) -> io::Result<Vec<FrameAt>> {
        if scanned.frames.is_empty() {
            return Ok(Vec::new());
        }
        let path = self.layout.segment(found.first);
        let temporary = path.with_extension("segment.tmp");
        match self.try_copy(found, scanned, &temporary) {
            Ok(frames) => {
                self.fs.rename(&temporary, &path)?;
                crash_point("journal.recovery_rename");
                self.fs.sync_dir(&self.layout.dir)?;
                Ok(frames)
            }
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                // Refusing to open would not make room. Only after a failed sync could the file on disk differ from what was read.
                tracing::warn!("no space to copy the last segment; it is synced where it is");
                self.fs.remove(&temporary)?;
                found.file.sync()?;
                Ok(scanned.frames.clone())
            }
            Err(error) => Err(error),
        }
    }

    fn try_copy(&self, found: &Found, scanned: &Scanned, temporary: &Path) -> io::Result<Vec<FrameAt>> {
        let file = self.fs.create(temporary)?;
        let header = FileHeader { recycled: false, writer: Writer::this(), ..found.header };
        let mut buffer = header.to_bytes().to_vec();
        let mut written = 0;
        let mut copied = Vec::with_capacity(scanned.frames.len());
        for frame in &scanned.frames {
            let start = buffer.len();
            copied.push(FrameAt { at: written + start as u64, ..*frame });
            buffer.resize(start + frame.head.frame_len() as usize, 0);
            super::fs::read_exact_at(&*found.file, &mut buffer[start..], frame.at)?;
            if buffer.len() >= COPY_CHUNK {
                file.write_all_at(&buffer, written)?;
                written += buffer.len() as u64;
                buffer.clear();
            }
        }
        file.write_all_at(&buffer, written)?;
        crash_point("journal.recovery_copy");
        file.sync()?;
        Ok(copied)
    }
}

/// Frames at the end whose bodies do not verify were being written; they were never acknowledged.
fn cut_torn_bodies(scanned: &mut Scanned) {
    while let Some(last) = scanned.frames.last().copied().filter(|last| !last.body_ok) {
        scanned.frames.pop();
        let end = scanned.torn.map_or(last.end(), |torn| torn.at + torn.len).max(last.end());
        scanned.torn = Some(Stretch { at: last.at, len: end - last.at });
    }
    // Damage before the cut with nothing sound behind it is a part of the unfinished write.
    let end = scanned.end(FILE_HEADER_LEN);
    while let Some(bad) = scanned.bad.pop_if(|bad| bad.at >= end) {
        let torn_end = scanned.torn.map_or(bad.at + bad.len, |torn| torn.at + torn.len);
        scanned.torn = Some(Stretch { at: bad.at, len: torn_end - bad.at });
    }
}

fn ids_of(found: &Found, frames: &[FrameAt]) -> Ids {
    let mut ids = Vec::with_capacity(frames.len());
    for frame in frames {
        ids.resize((frame.head.number - found.first) as usize, Id::HOLE);
        ids.push(Id {
            // A resend of a push whose body is lost is the chance to get it back.
            key: if frame.body_ok { frame.head.key } else { NO_KEY },
            body_crc: frame.head.body_crc,
            position: u32::try_from(frame.at).expect("segments are smaller than 4 GiB"),
            received_ms: frame.head.received_ms,
        });
    }
    let end = frames.last().map_or(FILE_HEADER_LEN, FrameAt::end);
    Ids { generation: found.header.generation, first: found.first, ids, end }
}

pub(super) fn read_header(file: &dyn FileHandle) -> io::Result<ReadHeader> {
    let mut bytes = [0; FILE_HEADER_LEN as usize];
    let read = file.read_at(&mut bytes, 0)?;
    Ok(FileHeader::read(&bytes[..read]))
}
