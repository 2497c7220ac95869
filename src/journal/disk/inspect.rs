//! Looking at a journal from outside: what is in it, and what is wrong with it.
//!
//! Read-only, and without the lock: it works beside a running gateway as well as on a stopped one's directory. What is being
//! written while it looks is not counted as damage.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Serialize;

use super::checkpoints::{read_slot, slot_paths};
use super::dead_letters::{letter, scan_log};
use super::file_header::{FILE_HEADER_LEN, FileHeader, LogId, ReadHeader};
use super::frame::{HEADER_LEN, Kind, Meta, seed_of};
use super::fs::{FileSystem, Handle, RealFileSystem, read_exact_at, read_whole};
use super::identity::{ReadIdentity, read_identity};
use super::ids::Ids;
use super::layout::{FORMAT_VERSION, Layout, encode_name, ids_first, letters_number, segment_first, segment_name};
use super::recovery::read_header;
use super::scan::{Bounds, FrameAt, Scanned, scan};
use crate::journal::inspect::DumpLine;
use crate::journal::{Checkpoint, DeadLetter, Entry, Push};
use crate::names::{Offset, SinkName};

/// Why a directory could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error("{} is not the directory of a journal", dir.display())]
    NotAJournal { dir: PathBuf },
    #[error(
        "{} was written by a later version (format {found}, this one knows {FORMAT_VERSION}); run that version",
        dir.display()
    )]
    NewerVersion { dir: PathBuf, found: u32 },
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// What [`verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct VerifyReport {
    pub segments: u64,
    /// How many segments each release wrote.
    pub writers: BTreeMap<String, u64>,
    pub entries: u64,
    pub dead_letters: u64,
    /// Of segments, ids files and dead letters.
    pub bytes: u64,
    pub problems: Vec<Problem>,
}

/// Something that does not verify.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Relative to the journal's directory.
    pub file: String,
    /// The entry's offset, where it is known.
    pub offset: Option<u64>,
    /// Where in the file.
    pub position: u64,
    /// `header`, `frame`, `body`, `ids`, `checkpoint`, `dead-letter`, `foreign` or `identity`.
    pub kind: &'static str,
    pub detail: String,
}

/// Reads everything and says what does not verify.
pub fn verify(dir: &Path) -> Result<VerifyReport, InspectError> {
    let mut inspection = Inspection::begin(dir)?;
    for first in inspection.segments()? {
        inspection.verify_segment(first)?;
    }
    inspection.verify_ids()?;
    inspection.verify_checkpoints()?;
    inspection.verify_dead_letters()?;
    Ok(inspection.report)
}

/// Gives every entry that is held to `line`, by offset.
pub fn dump(dir: &Path, mut line: impl FnMut(DumpLine)) -> Result<(), InspectError> {
    let inspection = Inspection::begin(dir)?;
    for first in inspection.segments()? {
        let Some((file, scanned)) =
            inspection.scan_segment(first)?.and_then(|(file, scanned)| Some((file, scanned?.1)))
        else {
            continue;
        };
        for frame in &scanned.frames {
            let path = inspection.layout.segment(first);
            line(line_of(&file, frame).map_err(|source| InspectError::Io { path, source })?);
        }
    }
    Ok(())
}

/// Gives every entry that is held to `take`, with its body as it is, by offset.
pub fn entries(dir: &Path, mut take: impl FnMut(Entry)) -> Result<(), InspectError> {
    let inspection = Inspection::begin(dir)?;
    for first in inspection.segments()? {
        let Some((file, Some((_, scanned)))) = inspection.scan_segment(first)? else { continue };
        for frame in &scanned.frames {
            let path = inspection.layout.segment(first);
            take(entry_of(&file, frame).map_err(|source| InspectError::Io { path, source })?);
        }
    }
    Ok(())
}

/// The dead letters that are kept for `sink`, by rising number.
pub fn dead_letters(dir: &Path, sink: &SinkName) -> Result<Vec<DeadLetter>, InspectError> {
    let inspection = Inspection::begin(dir)?;
    let dir = inspection.layout.dead_letters().join(encode_name(sink.as_str()));
    let listed = match inspection.fs.list(&dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(|source| InspectError::Io { path: dir.clone(), source })?,
    };
    let mut names: Vec<_> = listed.into_iter().filter_map(|it| Some((letters_number(&it.name)?, it.name))).collect();
    names.sort_unstable();
    let mut held = BTreeMap::new();
    for (_, name) in names {
        let path = dir.join(name);
        let Some(file) = inspection.open(&path)? else { continue };
        let failed = |source| InspectError::Io { path: path.clone(), source };
        let Some((_, scanned)) = scan_log(&*file).map_err(failed)? else { continue };
        for frame in &scanned.frames {
            let number = frame.head.number;
            match frame.head.kind {
                Kind::Letter => drop(held.insert(number, letter_of(&file, frame, sink).map_err(failed)?)),
                Kind::LetterRemoved => drop(held.remove(&number)),
                Kind::Entry | Kind::NextNumber => {}
            }
        }
    }
    Ok(held.into_values().collect())
}

/// How far `sink` has settled; `None` where the journal does not know it.
pub fn checkpoint(dir: &Path, sink: &SinkName) -> Result<Option<Checkpoint>, InspectError> {
    let inspection = Inspection::begin(dir)?;
    let mut newest: Option<(u64, Checkpoint)> = None;
    for path in slot_paths(&inspection.layout.checkpoints(), sink) {
        let Some(file) = inspection.open(&path)? else { continue };
        let bytes = read_whole(&*file, u64::MAX).map_err(|source| InspectError::Io { path, source })?;
        newest = newest.into_iter().chain(read_slot(&bytes)).max_by_key(|(sequence, _)| *sequence);
    }
    Ok(newest.map(|(_, checkpoint)| checkpoint))
}

/// A segment's file, and what is in it where its header verifies.
type Looked = (Handle, Option<(FileHeader, Scanned)>);

struct Inspection {
    fs: RealFileSystem,
    layout: Layout,
    log_id: Option<LogId>,
    report: VerifyReport,
}

impl Inspection {
    fn begin(dir: &Path) -> Result<Self, InspectError> {
        let (fs, layout) = (RealFileSystem, Layout::new(dir));
        let not_a_journal = || InspectError::NotAJournal { dir: dir.to_path_buf() };
        let identity =
            read_identity(&fs, &layout).map_err(|source| InspectError::Io { path: layout.log_json(), source })?;
        let mut this = Self { fs, layout, log_id: None, report: VerifyReport::default() };
        match identity {
            ReadIdentity::Ours(log_id) => this.log_id = Some(log_id),
            ReadIdentity::Newer(found) => return Err(InspectError::NewerVersion { dir: dir.to_path_buf(), found }),
            ReadIdentity::Missing if this.segments()?.is_empty() => return Err(not_a_journal()),
            ReadIdentity::Missing => this.problem("log.json", None, 0, "identity", "it is missing"),
            ReadIdentity::Broken => this.problem("log.json", None, 0, "identity", "it does not verify"),
        }
        Ok(this)
    }

    fn segments(&self) -> Result<BTreeSet<u64>, InspectError> {
        Ok(self.list(&self.layout.dir)?.iter().filter_map(|name| segment_first(name)).collect())
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, InspectError> {
        let listed = self.fs.list(dir).map_err(|source| InspectError::Io { path: dir.to_path_buf(), source })?;
        Ok(listed.into_iter().map(|it| it.name).collect())
    }

    /// `None` where it was given back meanwhile.
    fn open(&self, path: &Path) -> Result<Option<Handle>, InspectError> {
        match self.fs.open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some).map_err(|source| InspectError::Io { path: path.to_path_buf(), source }),
        }
    }

    /// `None` where it was given back meanwhile.
    fn scan_segment(&self, first: u64) -> Result<Option<Looked>, InspectError> {
        let path = self.layout.segment(first);
        let Some(file) = self.open(&path)? else { return Ok(None) };
        let read = || -> io::Result<Option<(FileHeader, Scanned)>> {
            let ReadHeader::Ours(header) = read_header(&*file)? else { return Ok(None) };
            let next = self.segments().ok().and_then(|segments| segments.range(first + 1..).next().copied());
            let bounds = Bounds {
                seed: seed_of(header.generation),
                from: FILE_HEADER_LEN,
                end: file.len()?,
                first: Some(first),
                number_end: next.unwrap_or(u64::MAX),
                recycled: true,
            };
            Ok(Some((header, scan(&*file, bounds)?)))
        };
        let scanned = read().map_err(|source| InspectError::Io { path, source })?;
        Ok(Some((file, scanned)))
    }

    fn verify_segment(&mut self, first: u64) -> Result<(), InspectError> {
        let Some((file, found)) = self.scan_segment(first)? else { return Ok(()) };
        let name = segment_name(first);
        self.report.segments += 1;
        self.report.bytes += file.len().unwrap_or(0);
        let Some((header, scanned)) = found else {
            self.problem(&name, None, 0, "header", "neither copy of the header verifies");
            return Ok(());
        };
        *self.report.writers.entry(header.writer.to_string()).or_default() += 1;
        if header.first != first || self.log_id.is_some_and(|id| id != header.log_id) {
            self.problem(&name, None, 0, "foreign", "a segment of another journal, or under a wrong name");
            return Ok(());
        }
        self.report.entries += scanned.frames.len() as u64;
        // What was just being written looks whole the second time.
        let again = if scanned.bad.is_empty() { None } else { self.scan_segment(first)? };
        let bad = again.and_then(|(_, found)| found).map_or_else(Vec::new, |(_, scanned)| scanned.bad);
        for stretch in bad.iter().filter(|stretch| scanned.bad.contains(stretch)) {
            let detail = format!("{} bytes are no frame", stretch.len);
            self.problem(&name, None, stretch.at, "frame", &detail);
        }
        for frame in scanned.frames.iter().filter(|frame| !frame.body_ok) {
            self.problem(&name, Some(frame.head.number), frame.at, "body", "the body does not match its checksum");
        }
        Ok(())
    }

    fn verify_ids(&mut self) -> Result<(), InspectError> {
        for name in self.list(&self.layout.dir)? {
            let Some(first) = ids_first(&name) else { continue };
            let path = self.layout.dir.join(&name);
            let Some(file) = self.open(&path)? else { continue };
            self.report.bytes += file.len().unwrap_or(0);
            let Some(log_id) = self.log_id else { continue };
            match Ids::load(&*file, first, log_id).map_err(|source| InspectError::Io { path, source })? {
                None => self.problem(&name, None, 0, "foreign", "it does not verify, or is of another journal"),
                Some(loaded) if loaded.is_damaged => {
                    self.problem(&name, None, 0, "ids", "a part of it does not verify");
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn verify_checkpoints(&mut self) -> Result<(), InspectError> {
        let dir = self.layout.checkpoints();
        for name in self.list(&dir)?.iter().filter(|name| name.ends_with(".a") || name.ends_with(".b")) {
            let path = dir.join(name);
            // One that is just being written verifies the second time.
            let verifies =
                || -> io::Result<bool> { Ok(read_slot(&read_whole(&*self.fs.open(&path)?, u64::MAX)?).is_some()) };
            let sound = verifies().and_then(|sound| if sound { Ok(true) } else { verifies() });
            if !sound.map_err(|source| InspectError::Io { path: path.clone(), source })? {
                self.problem(&format!("checkpoints/{name}"), None, 0, "checkpoint", "the slot does not verify");
            }
        }
        Ok(())
    }

    fn verify_dead_letters(&mut self) -> Result<(), InspectError> {
        for sink in self.list(&self.layout.dead_letters())? {
            let dir = self.layout.dead_letters().join(&sink);
            for name in self.list(&dir)?.iter().filter(|name| letters_number(name).is_some()) {
                let path = dir.join(name);
                let Some(file) = self.open(&path)? else { continue };
                let shown = format!("dead-letters/{sink}/{name}");
                self.report.bytes += file.len().unwrap_or(0);
                match scan_log(&*file).map_err(|source| InspectError::Io { path, source })? {
                    None => self.problem(&shown, None, 0, "header", "neither copy of the header verifies"),
                    Some((_, scanned)) => self.count_letters(&shown, &scanned),
                }
            }
        }
        Ok(())
    }

    fn count_letters(&mut self, file: &str, scanned: &Scanned) {
        let mut held = BTreeSet::new();
        for frame in &scanned.frames {
            match frame.head.kind {
                Kind::Letter => drop(held.insert(frame.head.number)),
                Kind::LetterRemoved => drop(held.remove(&frame.head.number)),
                Kind::Entry | Kind::NextNumber => {}
            }
            if !frame.body_ok {
                let detail = "the payload does not match its checksum";
                self.problem(file, Some(frame.head.number), frame.at, "dead-letter", detail);
            }
        }
        for stretch in &scanned.bad {
            self.problem(file, None, stretch.at, "dead-letter", &format!("{} bytes are no frame", stretch.len));
        }
        self.report.dead_letters += held.len() as u64;
    }

    fn problem(&mut self, file: &str, offset: Option<u64>, position: u64, kind: &'static str, detail: &str) {
        let (file, detail) = (file.to_owned(), detail.to_owned());
        self.report.problems.push(Problem { file, offset, position, kind, detail });
    }
}

fn line_of(file: &Handle, frame: &FrameAt) -> io::Result<DumpLine> {
    let push = push_of(file, frame, false)?;
    Ok(DumpLine {
        shard: None,
        offset: frame.head.number,
        push_id: push.id,
        source: push.source,
        action: push.action,
        session_id: push.session,
        received_at: push.received_at,
        size_bytes: u64::from(frame.head.body_len),
    })
}

fn entry_of(file: &Handle, frame: &FrameAt) -> io::Result<Entry> {
    Ok(Entry { offset: Offset(frame.head.number), push: push_of(file, frame, true)? })
}

fn push_of(file: &Handle, frame: &FrameAt, with_body: bool) -> io::Result<Push> {
    let (meta, body) = parts_of(file, frame, with_body)?;
    Ok(Meta(&meta).push(frame.head.received_ms, body).ok_or(ErrorKind::InvalidData)?)
}

fn letter_of(file: &Handle, frame: &FrameAt, sink: &SinkName) -> io::Result<DeadLetter> {
    let (meta, body) = parts_of(file, frame, true)?;
    Ok(letter(sink, &frame.head, &meta, body).ok_or(ErrorKind::InvalidData)?)
}

/// Meta and body of a frame.
fn parts_of(file: &Handle, frame: &FrameAt, with_body: bool) -> io::Result<(Vec<u8>, Bytes)> {
    let mut meta = vec![0; frame.head.meta_len as usize];
    let at = frame.at + HEADER_LEN as u64;
    read_exact_at(&**file, &mut meta, at)?;
    let mut body = vec![0; if with_body { frame.head.body_len as usize } else { 0 }];
    read_exact_at(&**file, &mut body, at + meta.len() as u64)?;
    Ok((meta, body.into()))
}
