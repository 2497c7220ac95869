//! The loop, from a lease to its end: start what may start, wait for what comes first, apply it.
//!
//! Reading, saving, probing and measuring are futures of the loop itself, one of each at a time; deliveries and the accepting of
//! derived pushes are tasks in sets that are emptied before the loop ends. So no slow part holds up another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use sink_api::{Fault, Outcome};
use tokio::sync::watch;
use tokio::task::{self, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Pipeline;
use super::breaker::Breaker;
use super::letters::LetterLog;
use super::replays::Replaying;
use super::save::Written;
use super::select::Sorted;
use super::sessions::Seq;
use super::settle::Pace;
use super::signals::Signal;
use super::status::Standing;
use super::window::Window;
use crate::journal::{Backlog, Error, Fence, Lease, Recall};
use crate::names::Offset;

/// What saving and releasing may take when the pipeline is forced to end.
const FORCE_PATIENCE: Duration = Duration::from_secs(2);

/// Why a run ended.
pub(super) enum End {
    Stopped,
    /// Given back, because another process is to have the shard.
    HandedOver,
    /// Another process owns the shard, or may.
    Lost,
}

/// A batch that is with the sink.
pub(super) struct Flight {
    pub(super) seqs: Vec<Seq>,
    pub(super) is_trial: bool,
    pub(super) began_at: Timestamp,
}

pub(super) struct Run<'p> {
    pub(super) pipe: &'p Pipeline,
    pub(super) fence: Fence,
    pub(super) window: Window,
    pub(super) breaker: Breaker,
    pub(super) pace: Pace,
    pub(super) rng: Rng,
    pub(super) flights: JoinSet<Result<Vec<Outcome>, Fault>>,
    pub(super) in_flight: HashMap<task::Id, Flight>,
    pub(super) derivations: JoinSet<(Seq, Result<(), Fault>)>,
    pub(super) reading: Option<BoxFuture<'static, Result<Sorted, Error>>>,
    pub(super) writing: Option<BoxFuture<'static, Written>>,
    pub(super) probing: Option<BoxFuture<'static, Result<(), Fault>>>,
    pub(super) measuring: Option<BoxFuture<'static, Option<Backlog>>>,
    pub(super) recalling: Option<BoxFuture<'static, Recall>>,
    pub(super) paused: watch::Receiver<bool>,
    /// The end of the announced batch that is saved.
    pub(super) announced: Option<Offset>,
    /// The dead letters are full; looked at again then.
    pub(super) held_until: Option<Instant>,
    /// The journal refused a save; tried again then.
    pub(super) write_at: Option<Instant>,
    pub(super) measure_at: Instant,
    pub(super) read_failures: u32,
    pub(super) write_failures: u32,
    pub(super) read_was_barren: bool,
    pub(super) is_draining: bool,
    /// It drains because the journal asked for the lease.
    pub(super) is_recalled: bool,
    /// What is being gathered while draining begins still goes out.
    pub(super) may_send_last: bool,
    pub(super) letter_log: LetterLog,
    pub(super) order_told_at: Option<Instant>,
    pub(super) replaying: Replaying,
    /// The last batch that went out was one of replays: it is the turn of live ones.
    pub(super) was_replay: bool,
    reported: Option<Standing>,
}

impl<'p> Run<'p> {
    pub(super) fn new(pipe: &'p Pipeline, lease: Lease, resumed: Option<Offset>) -> Self {
        let now = Instant::now();
        let Lease { fence, mut checkpoint } = lease;
        if !pipe.needs.stable_batches {
            checkpoint.batch_end = None;
        }
        let (journal, leased) = (Arc::clone(&pipe.journal), fence.clone());
        Self {
            recalling: Some(async move { journal.recalled(&leased).await }.boxed()),
            announced: checkpoint.batch_end,
            window: Window::new(pipe.window, checkpoint, resumed),
            pipe,
            fence,
            breaker: Breaker::new(now),
            pace: Pace::new(pipe.window.events_max, now),
            rng: Rng::new(),
            flights: JoinSet::new(),
            in_flight: HashMap::new(),
            derivations: JoinSet::new(),
            reading: None,
            writing: None,
            probing: None,
            measuring: None,
            paused: pipe.status.watch_pause(),
            held_until: None,
            write_at: None,
            measure_at: now,
            read_failures: 0,
            write_failures: 0,
            read_was_barren: false,
            is_draining: false,
            is_recalled: false,
            may_send_last: false,
            letter_log: LetterLog::default(),
            order_told_at: None,
            replaying: Replaying::default(),
            was_replay: false,
            reported: None,
        }
    }

    pub(super) async fn until_over(mut self, stop: &CancellationToken, force: &CancellationToken) -> End {
        loop {
            let wake = self.launch(Instant::now());
            if self.is_drained() {
                self.pipe.release(&self.fence).await;
                return if self.is_recalled { End::HandedOver } else { End::Stopped };
            }
            let signal = self.next(wake, stop, force).await;
            if matches!(signal, Signal::Force) {
                self.abandon().await;
                return End::Stopped;
            }
            if let Some(end) = self.apply(signal, Instant::now()) {
                self.flights.shutdown().await;
                self.derivations.shutdown().await;
                return end;
            }
        }
    }

    /// Opens the breaker, if this is to be believed.
    pub(super) fn sink_is_away(&mut self, fault: &Fault, after: Option<Duration>, is_trial: bool, now: Instant) {
        self.pipe.status.failed(fault);
        if !self.breaker.believes(is_trial) {
            return;
        }
        if !self.breaker.is_open() {
            warn!(sink = %self.pipe.name, shard = self.pipe.shard, code = %fault.code, reason = %fault.reason, "breaker opened");
        }
        let (backoff, rng) = (self.pipe.backoff, &mut self.rng);
        self.breaker.trip(|failures| now + backoff.delay(failures, after, rng));
    }

    pub(super) fn tell_if_closed(&self, was_open: bool) {
        if was_open && !self.breaker.is_open() {
            info!(sink = %self.pipe.name, shard = self.pipe.shard, "breaker closed");
        }
    }

    pub(super) fn count_letters(&self) {
        let kept = self.pipe.journal.dead_letters_len(&self.pipe.name);
        self.pipe.metrics.dead_letters.set(i64::try_from(kept).unwrap_or(i64::MAX));
    }

    pub(super) fn report(&mut self) {
        let standing = Standing {
            is_draining: self.is_draining,
            is_held: self.held_until.is_some(),
            is_broken: self.breaker.is_open(),
            skipped: self.window.skipped(),
            oldest: self.window.oldest(),
        };
        if self.reported != Some(standing) {
            self.reported = Some(standing);
            self.pipe.status.report(self.pipe.shard, standing);
            self.pipe.metrics.breaker_open.set(i64::from(self.pipe.status.is_any_broken()));
        }
    }

    /// Whether all that had begun is done and saved. Dead letters that find no room stay pending.
    fn is_drained(&self) -> bool {
        let has_letters = self.window.has_doomed() && self.held_until.is_none();
        self.is_draining
            && self.flights.is_empty()
            && self.derivations.is_empty()
            && self.writing.is_none()
            && self.replaying.is_saved()
            && !self.pace.is_dirty()
            && !has_letters
    }

    /// Drops what is in flight and saves what is settled, if the journal does so within a moment.
    async fn abandon(mut self) {
        self.flights.shutdown().await;
        self.derivations.shutdown().await;
        let save = async {
            if let Some(writing) = self.writing.take()
                && let Some(End::Lost) = self.written(writing.await, Instant::now())
            {
                return;
            }
            if self.pace.is_dirty()
                && let Err(error) = self.pipe.journal.commit(&self.fence, &self.window.checkpoint(&[])).await
            {
                self.pipe.journal_failed(&error, 1);
            }
            self.pipe.release(&self.fence).await;
        };
        if tokio::time::timeout(FORCE_PATIENCE, save).await.is_err() {
            warn!(sink = %self.pipe.name, shard = self.pipe.shard, "progress not saved");
        }
    }
}

/// Age of `then`; 0 where the clock went back.
pub(super) fn seconds_since(then: Timestamp) -> f64 {
    Timestamp::now().duration_since(then).as_secs_f64().max(0.0)
}

pub(super) fn panicked() -> Fault {
    Fault::new("sink-panicked", "the sink panicked: a bug in this kind of sink")
}
