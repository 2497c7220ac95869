//! When the checkpoint is saved. Pure.
//!
//! Saving costs a sync, so progress is gathered: a save begins at once after a quiet time, else [`INTERVAL`] after the last one or
//! when [`SETTLED_MAX`] entries are settled, or half a window if that is less. What is not saved is delivered again after a crash, nothing worse.

use std::time::Duration;

use tokio::time::Instant;

/// Between two saves.
const INTERVAL: Duration = Duration::from_millis(200);

/// As many settled entries are saved without waiting for [`INTERVAL`].
const SETTLED_MAX: usize = 1000;

#[derive(Debug)]
pub(super) struct Pace {
    settled_max: usize,
    /// Settled since the last save began.
    settled: usize,
    /// Settled by the save that is under way.
    saving: usize,
    is_dirty: bool,
    is_urgent: bool,
    not_before: Instant,
}

impl Pace {
    pub(super) fn new(window_events_max: usize, now: Instant) -> Self {
        let settled_max = (window_events_max / 2).clamp(1, SETTLED_MAX);
        Self { settled_max, settled: 0, saving: 0, is_dirty: false, is_urgent: false, not_before: now }
    }

    /// An entry was delivered.
    pub(super) fn settled_one(&mut self) {
        self.settled += 1;
        self.is_dirty = true;
    }

    /// The checkpoint changed otherwise: entries passed unselected, attempts burned.
    pub(super) fn changed(&mut self) {
        self.is_dirty = true;
    }

    /// Something waits for the save.
    pub(super) fn urge(&mut self) {
        self.is_dirty = true;
        self.is_urgent = true;
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// Settled entries that a crash would deliver again.
    pub(super) fn unsaved(&self) -> usize {
        self.settled + self.saving
    }

    /// When to save, where there is something to be saved. Past times mean now.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let at_once = self.is_urgent || self.settled >= self.settled_max;
        let at = if at_once { now } else { self.not_before };
        self.is_dirty.then_some(at)
    }

    pub(super) fn began(&mut self, now: Instant) {
        self.saving += std::mem::take(&mut self.settled);
        self.is_dirty = false;
        self.is_urgent = false;
        self.not_before = now + INTERVAL;
    }

    pub(super) fn saved(&mut self) {
        self.saving = 0;
    }

    /// The save came to nothing. The caller waits before the next.
    pub(super) fn failed(&mut self) {
        self.settled += std::mem::take(&mut self.saving);
        self.is_dirty = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_change_after_a_quiet_time_is_saved_at_once_and_the_next_ones_together() {
        let now = Instant::now();
        let mut pace = Pace::new(10_000, now);
        assert_eq!(pace.due(now), None);
        pace.settled_one();
        assert_eq!(pace.due(now), Some(now));
        pace.began(now);
        assert_eq!((pace.due(now), pace.unsaved()), (None, 1));
        pace.saved();
        pace.changed();
        assert_eq!((pace.due(now), pace.unsaved()), (Some(now + INTERVAL), 0));
    }

    #[test]
    fn many_settled_entries_or_urgency_do_not_wait() {
        let now = Instant::now();
        let mut pace = Pace::new(10_000, now);
        pace.urge();
        pace.began(now);
        (0..SETTLED_MAX - 1).for_each(|_| pace.settled_one());
        assert_eq!(pace.due(now), Some(now + INTERVAL));
        pace.settled_one();
        assert_eq!(pace.due(now), Some(now));
    }

    #[test]
    fn a_small_window_is_saved_by_halves() {
        let now = Instant::now();
        let mut pace = Pace::new(4, now);
        pace.changed();
        pace.began(now);
        pace.settled_one();
        assert_eq!(pace.due(now), Some(now + INTERVAL));
        pace.settled_one();
        assert_eq!(pace.due(now), Some(now));
    }

    #[test]
    fn a_failed_save_is_not_forgotten() {
        let now = Instant::now();
        let mut pace = Pace::new(10_000, now);
        pace.settled_one();
        pace.began(now);
        pace.failed();
        assert_eq!((pace.is_dirty(), pace.unsaved()), (true, 1));
    }
}
