//! One log of dead letters: appended to, replaced as a whole when it is mostly removed letters or can no longer be trusted.
//!
//! In memory is where each letter lies (about 70 bytes); its text and payload are read when they are asked for. Replacing writes
//! the letters that are left into `<n+1>.log`, under a temporary name until it is synced; the greatest number counts. A log whose
//! sync failed is replaced before anything else is appended.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::super::file_header::{FILE_HEADER_LEN, FileHeader, ReadHeader, Writer};
use super::super::frame::{HEADER_LEN, Head, Key, Kind, seed_of};
use super::super::fs::{FileHandle, Handle, read_exact_at};
use super::super::layout::{TEMPORARY, letters_name, letters_number};
use super::super::report::{move_aside, set_aside};
use super::super::scan::{Bounds, Scanned, scan};
use super::super::shared::lock;
use super::{Context, codec};
use crate::crash::crash_point;
use crate::journal::{DeadLetter, DeadLetterHead};
use crate::names::SinkName;

/// Removed bytes below which a log is not replaced.
const WASTE_MIN: u64 = 1 << 20;
/// Letters looked at between two looks at the log.
const HEADS_CHUNK: usize = 1000;
const COPY_CHUNK: usize = 1 << 20;
/// A log up to this long is written anew when it is opened: after a failed sync what is read need not be on the disk. A longer one
/// would keep the start waiting.
const ANEW_MAX: u64 = 16 << 20;

pub(super) struct Store {
    context: Context,
    dir: PathBuf,
    log: Mutex<Log>,
    len: AtomicU64,
    bytes: AtomicU64,
}

struct Log {
    /// Of the file; 0 before there is one.
    number: u64,
    generation: u64,
    file: Option<Handle>,
    /// A write or sync failed: the file must be replaced first.
    is_spoiled: bool,
    end: u64,
    /// Bytes of the frames that count.
    live: u64,
    letters: BTreeMap<u64, Place>,
    /// Keys and checksums of the letters, so that a refused push is kept once.
    seen: HashSet<(Key, u32)>,
    /// The number that the next refused push gets. Never given twice.
    next: u64,
}

/// Where a letter lies.
#[derive(Clone, Copy)]
struct Place {
    at: u64,
    head: Head,
}

impl Store {
    pub(super) fn open(context: &Context, dir: &Path) -> io::Result<Self> {
        let mut log = Log::empty();
        let mut numbers = Vec::new();
        for listed in context.fs.list(dir)? {
            let path = dir.join(&listed.name);
            match letters_number(&listed.name) {
                Some(number) => numbers.push(number),
                None if listed.name.ends_with(TEMPORARY) => context.fs.remove(&path)?,
                None => move_aside(&*context.fs, &context.layout.quarantine(), &path),
            }
        }
        while let Some(number) = numbers.pop() {
            let path = dir.join(letters_name(number));
            if log.read(context, &path, number)? {
                break;
            }
        }
        log.number = log.number.max(numbers.last().copied().unwrap_or(0));
        // What an unfinished replacement left behind.
        for number in numbers {
            context.fs.remove(&dir.join(letters_name(number)))?;
        }
        let store = Self {
            context: context.clone(),
            dir: dir.to_path_buf(),
            log: Mutex::new(log),
            len: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        };
        let mut log = lock(&store.log);
        if log.is_spoiled || (log.file.is_some() && log.end <= ANEW_MAX) {
            // It holds what was read, so it only has to be tried: what is spoiled is replaced before the next letter at the latest.
            if let Err(error) = store.replace(&mut log) {
                tracing::warn!(%error, "a log of dead letters could not be written anew");
            }
        }
        store.measure(&log);
        drop(log);
        Ok(store)
    }

    pub(super) fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    pub(super) fn numbers_behind(&self, low: u64) -> Vec<u64> {
        lock(&self.log).letters.range(low + 1..).map(|(number, _)| *number).collect()
    }

    pub(super) fn greatest_number(&self) -> Option<u64> {
        lock(&self.log).letters.last_key_value().map(|(number, _)| *number)
    }

    /// Keeps letters under their own numbers; `false`, and nothing done, where there would be more than `limit`.
    pub(super) fn keep(&self, letters: &[DeadLetter], limit: u64) -> io::Result<bool> {
        let mut log = lock(&self.log);
        let fresh: HashSet<u64> =
            letters.iter().map(|letter| letter.id.number).filter(|number| !log.letters.contains_key(number)).collect();
        if !fresh.is_empty() && (log.letters.len() + fresh.len()) as u64 > limit {
            return Ok(false);
        }
        let letters: Vec<_> = letters.iter().map(|letter| (letter.id.number, letter)).collect();
        self.append(&mut log, &letters, &[])?;
        Ok(true)
    }

    /// Keeps refused pushes under new numbers, each push id and body once; the oldest letters make room.
    pub(super) fn keep_refused(&self, letters: Vec<DeadLetter>, limit: u64) -> io::Result<()> {
        let mut log = lock(&self.log);
        let mut fresh = Vec::new();
        let mut among_these = HashSet::new();
        for letter in &letters {
            let key = super::super::frame::key_of(&letter.push.source, &letter.push.id);
            let mark = (key, crc32c::crc32c(&letter.push.body));
            if !log.seen.contains(&mark) && among_these.insert(mark) {
                fresh.push((log.next + fresh.len() as u64, letter));
            }
        }
        if fresh.is_empty() {
            return Ok(());
        }
        let over = ((log.letters.len() + fresh.len()) as u64).saturating_sub(limit.max(1));
        let oldest: Vec<u64> = log.letters.keys().take(over as usize).copied().collect();
        let skipped = (over as usize - oldest.len()).min(fresh.len());
        log.next += skipped as u64;
        self.append(&mut log, &fresh[skipped..], &oldest)
    }

    /// Replaces letters that are there; says how many.
    pub(super) fn update(&self, letters: &[DeadLetter]) -> io::Result<u64> {
        let mut log = lock(&self.log);
        let held: Vec<_> = letters
            .iter()
            .map(|letter| (letter.id.number, letter))
            .filter(|(number, _)| log.letters.contains_key(number))
            .collect();
        if !held.is_empty() {
            self.append(&mut log, &held, &[])?;
        }
        Ok(held.len() as u64)
    }

    /// Removes letters; says how many there were.
    pub(super) fn purge(&self, numbers: &[u64]) -> io::Result<u64> {
        let mut log = lock(&self.log);
        let mut held: Vec<u64> = numbers.iter().copied().filter(|number| log.letters.contains_key(number)).collect();
        held.sort_unstable();
        held.dedup();
        if !held.is_empty() {
            self.append(&mut log, &[], &held)?;
        }
        Ok(held.len() as u64)
    }

    /// The first `limit` matching letters from a number on, without payloads. The log is locked for a chunk at a time.
    pub(super) fn heads_from(
        &self,
        sink: &SinkName,
        mut from: u64,
        matches: impl Fn(&DeadLetterHead) -> bool,
        limit: usize,
    ) -> io::Result<Vec<DeadLetterHead>> {
        let mut heads = Vec::new();
        let mut meta = Vec::new();
        while heads.len() < limit {
            let (file, places) = {
                let log = lock(&self.log);
                let Some(file) = log.file.clone() else { break };
                (file, log.letters.range(from..).take(HEADS_CHUNK).map(|(_, place)| *place).collect::<Vec<_>>())
            };
            let Some(last) = places.last() else { break };
            from = last.head.number + 1;
            for place in &places {
                meta.resize(place.head.meta_len as usize, 0);
                read_exact_at(&*file, &mut meta, place.at + HEADER_LEN as u64)?;
                heads.extend(codec::head(sink, &place.head, &meta).filter(&matches));
                if heads.len() == limit {
                    break;
                }
            }
        }
        Ok(heads)
    }

    pub(super) fn get(&self, sink: &SinkName, number: u64) -> io::Result<Option<DeadLetter>> {
        let Some((file, place)) = self.place(number) else { return Ok(None) };
        let mut bytes = vec![0; (place.head.frame_len() - HEADER_LEN as u64) as usize];
        read_exact_at(&*file, &mut bytes, place.at + HEADER_LEN as u64)?;
        let (meta, body) = bytes.split_at(place.head.meta_len as usize);
        if crc32c::crc32c(body) != place.head.body_crc {
            self.context.reporter.corrupt(&self.dir, place.at, "the payload of a dead letter does not verify");
            return Err(io::Error::other("the payload of this dead letter is damaged"));
        }
        Ok(codec::letter(sink, &place.head, meta, Bytes::copy_from_slice(body)))
    }

    /// Removes the files. The store is not used afterwards.
    pub(super) fn remove_files(&self) -> io::Result<()> {
        let mut log = lock(&self.log);
        for listed in self.context.fs.list(&self.dir)? {
            self.context.fs.remove(&self.dir.join(&listed.name))?;
        }
        self.context.fs.remove_dir(&self.dir)?;
        *log = Log::empty();
        self.measure(&log);
        Ok(())
    }

    fn place(&self, number: u64) -> Option<(Handle, Place)> {
        let log = lock(&self.log);
        Some((log.file.clone()?, *log.letters.get(&number)?))
    }

    /// Appends letters and removals with one write and one sync; memory follows once that is durable.
    fn append(&self, log: &mut Log, letters: &[(u64, &DeadLetter)], removed: &[u64]) -> io::Result<()> {
        if log.file.is_none() || log.is_spoiled {
            self.replace(log)?;
        }
        let seed = seed_of(log.generation);
        let mut bytes = Vec::new();
        let mut places = Vec::with_capacity(letters.len());
        for (number, letter) in letters {
            let at = log.end + bytes.len() as u64;
            places.push(Place { at, head: codec::put(&mut bytes, seed, *number, letter) });
        }
        for number in removed {
            codec::put_mark(&mut bytes, seed, Kind::LetterRemoved, *number);
        }
        let file = log.file.clone().expect("made above");
        if let Err(error) = file.write_all_at(&bytes, log.end) {
            // Part of it may be there, and must not be read as letters later.
            log.is_spoiled = file.set_len(log.end).is_err();
            return Err(error);
        }
        crash_point("journal.dead_letter_write");
        if let Err(error) = file.sync() {
            log.is_spoiled = true;
            // At once, so that a restart does not read what is not on the disk; where that fails, before the next letter.
            if let Err(error) = self.replace(log) {
                tracing::warn!(%error, "a log of dead letters could not be replaced; tried again later");
            }
            return Err(error);
        }
        log.end += bytes.len() as u64;
        for place in places {
            log.put(place);
        }
        for number in removed {
            log.remove(*number);
        }
        let waste = log.end - log.live;
        if waste > WASTE_MIN.max(log.live)
            && let Err(error) = self.replace(log)
        {
            tracing::warn!(%error, "a log of dead letters could not be compacted; tried again later");
        }
        self.measure(log);
        Ok(())
    }

    /// Writes what counts into a new log, which takes the place of the old one.
    fn replace(&self, log: &mut Log) -> io::Result<()> {
        let fs = &*self.context.fs;
        let number = log.number + 1;
        let path = self.dir.join(letters_name(number));
        let temporary = path.with_extension("log.tmp");
        let file = fs.create(&temporary)?;
        let generation = if log.generation == 0 { fastrand::u64(1..) } else { log.generation };
        let header = FileHeader {
            log_id: self.context.log_id,
            generation,
            first: number,
            recycled: false,
            writer: Writer::this(),
        };
        let mut buffer = header.to_bytes().to_vec();
        codec::put_mark(&mut buffer, seed_of(generation), Kind::NextNumber, log.next);
        let mut written = 0;
        let mut places = Vec::with_capacity(log.letters.len());
        for place in log.letters.values() {
            let start = buffer.len();
            places.push(Place { at: written + start as u64, head: place.head });
            buffer.resize(start + place.head.frame_len() as usize, 0);
            let old = log.file.as_ref().expect("letters lie in a file");
            read_exact_at(&**old, &mut buffer[start..], place.at)?;
            if buffer.len() >= COPY_CHUNK {
                file.write_all_at(&buffer, written)?;
                written += buffer.len() as u64;
                buffer.clear();
            }
        }
        file.write_all_at(&buffer, written)?;
        crash_point("journal.compaction_write");
        file.sync()?;
        fs.rename(&temporary, &path)?;
        crash_point("journal.compaction_rename");
        fs.sync_dir(&self.dir)?;
        let old = std::mem::replace(&mut log.number, number);
        log.end = written + buffer.len() as u64;
        log.live = log.end;
        log.generation = generation;
        log.file = Some(file);
        log.is_spoiled = false;
        log.letters = places.into_iter().map(|place| (place.head.number, place)).collect();
        if old != 0 {
            fs.remove(&self.dir.join(letters_name(old)))?;
        }
        Ok(())
    }

    fn measure(&self, log: &Log) {
        self.len.store(log.letters.len() as u64, Ordering::Release);
        self.bytes.store(log.end, Ordering::Release);
    }
}

impl Log {
    fn empty() -> Self {
        Self {
            number: 0,
            generation: 0,
            file: None,
            is_spoiled: false,
            end: 0,
            live: 0,
            letters: BTreeMap::new(),
            seen: HashSet::new(),
            next: 1,
        }
    }

    fn put(&mut self, place: Place) {
        self.remove(place.head.number);
        self.next = self.next.max(place.head.number.saturating_add(1));
        self.live += place.head.frame_len();
        self.seen.insert((place.head.key, place.head.body_crc));
        self.letters.insert(place.head.number, place);
    }

    fn remove(&mut self, number: u64) {
        if let Some(place) = self.letters.remove(&number) {
            self.live -= place.head.frame_len();
            self.seen.remove(&(place.head.key, place.head.body_crc));
        }
    }

    /// Reads a file; `false` where it is none of ours and was moved aside.
    fn read(&mut self, context: &Context, path: &Path, number: u64) -> io::Result<bool> {
        let file = context.fs.open(path)?;
        let quarantine = context.layout.quarantine();
        let Some((header, scanned)) = scan_log(&*file)?.filter(|(header, _)| header.log_id == context.log_id) else {
            context.reporter.corrupt(path, 0, "not a log of dead letters of this journal; set aside");
            move_aside(&*context.fs, &quarantine, path);
            return Ok(false);
        };
        for stretch in &scanned.bad {
            context.reporter.corrupt(path, stretch.at, "a dead letter does not verify; set aside");
            set_aside(&*context.fs, &quarantine, path, &*file, *stretch);
        }
        if let Some(stretch) = scanned.torn {
            context.reporter.torn(path, stretch);
            set_aside(&*context.fs, &quarantine, path, &*file, stretch);
        }
        self.number = number;
        self.generation = header.generation;
        self.is_spoiled = !scanned.bad.is_empty() || scanned.torn.is_some();
        self.end = scanned.end(FILE_HEADER_LEN);
        for frame in &scanned.frames {
            match frame.head.kind {
                Kind::Letter => self.put(Place { at: frame.at, head: frame.head }),
                Kind::LetterRemoved => self.remove(frame.head.number),
                Kind::NextNumber | Kind::Entry => self.next = self.next.max(frame.head.number),
            }
        }
        self.file = Some(file);
        Ok(true)
    }
}

/// Reads a log of dead letters; `None` where its header does not verify.
pub(in super::super) fn scan_log(file: &dyn FileHandle) -> io::Result<Option<(FileHeader, Scanned)>> {
    let mut start = [0; FILE_HEADER_LEN as usize];
    let read = file.read_at(&mut start, 0)?;
    let ReadHeader::Ours(header) = FileHeader::read(&start[..read]) else { return Ok(None) };
    let bounds = Bounds {
        seed: seed_of(header.generation),
        from: FILE_HEADER_LEN,
        end: file.len()?,
        first: None,
        number_end: u64::MAX,
        recycled: false,
    };
    Ok(Some((header, scan(file, bounds)?)))
}
