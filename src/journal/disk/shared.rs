//! What the writer, the readers and the checkpoints share, and giving space back.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::catalog::{Catalog, Segment};
use super::checkpoints::Checkpoints;
use super::dead_letters::DeadLetters;
use super::file_header::LogId;
use super::fs::{FileSystem, LockGuard};
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

    /// Reserves the space of the next segment ahead of its need, where the limit allows it.
    pub(super) fn prepare_spare(&self) {
        let mut spare = lock(&self.spare);
        let size = self.options.segment_size;
        if *spare || self.catalog.bytes() + size > self.options.size_max {
            return;
        }
        let path = self.layout.spare();
        let temporary = path.with_extension("segment.tmp");
        let made = self.fs.create(&temporary).and_then(|file| {
            file.allocate(size)?;
            file.sync()?;
            self.fs.rename(&temporary, &path)
        });
        *spare = made.is_ok();
        if made.is_err() {
            // The segment will be made when it is needed; if that fails too it is said then.
            drop(self.fs.remove(&temporary));
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
