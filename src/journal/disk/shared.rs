//! What the writer, the readers and the checkpoints share, and giving space back.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use super::catalog::{Catalog, Segment};
use super::checkpoints::Checkpoints;
use super::dead_letters::DeadLetters;
use super::file_header::LogId;
use super::fs::{FileHandle, FileSystem, LockGuard};
use super::layout::Layout;
use super::options::Options;
use super::reader::Reader;
use super::report::Reporter;
use crate::crash::crash_point;

pub(super) struct Shared {
    pub fs: Arc<dyn FileSystem>,
    pub layout: Layout,
    pub options: Options,
    pub log_id: LogId,
    pub reporter: Reporter,
    pub catalog: Catalog,
    pub reader: Reader,
    pub checkpoints: Checkpoints,
    pub dead_letters: Arc<DeadLetters>,
    /// The last offset that is on stable storage.
    pub durable: watch::Sender<u64>,
    /// The latest time at which a push was received: the clock of the dedup window.
    pub latest_ms: AtomicI64,
    /// Why new pushes cannot be accepted.
    pub trouble: Mutex<Option<String>>,
    /// Whether the spare segment is there.
    pub spare: Mutex<bool>,
    pub is_closed: AtomicBool,
    /// Let go of when the journal is closed.
    pub lock: Mutex<Option<LockGuard>>,
}

impl Shared {
    pub(super) fn durable(&self) -> u64 {
        *self.durable.borrow()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Brings the gauges up to date.
    pub(super) fn measure(&self) {
        let bytes = self.catalog.bytes() + self.dead_letters.bytes();
        self.reporter.metrics.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.reporter.metrics.entries.set(i64::try_from(self.catalog.entries()).unwrap_or(i64::MAX));
    }

    /// Gives back the segments that every registered sink has settled. The checkpoints that say so are on disk (I6). Without a
    /// sink nothing is given back here: whoever registers next may want it; see [`Shared::make_room`].
    pub(super) fn trim(&self) -> io::Result<()> {
        let settled = match self.checkpoints.lowest() {
            Some(low) => self.catalog.take_settled(low),
            None => Vec::new(),
        };
        for segment in settled {
            self.give_back(segment)?;
        }
        self.remove_expired_ids()?;
        self.measure();
        Ok(())
    }

    /// Whether one more segment may be made within `size_max`; gives back what can be. While no sink is registered nobody needs
    /// the entries, so the oldest make room.
    pub(super) fn make_room(&self) -> io::Result<bool> {
        let fits = || self.catalog.bytes() + self.options.segment_size <= self.options.size_max;
        if fits() {
            return Ok(true);
        }
        self.trim()?;
        while !fits()
            && self.checkpoints.lowest().is_none()
            && let Some(oldest) = self.catalog.take_oldest()
        {
            self.give_back(oldest)?;
        }
        self.measure();
        Ok(fits())
    }

    /// Removes a segment that was taken out of the catalog, or keeps its file as the spare one.
    fn give_back(&self, segment: Arc<Segment>) -> io::Result<()> {
        crash_point("journal.trim_before_remove");
        self.reader.forget(segment.first);
        let path = self.layout.segment(segment.first);
        let is_whole = segment.state().size == self.options.segment_size;
        // A reader that got hold of it before must not see the file change below it.
        let is_unread = Arc::strong_count(&segment) == 1;
        let mut spare = lock(&self.spare);
        if is_whole && is_unread && !*spare {
            self.fs.rename(&path, &self.layout.spare())?;
            *spare = true;
        } else {
            self.fs.remove(&path)?;
        }
        crash_point("journal.trim_after_remove");
        Ok(())
    }

    fn remove_expired_ids(&self) -> io::Result<()> {
        let oldest_ms = self.latest_ms.load(Ordering::Relaxed).saturating_sub(self.options.window_ms());
        for ids in self.catalog.take_expired_ids(oldest_ms) {
            self.fs.remove(&self.layout.ids(ids.first))?;
        }
        Ok(())
    }

    /// Makes the next segment's file ahead of its need, where the limit allows it. The lock is not held meanwhile: a writer that
    /// cannot wait makes its own.
    pub(super) fn prepare_spare(&self) {
        let size = self.options.segment_size;
        let has_room = || self.catalog.bytes() + size <= self.options.size_max;
        if *lock(&self.spare) || !has_room() {
            return;
        }
        let path = self.layout.spare();
        let temporary = path.with_extension("segment.tmp");
        let made = self.fs.create(&temporary).and_then(|file| {
            file.allocate(size)?;
            file.sync()?;
            fill(&*file, size, || self.is_closed())
        });
        let mut spare = lock(&self.spare);
        let used = made.is_ok() && !*spare && has_room() && self.fs.rename(&temporary, &path).is_ok();
        if used {
            *spare = true;
        } else {
            // Of no use any more, or not whole: then the segment is made when it is needed, and a failure is said there.
            drop(self.fs.remove(&temporary));
        }
    }
}

/// Bytes that are filled and synced at a time.
const FILL_CHUNK: u64 = 256 << 10;

/// Writes zeros over reserved space. A sync of space that was written before need not tell the file system's own journal, which makes
/// it a third quicker and cheaper. Half the time is left to the syncs of pushes.
fn fill(file: &dyn FileHandle, size: u64, is_over: impl Fn() -> bool) -> io::Result<()> {
    let zeros = vec![0; usize::try_from(FILL_CHUNK.min(size)).expect("a chunk fits into memory")];
    for at in (0..size).step_by(zeros.len().max(1)) {
        if is_over() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let begun = Instant::now();
        let len = usize::try_from(size - at).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all_at(&zeros[..len], at)?;
        file.sync()?;
        std::thread::sleep(begun.elapsed());
    }
    Ok(())
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
