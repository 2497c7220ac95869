//! How a sink's pipelines are, for the admin listener. One [`Status`] per sink, shared by the pipelines of all shards.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use sink_api::Fault;
use tokio::sync::watch;

/// What a sink's pipelines are doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Running,
    /// An operator paused it, or its dead letters are full.
    Paused,
    /// The sink is judged to be away.
    Broken,
    /// No new batch is begun.
    Draining,
}

impl State {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Broken => "broken",
            Self::Draining => "draining",
        }
    }
}

/// The latest thing that went wrong; it stays after it has passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    pub code: String,
    /// Shown to operators; holds nothing personal and no secret, as [`Fault`] promises.
    pub reason: String,
    pub at: Timestamp,
}

/// How a sink is. Reading costs a lock that is never held across anything slow.
#[derive(Debug)]
pub struct Status {
    paused: watch::Sender<bool>,
    retries: AtomicU64,
    delivered: AtomicU64,
    shared: Mutex<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    standings: BTreeMap<u16, Standing>,
    last_error: Option<LastError>,
}

/// What the pipeline of one shard reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) is_draining: bool,
    /// Its dead letters are full.
    pub(super) is_held: bool,
    pub(super) is_broken: bool,
    /// Entries above the low watermark that are not for this sink: pending to the journal, not to us.
    pub(super) skipped: u64,
    /// When the oldest entry in hand was received.
    pub(super) oldest: Option<Timestamp>,
}

impl Default for Status {
    fn default() -> Self {
        Self::new()
    }
}

impl Status {
    pub fn new() -> Self {
        Self {
            paused: watch::Sender::new(false),
            retries: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            shared: Mutex::default(),
        }
    }

    /// Over all shards, the most telling: draining, paused, broken, running.
    pub fn state(&self) -> State {
        let shared = self.shared();
        let any = |of: fn(&Standing) -> bool| shared.standings.values().any(of);
        if any(|standing| standing.is_draining) {
            State::Draining
        } else if self.is_paused() || any(|standing| standing.is_held) {
            State::Paused
        } else if any(|standing| standing.is_broken) {
            State::Broken
        } else {
            State::Running
        }
    }

    pub fn last_error(&self) -> Option<LastError> {
        self.shared().last_error.clone()
    }

    /// Events that were put back to be tried again for a failure of their own, since start.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Confirmed deliveries since start.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// No new batch begins until [`Status::resume`]; what is in flight is finished. Not remembered over a restart.
    pub fn pause(&self) {
        self.paused.send_replace(true);
    }

    pub fn resume(&self) {
        self.paused.send_replace(false);
    }

    pub fn is_paused(&self) -> bool {
        *self.paused.borrow()
    }

    pub(super) fn watch_pause(&self) -> watch::Receiver<bool> {
        self.paused.subscribe()
    }

    pub(super) fn failed(&self, fault: &Fault) {
        let error = LastError { code: fault.code.to_string(), reason: fault.reason.clone(), at: Timestamp::now() };
        self.shared().last_error = Some(error);
    }

    pub(super) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn delivered_one(&self) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn report(&self, shard: u16, standing: Standing) {
        self.shared().standings.insert(shard, standing);
    }

    /// The pipeline of `shard` has no lease any more: what it reported is not so now.
    pub(super) fn left(&self, shard: u16) {
        self.shared().standings.remove(&shard);
    }

    pub(super) fn is_any_broken(&self) -> bool {
        self.shared().standings.values().any(|standing| standing.is_broken)
    }

    pub(super) fn skipped(&self) -> u64 {
        self.shared().standings.values().map(|standing| standing.skipped).sum()
    }

    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.shared().standings.values().filter_map(|standing| standing.oldest).min()
    }

    /// Every change under the lock is one assignment, so a panic elsewhere leaves nothing half done.
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_the_most_telling_of_all_shards() {
        let status = Status::new();
        assert_eq!(status.state(), State::Running);
        status.report(0, Standing { is_broken: true, ..Standing::default() });
        status.report(1, Standing::default());
        assert_eq!(status.state(), State::Broken);
        status.pause();
        assert_eq!(status.state(), State::Paused);
        status.report(1, Standing { is_draining: true, ..Standing::default() });
        assert_eq!(status.state(), State::Draining);
        status.report(1, Standing::default());
        status.resume();
        status.report(0, Standing::default());
        assert_eq!(status.state(), State::Running);
    }

    #[test]
    fn the_last_error_stays() {
        let status = Status::new();
        assert_eq!(status.last_error(), None);
        status.failed(&Fault::new("http-503", "the endpoint answers 503"));
        assert_eq!(status.last_error().unwrap().code, "http-503");
    }
}
