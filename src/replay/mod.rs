//! Replays: dead letters that an operator asks to be brought on their way again, handed to whoever can do that.
//!
//! ```text
//! admin ──ask──▶ [jobs of a sink, bounded] ──▶ its pipeline (for `ingress`: the ingress's replayer)
//!                                              reads letters a few at a time, tries them, removes or rewrites each
//! ```
//!
//! What it promises: what was asked for is bounded in memory however many letters it selects, since a job holds a selection and a
//! place, never the letters; each letter is visited once per job, by rising id; a rate is kept to at the moment of sending.
//!
//! What it refuses: to remember anything over a restart. A letter that was asked for and not delivered by then is simply still a
//! dead letter. It removes no letter itself: whoever takes the job does, once a delivery is confirmed.

mod job;
mod pace;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub use self::job::{Job, Stretch, What};
pub use self::pace::Pace;
use crate::names::SinkName;

/// Jobs that may wait for one sink.
const JOBS_MAX: usize = 16;

/// A replay was not begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("nothing that runs takes replays for {0}: it is not in the config")]
    NotRunning(SinkName),
    #[error("{limit} replays of {sink} wait already")]
    Busy { sink: SinkName, limit: usize },
}

/// What became of replays since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Letters that were delivered (for `ingress`: accepted) and removed.
    pub delivered: u64,
    /// Letters that are dead letters again.
    pub failed: u64,
    /// Replays that have not ended.
    pub running: u64,
}

#[derive(Debug, Default)]
struct Counters {
    delivered: AtomicU64,
    failed: AtomicU64,
    running: AtomicU64,
}

/// Where replays are asked for; shared by the admin listener and the composition root.
#[derive(Debug, Default)]
pub struct Replays {
    sinks: Mutex<BTreeMap<SinkName, Doors>>,
}

#[derive(Debug, Default)]
struct Doors {
    counters: Arc<Counters>,
    shards: BTreeMap<u16, mpsc::Sender<Job>>,
}

/// Where the jobs of one sink and shard come in.
#[derive(Debug)]
pub struct Inbox {
    jobs: tokio::sync::Mutex<mpsc::Receiver<Job>>,
    counters: Arc<Counters>,
}

impl Replays {
    /// The inbox of a sink's shard, in place of an earlier one.
    pub fn open(&self, sink: &SinkName, shard: u16) -> Inbox {
        let (sender, receiver) = mpsc::channel(JOBS_MAX);
        let mut sinks = self.sinks();
        let doors = sinks.entry(sink.clone()).or_default();
        doors.shards.insert(shard, sender);
        Inbox { jobs: tokio::sync::Mutex::new(receiver), counters: Arc::clone(&doors.counters) }
    }

    /// Whether somebody takes replays of this sink.
    pub fn takes(&self, sink: &SinkName) -> bool {
        self.sinks().get(sink).is_some_and(Doors::is_open)
    }

    /// Has letters of `sink` replayed, at most `rate` a second on each shard.
    ///
    /// # Errors
    /// Nothing is begun where the sink is not running or has [`JOBS_MAX`] jobs waiting.
    pub fn ask(&self, sink: &SinkName, what: &What, rate: Option<f64>) -> Result<(), AskError> {
        let sinks = self.sinks();
        let doors =
            sinks.get(sink).filter(|doors| doors.is_open()).ok_or_else(|| AskError::NotRunning(sink.clone()))?;
        let busy = AskError::Busy { sink: sink.clone(), limit: JOBS_MAX };
        // Only this function sends, under the lock: where there is room now, there is room below.
        if doors.shards.values().any(|door| door.capacity() == 0) {
            return Err(busy);
        }
        for (shard, door) in &doors.shards {
            let job = Job::new(*shard, what.clone(), rate, Running::begin(&doors.counters));
            door.try_send(job).map_err(|_| busy.clone())?;
        }
        Ok(())
    }

    pub fn progress(&self, sink: &SinkName) -> Progress {
        let sinks = self.sinks();
        let Some(Doors { counters, .. }) = sinks.get(sink) else { return Progress::default() };
        // `running` first: who sees none running sees all that they counted.
        let running = counters.running.load(Ordering::Acquire);
        let of = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        Progress { delivered: of(&counters.delivered), failed: of(&counters.failed), running }
    }

    /// Every change under the lock is one insertion, so a panic elsewhere leaves nothing half done.
    fn sinks(&self) -> MutexGuard<'_, BTreeMap<SinkName, Doors>> {
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Doors {
    fn is_open(&self) -> bool {
        !self.shards.is_empty() && self.shards.values().all(|door| !door.is_closed())
    }
}

impl Inbox {
    /// The next job; waits for ever where none can come any more. Safe to drop.
    pub async fn next(&self) -> Job {
        match self.jobs.lock().await.recv().await {
            Some(job) => job,
            None => std::future::pending().await,
        }
    }

    /// Counts letters that were delivered and removed.
    pub fn delivered(&self, count: u64) {
        self.counters.delivered.fetch_add(count, Ordering::AcqRel);
    }

    /// Counts letters that are dead letters again.
    pub fn failed(&self, count: u64) {
        self.counters.failed.fetch_add(count, Ordering::AcqRel);
    }
}

/// An inbox that nothing is ever put into.
impl Default for Inbox {
    fn default() -> Self {
        Replays::default().open(&SinkName::from(""), 0)
    }
}

/// Counts a job as running until it is dropped.
#[derive(Debug)]
struct Running(Arc<Counters>);

impl Running {
    fn begin(counters: &Arc<Counters>) -> Self {
        counters.running.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(counters))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> What {
        What::Ids(Vec::new())
    }

    #[tokio::test]
    async fn jobs_come_in_order_and_count_as_running_until_they_are_dropped() {
        let (replays, sink) = (Replays::default(), SinkName::from("events"));
        let inbox = replays.open(&sink, 0);
        replays.ask(&sink, &nothing(), None).unwrap();
        replays.ask(&sink, &nothing(), Some(1.0)).unwrap();
        let first = inbox.next().await;
        inbox.delivered(2);
        assert_eq!(replays.progress(&sink), Progress { delivered: 2, failed: 0, running: 2 });
        drop((first, inbox.next().await));
        assert_eq!(replays.progress(&sink).running, 0);
    }

    #[test]
    fn who_is_not_running_takes_nothing_and_the_jobs_of_a_sink_are_bounded() {
        let (replays, sink) = (Replays::default(), SinkName::from("events"));
        assert_eq!(replays.ask(&sink, &nothing(), None), Err(AskError::NotRunning(sink.clone())));
        let inbox = replays.open(&sink, 0);
        for _ in 0..JOBS_MAX {
            replays.ask(&sink, &nothing(), None).unwrap();
        }
        let busy = AskError::Busy { sink: sink.clone(), limit: JOBS_MAX };
        assert_eq!(replays.ask(&sink, &nothing(), None), Err(busy));
        drop(inbox);
        assert!(!replays.takes(&sink));
        assert_eq!(replays.progress(&sink).running, 0);
    }
}
