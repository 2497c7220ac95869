//! Which segments there are, and what each holds. Memory only.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::frame::seed_of;

/// A segment that is part of the journal. The writer fills it; whoever holds the `Arc` may be reading its file.
pub(super) struct Segment {
    pub first: u64,
    pub generation: u64,
    state: RwLock<SegmentState>,
}

#[derive(Debug, Clone)]
pub(super) struct SegmentState {
    /// The offset behind its last durable entry.
    pub next: u64,
    /// Where the last durable frame ends.
    pub end: u64,
    /// Bytes that the file takes.
    pub size: u64,
    pub entries: u64,
    pub newest_ms: i64,
    /// Where each offset's frame stands (0: nowhere), until the ids file says so.
    pub positions: Option<Vec<u32>>,
}

impl Segment {
    pub(super) fn new(first: u64, generation: u64, state: SegmentState) -> Self {
        Self { first, generation, state: RwLock::new(state) }
    }

    pub(super) fn seed(&self) -> u32 {
        seed_of(self.generation)
    }

    pub(super) fn state(&self) -> RwLockReadGuard<'_, SegmentState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state_mut(&self) -> RwLockWriteGuard<'_, SegmentState> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its ids file is on disk: it can be given back once it is settled.
    pub(super) fn is_sealed(&self) -> bool {
        self.state().positions.is_none()
    }
}

/// The ids file of a segment that is gone.
#[derive(Debug, Clone, Copy)]
pub(super) struct OldIds {
    pub first: u64,
    pub newest_ms: i64,
}

#[derive(Default)]
pub(super) struct Catalog {
    /// By first offset. The last one may be the one being written.
    segments: RwLock<Vec<Arc<Segment>>>,
    old_ids: Mutex<Vec<OldIds>>,
}

impl Catalog {
    pub(super) fn add(&self, segment: Arc<Segment>) {
        self.write().push(segment);
    }

    pub(super) fn remove(&self, first: u64) {
        self.write().retain(|segment| segment.first != first);
    }

    /// The segment that holds `offset`, else the next one behind it.
    pub(super) fn at_or_after(&self, offset: u64) -> Option<Arc<Segment>> {
        let segments = self.read();
        let index = segments.partition_point(|segment| segment.state().next <= offset);
        segments.get(index).cloned()
    }

    pub(super) fn contains(&self, segment: &Arc<Segment>) -> bool {
        self.read().iter().any(|held| Arc::ptr_eq(held, segment))
    }

    /// The lowest offset that is held, where there is one.
    pub(super) fn oldest_offset(&self) -> Option<u64> {
        self.read().iter().find(|segment| segment.state().next > segment.first).map(|segment| segment.first)
    }

    /// Bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.read().iter().map(|segment| segment.state().size).sum()
    }

    pub(super) fn entries(&self) -> u64 {
        self.read().iter().map(|segment| segment.state().entries).sum()
    }

    /// How many entries lie behind `low`. Unreadable offsets are counted in the one segment that `low` lies in.
    pub(super) fn entries_after(&self, low: u64) -> u64 {
        let behind = |segment: &Arc<Segment>| {
            let state = segment.state();
            let offsets = state.next.saturating_sub((low + 1).max(segment.first));
            offsets.min(state.entries)
        };
        self.read().iter().map(behind).sum()
    }

    /// Takes out the oldest segments that are sealed and hold nothing behind `low`.
    pub(super) fn take_settled(&self, low: u64) -> Vec<Arc<Segment>> {
        self.take_while(|segment| segment.state().next <= low.saturating_add(1))
    }

    /// Takes out the oldest segment, if it is sealed.
    pub(super) fn take_oldest(&self) -> Option<Arc<Segment>> {
        let mut is_first = true;
        self.take_while(|_| std::mem::take(&mut is_first)).pop()
    }

    fn take_while(&self, mut is_meant: impl FnMut(&Segment) -> bool) -> Vec<Arc<Segment>> {
        let mut segments = self.write();
        let count = segments.iter().take_while(|segment| segment.is_sealed() && is_meant(segment)).count();
        let taken: Vec<_> = segments.drain(..count).collect();
        let old = taken.iter().map(|segment| OldIds { first: segment.first, newest_ms: segment.state().newest_ms });
        self.old_ids().extend(old);
        taken
    }

    pub(super) fn add_old_ids(&self, ids: OldIds) {
        self.old_ids().push(ids);
    }

    /// Takes out the ids files of segments that are gone and whose newest mark is older than `oldest_ms`.
    pub(super) fn take_expired_ids(&self, oldest_ms: i64) -> Vec<OldIds> {
        let mut old = self.old_ids();
        let expired = old.iter().copied().filter(|ids| ids.newest_ms <= oldest_ms).collect();
        old.retain(|ids| ids.newest_ms > oldest_ms);
        expired
    }

    fn old_ids(&self) -> std::sync::MutexGuard<'_, Vec<OldIds>> {
        self.old_ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<Arc<Segment>>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<Arc<Segment>>> {
        self.segments.write().unwrap_or_else(PoisonError::into_inner)
    }
}
