//! Checkpoints on disk: one value per registered sink, in two slots that are written in turn.
//!
//! ```text
//!  at  size
//!   0     8  magic "TRUNKCKP"
//!   8     4  format version
//!  12     4  CRC32C of everything that follows, up to the end of the value
//!  16     8  sequence: the slot with the greater one counts
//!  24     8  length of the value
//!  32     …  the value: a checkpoint as JSON
//! ```
//!
//! A slot is written while the other one holds the value before, so a crash leaves one of the two. A file whose write or sync
//! failed is not trusted again: the next write makes a new file, which gets its name once it is synced. A sink is registered while
//! a slot of it is there. An empty file beside the slots says that an operator paused the sink.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use jiff::Timestamp;

use super::frame::{u32_at, u64_at};
use super::fs::{FileSystem, Handle, read_whole};
use super::layout::{FORMAT_VERSION, Layout, TEMPORARY, decode_name, encode_name};
use super::report::{Reporter, move_aside};
use super::shared::lock;
use crate::crash::crash_point;
use crate::journal::{Checkpoint, Error, Fence};
use crate::names::{Offset, SinkName};

const MAGIC: [u8; 8] = *b"TRUNKCKP";
const HEADER_LEN: usize = 32;
/// Files grow in steps, so that most writes change no metadata.
const STEP: usize = 4096;
const VALUE_LEN_MAX: u64 = 64 << 20;
const SLOTS: [&str; 2] = ["a", "b"];
const PAUSED: &str = ".paused";

pub(super) struct Checkpoints {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    sinks: RwLock<BTreeMap<SinkName, Arc<SinkPlace>>>,
}

/// A registered sink.
pub(super) struct SinkPlace {
    /// What is on disk. Not locked while the disk is waited for.
    current: Mutex<Arc<Checkpoint>>,
    low: AtomicU64,
    is_paused: AtomicBool,
    /// Locked while a checkpoint is written.
    slots: Mutex<Slots>,
    /// When the entry behind the checkpoint was received, as far as it was looked up.
    pub oldest: Mutex<Option<(Offset, Timestamp)>>,
}

struct Slots {
    epoch: u64,
    sequence: u64,
    /// A write failed since the last one that did not: what is on disk may be either.
    is_uncertain: bool,
    /// The file of each slot, where it is there and no write to it ever failed.
    files: [Option<Handle>; 2],
}

impl SinkPlace {
    pub(super) fn checkpoint(&self) -> Arc<Checkpoint> {
        Arc::clone(&lock(&self.current))
    }
}

impl Checkpoints {
    /// Reads all checkpoints. A sink whose slots are both damaged stays registered and begins with the oldest entry: it gets
    /// things twice, but misses nothing.
    pub(super) fn load(fs: &Arc<dyn FileSystem>, layout: &Layout, reporter: &Reporter) -> io::Result<Self> {
        let dir = layout.checkpoints();
        fs.create_dir_all(&dir)?;
        let mut sinks: BTreeMap<SinkName, Arc<SinkPlace>> = BTreeMap::new();
        let mut paused = Vec::new();
        for listed in fs.list(&dir)? {
            if let Some(sink) = listed.name.strip_suffix(PAUSED).and_then(decode_name) {
                paused.push(SinkName::new(sink));
                continue;
            }
            let name = listed
                .name
                .rsplit_once('.')
                .and_then(|(stem, slot)| SLOTS.contains(&slot).then(|| decode_name(stem)).flatten().map(SinkName::new));
            match name {
                Some(name) if !sinks.contains_key(&name) => {
                    let place = load_place(&**fs, &dir, &name, reporter)?;
                    sinks.insert(name, Arc::new(place));
                }
                Some(_) => {}
                None if listed.name.ends_with(TEMPORARY) => fs.remove(&dir.join(&listed.name))?,
                None => move_aside(&**fs, &layout.quarantine(), &dir.join(&listed.name)),
            }
        }
        for sink in paused {
            match sinks.get(&sink) {
                Some(place) => place.is_paused.store(true, Ordering::Release),
                None => fs.remove(&paused_path(&dir, &sink))?,
            }
        }
        let this = Self { fs: Arc::clone(fs), dir, sinks: RwLock::new(sinks) };
        this.write_anew();
        Ok(this)
    }

    /// Writes what was read: after a sync that failed before a restart, what is read need not be on the disk. Where it cannot be
    /// written, nothing is given back on its account until a later one is.
    fn write_anew(&self) {
        for sink in self.names() {
            let place = self.find(&sink).expect("just listed");
            let mut slots = lock(&place.slots);
            if let Err(error) = self.write_slot(&sink, &mut slots, &place.checkpoint()) {
                tracing::warn!(%sink, %error, "the checkpoint could not be written anew");
                place.low.store(0, Ordering::Release);
            }
        }
    }

    pub(super) fn names(&self) -> Vec<SinkName> {
        self.sinks.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    pub(super) fn find(&self, sink: &SinkName) -> Option<Arc<SinkPlace>> {
        self.sinks.read().unwrap_or_else(PoisonError::into_inner).get(sink).cloned()
    }

    /// The lowest settled offset of all registered sinks, on disk; `None` without sinks.
    pub(super) fn lowest(&self) -> Option<u64> {
        let sinks = self.sinks.read().unwrap_or_else(PoisonError::into_inner);
        sinks.values().map(|place| place.low.load(Ordering::Acquire)).min()
    }

    /// The greatest offset that any checkpoint knows.
    pub(super) fn greatest(&self) -> u64 {
        let sinks = self.sinks.read().unwrap_or_else(PoisonError::into_inner);
        let of = |place: &Arc<SinkPlace>| {
            let checkpoint = place.checkpoint();
            checkpoint.settled_above.last().copied().unwrap_or_default().max(checkpoint.low).0
        };
        sinks.values().map(of).max().unwrap_or(0)
    }

    /// Registers a sink that settled everything up to what `low` says, unless it is known.
    pub(super) fn register(&self, sink: &SinkName, low: impl FnOnce() -> Offset) -> Result<(), Error> {
        // Held while the start is determined and written: nothing may be trimmed in between as if the sink were not there.
        let mut sinks = self.sinks.write().unwrap_or_else(PoisonError::into_inner);
        if sinks.contains_key(sink) {
            return Ok(());
        }
        let checkpoint = Checkpoint { low: low(), ..Checkpoint::default() };
        let place = SinkPlace::new(checkpoint.clone(), 0);
        self.write_slot(sink, &mut lock(&place.slots), &checkpoint).map_err(unavailable)?;
        sinks.insert(sink.clone(), Arc::new(place));
        Ok(())
    }

    pub(super) fn forget(&self, sink: &SinkName) -> Result<(), Error> {
        let mut sinks = self.sinks.write().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = sinks.get(sink).cloned() else { return Ok(()) };
        let mut slots = lock(&place.slots);
        slots.epoch += 1;
        slots.files = [None, None];
        self.fs.remove(&paused_path(&self.dir, sink)).map_err(unavailable)?;
        for slot in 0..SLOTS.len() {
            self.fs.remove(&self.path(sink, slot)).map_err(unavailable)?;
        }
        self.fs.sync_dir(&self.dir).map_err(unavailable)?;
        sinks.remove(sink);
        Ok(())
    }

    pub(super) fn set_paused(&self, sink: &SinkName, paused: bool) -> Result<(), Error> {
        // Held, so that the sink is not forgotten in between.
        let sinks = self.sinks.read().unwrap_or_else(PoisonError::into_inner);
        let place = sinks.get(sink).ok_or_else(|| Error::UnknownSink(sink.clone()))?;
        let _one_at_a_time = lock(&place.slots);
        let path = paused_path(&self.dir, sink);
        let changed = match paused {
            true => self.fs.create(&path).and_then(|file| file.sync()),
            false => self.fs.remove(&path),
        };
        changed.and_then(|()| self.fs.sync_dir(&self.dir)).map_err(unavailable)?;
        place.is_paused.store(paused, Ordering::Release);
        Ok(())
    }

    pub(super) fn paused(&self) -> Vec<SinkName> {
        let sinks = self.sinks.read().unwrap_or_else(PoisonError::into_inner);
        let is_paused = |place: &SinkPlace| place.is_paused.load(Ordering::Acquire);
        sinks.iter().filter(|(_, place)| is_paused(place)).map(|(sink, _)| sink.clone()).collect()
    }

    /// Gives the sink a new epoch; earlier fences are void from here on. `settled` are entries that are settled whatever the
    /// checkpoint says; the merged checkpoint is on disk when this returns.
    pub(super) fn lease(&self, sink: &SinkName, settled: &[Offset]) -> Result<(u64, Checkpoint), Error> {
        let place = self.find(sink).ok_or_else(|| Error::UnknownSink(sink.clone()))?;
        let mut slots = lock(&place.slots);
        slots.epoch += 1;
        let before = place.checkpoint();
        let merged = merge(&before, settled);
        if merged != *before || slots.is_uncertain {
            self.write_slot(sink, &mut slots, &merged).map_err(unavailable)?;
            place.set(merged.clone());
        }
        Ok((slots.epoch, merged))
    }

    pub(super) fn release(&self, fence: &Fence) -> Result<(), Error> {
        let place = self.find(&fence.sink).ok_or_else(|| Error::UnknownSink(fence.sink.clone()))?;
        let mut slots = lock(&place.slots);
        if slots.epoch == fence.epoch {
            slots.epoch += 1;
        }
        Ok(())
    }

    /// Runs `before`, then replaces the checkpoint; nothing where the fence is old or the checkpoint cannot be right.
    pub(super) fn commit(
        &self,
        fence: &Fence,
        checkpoint: &Checkpoint,
        durable: u64,
        before: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let place = self.find(&fence.sink).ok_or_else(|| Error::UnknownSink(fence.sink.clone()))?;
        let mut slots = lock(&place.slots);
        if slots.epoch != fence.epoch || fence.shard != 0 {
            return Err(Error::Fenced { sink: fence.sink.clone(), shard: fence.shard });
        }
        let held = place.checkpoint();
        if checkpoint.low < held.low || checkpoint.low.0 > durable.max(held.low.0) {
            let cause = format!("a checkpoint at {} is not between {} and {durable}", checkpoint.low, held.low);
            return Err(Error::Unavailable { cause });
        }
        before()?;
        if *checkpoint != *held || slots.is_uncertain {
            self.write_slot(&fence.sink, &mut slots, checkpoint).map_err(unavailable)?;
            place.set(checkpoint.clone());
        }
        Ok(())
    }

    fn write_slot(&self, sink: &SinkName, slots: &mut Slots, checkpoint: &Checkpoint) -> io::Result<()> {
        // Counted up only once it is written: a failed slot is tried again, and never the other one, which holds the last value.
        slots.is_uncertain = true;
        let sequence = slots.sequence + 1;
        let slot = (sequence % 2) as usize;
        let bytes = slot_bytes(sequence, checkpoint);
        let path = self.path(sink, slot);
        let temporary = path.with_extension(format!("{}{TEMPORARY}", SLOTS[slot]));
        let (file, is_new) = match slots.files[slot].take() {
            Some(file) => (file, false),
            None => (self.fs.create(&temporary)?, true),
        };
        file.write_all_at(&bytes, 0)?;
        crash_point("journal.checkpoint_write");
        file.sync()?;
        if is_new {
            self.fs.rename(&temporary, &path)?;
            self.fs.sync_dir(&self.dir)?;
        }
        crash_point("journal.checkpoint_sync");
        slots.files[slot] = Some(file);
        slots.sequence = sequence;
        slots.is_uncertain = false;
        Ok(())
    }

    fn path(&self, sink: &SinkName, slot: usize) -> PathBuf {
        slot_path(&self.dir, sink, slot)
    }
}

impl SinkPlace {
    fn new(checkpoint: Checkpoint, sequence: u64) -> Self {
        Self {
            low: AtomicU64::new(checkpoint.low.0),
            is_paused: AtomicBool::new(false),
            current: Mutex::new(Arc::new(checkpoint)),
            slots: Mutex::new(Slots { epoch: 0, sequence, is_uncertain: false, files: [None, None] }),
            oldest: Mutex::default(),
        }
    }

    fn set(&self, checkpoint: Checkpoint) {
        self.low.store(checkpoint.low.0, Ordering::Release);
        *lock(&self.current) = Arc::new(checkpoint);
    }
}

pub(super) fn unavailable(error: io::Error) -> Error {
    Error::Unavailable { cause: error.to_string() }
}

fn slot_path(dir: &std::path::Path, sink: &SinkName, slot: usize) -> PathBuf {
    dir.join(format!("{}.{}", encode_name(sink.as_str()), SLOTS[slot]))
}

/// The files that a sink's checkpoint may be in.
pub(super) fn slot_paths(dir: &std::path::Path, sink: &SinkName) -> Vec<PathBuf> {
    (0..SLOTS.len()).map(|slot| slot_path(dir, sink, slot)).collect()
}

fn paused_path(dir: &std::path::Path, sink: &SinkName) -> PathBuf {
    dir.join(format!("{}{PAUSED}", encode_name(sink.as_str())))
}

/// `checkpoint` with `settled` joined in.
fn merge(checkpoint: &Checkpoint, settled: &[Offset]) -> Checkpoint {
    let mut merged = checkpoint.clone();
    merged.settled_above.extend(settled.iter().filter(|offset| **offset > checkpoint.low));
    merged.settled_above.sort_unstable();
    merged.settled_above.dedup();
    merged.attempts.retain(|attempts| merged.settled_above.binary_search(&attempts.offset).is_err());
    merged
}

fn slot_bytes(sequence: u64, checkpoint: &Checkpoint) -> Vec<u8> {
    let value = serde_json::to_vec(checkpoint).expect("numbers and timestamps always serialise");
    let mut bytes = Vec::with_capacity((HEADER_LEN + value.len()).next_multiple_of(STEP));
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&value);
    let crc = crc32c::crc32c(&bytes[16..]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(STEP), 0);
    bytes
}

/// The sequence and the value of a slot, where it verifies.
pub(super) fn read_slot(bytes: &[u8]) -> Option<(u64, Checkpoint)> {
    if bytes.len() < HEADER_LEN || bytes[..8] != MAGIC {
        return None;
    }
    let len = usize::try_from(u64_at(bytes, 24)).ok()?;
    let end = HEADER_LEN.checked_add(len)?;
    let value = bytes.get(HEADER_LEN..end)?;
    if crc32c::crc32c(&bytes[16..end]) != u32_at(bytes, 12) {
        return None;
    }
    Some((u64_at(bytes, 16), serde_json::from_slice(value).ok()?))
}

fn load_place(
    fs: &dyn FileSystem,
    dir: &std::path::Path,
    sink: &SinkName,
    reporter: &Reporter,
) -> io::Result<SinkPlace> {
    let mut newest: Option<(u64, Checkpoint)> = None;
    let mut is_damaged = false;
    for slot in 0..SLOTS.len() {
        let bytes = match fs.open(&slot_path(dir, sink, slot)) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            file => read_whole(&*file?, VALUE_LEN_MAX)?,
        };
        match read_slot(&bytes) {
            Some(read) if newest.as_ref().is_none_or(|(sequence, _)| *sequence < read.0) => newest = Some(read),
            Some(_) => {}
            None => is_damaged = true,
        }
    }
    if is_damaged {
        let detail = "a slot of the checkpoint does not verify; the other one counts, if it does";
        reporter.corrupt(&slot_path(dir, sink, 0), 0, detail);
    }
    let (sequence, checkpoint) = newest.unwrap_or_default();
    Ok(SinkPlace::new(checkpoint, sequence))
}
