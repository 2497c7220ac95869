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
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Pipeline;
use super::batch::{self, Due, Parcel};
use super::breaker::{Breaker, Pass};
use super::letters::LetterLog;
use super::replays::{Loaded, Replaying, Saved};
use super::save::Written;
use super::select::{Fate, Selector, Sorted};
use super::sessions::{Load, Seq};
use super::settle::Pace;
use super::status::Standing;
use super::window::Window;
use crate::journal::{Backlog, Error, Fence, Journal, Lease, ReadLimits};
use crate::names::Offset;
use crate::replay::Job;

/// How long one wait for new entries lasts.
const READ_PATIENCE: Duration = Duration::from_secs(30);

/// Before waiting again where a wait brought nothing, so that a journal that ends waits early cannot make the loop spin.
const READ_BREATH: Duration = Duration::from_millis(5);

/// A sink that does not answer a probe by then is away.
const PROBE_PATIENCE: Duration = Duration::from_secs(30);

/// Between two refreshes of the gauges.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);

/// What saving and releasing may take when the pipeline is forced to end.
const FORCE_PATIENCE: Duration = Duration::from_secs(2);

/// Why a run ended.
pub(super) enum End {
    Stopped,
    /// Another process owns the shard, or may.
    Lost,
}

/// A batch that is with the sink.
pub(super) struct Flight {
    pub(super) seqs: Vec<Seq>,
    pub(super) is_trial: bool,
    pub(super) began_at: Timestamp,
}

/// What the loop waits for.
enum Signal {
    Force,
    Stop,
    Written(Written),
    Read(Result<Sorted, Error>),
    Probed(Result<(), Fault>),
    Measured(Option<Backlog>),
    Switched,
    Asked(Job),
    Loaded(Loaded),
    ReplaysSaved(Saved),
    Landed(Result<(task::Id, Result<Vec<Outcome>, Fault>), JoinError>),
    Derived(Result<(Seq, Result<(), Fault>), JoinError>),
    Woke,
}

pub(super) struct Run<'p> {
    pub(super) pipe: &'p Pipeline,
    pub(super) fence: Fence,
    pub(super) window: Window,
    pub(super) breaker: Breaker,
    pub(super) pace: Pace,
    pub(super) rng: Rng,
    flights: JoinSet<Result<Vec<Outcome>, Fault>>,
    in_flight: HashMap<task::Id, Flight>,
    pub(super) derivations: JoinSet<(Seq, Result<(), Fault>)>,
    reading: Option<BoxFuture<'static, Result<Sorted, Error>>>,
    pub(super) writing: Option<BoxFuture<'static, Written>>,
    probing: Option<BoxFuture<'static, Result<(), Fault>>>,
    measuring: Option<BoxFuture<'static, Option<Backlog>>>,
    paused: watch::Receiver<bool>,
    /// The end of the announced batch that is saved.
    pub(super) announced: Option<Offset>,
    /// The dead letters are full; looked at again then.
    pub(super) held_until: Option<Instant>,
    /// The journal refused a save; tried again then.
    pub(super) write_at: Option<Instant>,
    measure_at: Instant,
    read_failures: u32,
    pub(super) write_failures: u32,
    read_was_barren: bool,
    pub(super) is_draining: bool,
    /// What is being gathered while draining begins still goes out.
    may_send_last: bool,
    pub(super) letter_log: LetterLog,
    pub(super) order_told_at: Option<Instant>,
    pub(super) replaying: Replaying,
    /// The last batch that went out was one of replays: it is the turn of live ones.
    was_replay: bool,
    reported: Option<Standing>,
}

impl<'p> Run<'p> {
    pub(super) fn new(pipe: &'p Pipeline, lease: Lease, resumed: Option<Offset>) -> Self {
        let now = Instant::now();
        let Lease { fence, mut checkpoint } = lease;
        if !pipe.needs.stable_batches {
            checkpoint.batch_end = None;
        }
        Self {
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
                return End::Stopped;
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

    /// Starts whatever may start; says when to look again although nothing has come.
    fn launch(&mut self, now: Instant) -> Option<Instant> {
        self.window.wake(now);
        let first_replay_at = if self.was_replay { None } else { self.launch_replays(now) };
        let batch_at = self.launch_batches(now);
        let replay_at = if self.was_replay { self.launch_replays(now) } else { first_replay_at };
        if self.is_draining && !self.is_announcing() {
            self.may_send_last = false;
        }
        let write_at = self.launch_write(now);
        let probe_at = self.launch_probe(now);
        let measure_at = self.launch_measure(now);
        self.launch_read();
        self.report();
        [batch_at, replay_at, write_at, probe_at, measure_at, self.window.next_due()].into_iter().flatten().min()
    }

    async fn next(&mut self, wake: Option<Instant>, stop: &CancellationToken, force: &CancellationToken) -> Signal {
        let woke = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        // In this order, so that a fast sink cannot keep the loop from reading and saving.
        tokio::select! {
            biased;
            () = force.cancelled() => Signal::Force,
            () = stop.cancelled(), if !self.is_draining => Signal::Stop,
            written = ended(&mut self.writing) => Signal::Written(written),
            page = ended(&mut self.reading) => Signal::Read(page),
            probed = ended(&mut self.probing) => Signal::Probed(probed),
            backlog = ended(&mut self.measuring) => Signal::Measured(backlog),
            saved = ended(&mut self.replaying.saving) => Signal::ReplaysSaved(saved),
            loaded = ended(&mut self.replaying.loading) => Signal::Loaded(loaded),
            Ok(()) = self.paused.changed() => Signal::Switched,
            Some(joined) = self.flights.join_next_with_id() => Signal::Landed(joined),
            Some(joined) = self.derivations.join_next() => Signal::Derived(joined),
            job = self.pipe.replays.next(), if !self.is_draining && self.replaying.is_idle() => Signal::Asked(job),
            () = woke => Signal::Woke,
        }
    }

    fn apply(&mut self, signal: Signal, now: Instant) -> Option<End> {
        match signal {
            Signal::Force | Signal::Switched | Signal::Woke => None,
            Signal::Stop => {
                self.is_draining = true;
                self.may_send_last = true;
                self.reading = None;
                None
            }
            Signal::Written(written) => self.written(written, now),
            Signal::Read(page) => {
                self.page_read(page, now);
                None
            }
            Signal::Probed(probed) => {
                self.probed(probed, now);
                None
            }
            Signal::Measured(backlog) => {
                self.measured(backlog);
                None
            }
            Signal::Asked(job) => {
                self.replaying.begin(job);
                None
            }
            Signal::Loaded(loaded) => {
                self.loaded(loaded);
                None
            }
            Signal::ReplaysSaved(saved) => {
                self.replays_saved(&saved);
                None
            }
            Signal::Landed(joined) => {
                let (id, answer) = joined.unwrap_or_else(|error| (error.id(), Err(panicked())));
                if self.replaying.is_task(id) {
                    self.replayed(answer, now);
                    return None;
                }
                let flight = self.in_flight.remove(&id).expect("every task of the set is a flight");
                self.landed(flight, answer, now);
                None
            }
            Signal::Derived(Ok((seq, result))) => {
                self.derived(seq, result);
                None
            }
            // Which entry it was is not known: all begin anew from the checkpoint.
            Signal::Derived(Err(_)) => Some(End::Lost),
        }
    }

    /// Sends batches while one is due and may go. Says when the one being gathered is due.
    fn launch_batches(&mut self, now: Instant) -> Option<Instant> {
        let limits = Load { events: self.pipe.batch.events_max.max(1), bytes: self.pipe.batch.bytes_max.0 };
        let linger = if self.is_draining { Duration::ZERO } else { self.pipe.batch.linger.0 };
        while self.may_send() {
            if self.window.batch_end().is_none() {
                match batch::due(limits, linger, self.window.available(), self.window.waiting_since(), now) {
                    Due::Now => {}
                    Due::At(at) => return Some(at),
                    Due::Never => return None,
                }
            }
            if self.pipe.needs.stable_batches {
                if self.window.batch_end().is_none() {
                    self.window.announce(limits);
                    self.pace.urge();
                }
                if self.is_announcing() {
                    return None;
                }
            }
            let parcels = self.window.take(limits);
            if parcels.is_empty() {
                return None;
            }
            self.send(parcels);
        }
        None
    }

    /// Whether another batch may go out now.
    fn may_send(&self) -> bool {
        let is_in_turn = !self.is_sequential() || (!self.window.has_doomed() && self.window.next_due().is_none());
        self.has_slot()
            && is_in_turn
            && self.held_until.is_none()
            && self.pace.unsaved() < self.pipe.window.events_max.max(1)
            && (!self.is_draining || self.may_send_last)
    }

    /// Whether a batch of replays may go out now. Full dead letters are no reason to wait: replays make room.
    pub(super) fn may_replay(&self) -> bool {
        self.has_slot() && !self.is_draining && !self.replaying.is_out()
    }

    /// Whether the sink, the operator and the limits let one more batch go.
    fn has_slot(&self) -> bool {
        let has_room = match self.breaker.pass() {
            Pass::Nothing => false,
            Pass::Trial => true,
            Pass::All => self.flights.len() < self.pipe.concurrency,
        };
        let is_in_turn = !self.is_sequential() || (self.flights.is_empty() && self.derivations.is_empty());
        has_room && is_in_turn && !self.pipe.status.is_paused()
    }

    /// Whether the next batch waits for its end to be saved.
    fn is_announcing(&self) -> bool {
        self.window.batch_end().is_some_and(|end| self.announced != Some(end))
    }

    /// Whether the sink gets one gapless batch after the other.
    pub(super) fn is_sequential(&self) -> bool {
        self.pipe.needs.stable_batches || self.pipe.needs.resumes_positions
    }

    fn send(&mut self, parcels: Vec<Parcel>) {
        self.may_send_last = false;
        let seqs = parcels.iter().map(|parcel| parcel.seq).collect();
        let (id, is_trial) = self.fly(self.pipe.courier().deliver(parcels));
        self.was_replay = false;
        self.in_flight.insert(id, Flight { seqs, is_trial, began_at: Timestamp::now() });
    }

    /// Starts a delivery; says which task it is and whether it is the breaker's trial. Until told otherwise it is one of replays.
    pub(super) fn fly(
        &mut self,
        delivery: impl Future<Output = Result<Vec<Outcome>, Fault>> + Send + 'static,
    ) -> (task::Id, bool) {
        let is_trial = self.breaker.pass() == Pass::Trial;
        if is_trial {
            self.breaker.trial_began();
        }
        self.was_replay = true;
        (self.flights.spawn(delivery).id(), is_trial)
    }

    fn launch_read(&mut self) {
        if self.is_draining || self.reading.is_some() {
            return;
        }
        let Some(limits) = self.window.room() else { return };
        let pause = match self.read_failures {
            0 if self.read_was_barren => READ_BREATH,
            0 => Duration::ZERO,
            failures => self.pipe.journal_delay(failures, &mut self.rng),
        };
        let (journal, shard, after) = (self.pipe.journal.clone(), self.pipe.shard, self.window.read_to());
        let selector = self.pipe.selector.clone();
        self.reading = Some(next_page(journal, selector, shard, after, limits, pause).boxed());
    }

    fn page_read(&mut self, page: Result<Sorted, Error>, now: Instant) {
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                self.read_failures += 1;
                self.pipe.journal_failed(&error, self.read_failures);
                return;
            }
        };
        self.read_failures = 0;
        self.read_was_barren = page.fates.is_empty() && page.end <= self.window.read_to();
        let low = self.window.low();
        for fate in page.fates {
            match fate {
                Fate::Taken(entry) => self.window.admit(entry, now),
                Fate::Passed(offset) => self.window.skip(offset),
                Fate::Doomed(entry, fault) => self.window.admit_doomed(entry, fault, now, Timestamp::now()),
            }
        }
        self.window.read_through(page.end);
        if self.window.low() != low {
            self.pace.changed();
        }
    }

    fn launch_probe(&mut self, now: Instant) -> Option<Instant> {
        let at = self.breaker.probe_at().filter(|_| !self.is_draining)?;
        if at > now {
            return Some(at);
        }
        self.breaker.probe_began();
        let sink = self.pipe.sink.clone();
        let probe = async move {
            let silent = |_| Err(Fault::new("timeout", "the sink does not answer a probe"));
            tokio::time::timeout(PROBE_PATIENCE, sink.probe()).await.unwrap_or_else(silent)
        };
        // A sink that panics here is away, as one that panics in a delivery is.
        let caught = std::panic::AssertUnwindSafe(probe).catch_unwind();
        self.probing = Some(caught.map(|result| result.unwrap_or_else(|_| Err(panicked()))).boxed());
        None
    }

    fn probed(&mut self, probed: Result<(), Fault>, now: Instant) {
        let was_open = self.breaker.is_open();
        match probed {
            Ok(()) => self.breaker.probe_passed(self.window.unsettled() > 0),
            Err(fault) => self.sink_is_away(&fault, None, true, now),
        }
        self.tell_if_closed(was_open);
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

    fn launch_measure(&mut self, now: Instant) -> Option<Instant> {
        if self.measuring.is_some() {
            return None;
        }
        if self.measure_at > now {
            return Some(self.measure_at);
        }
        self.measure_at = now + MEASURE_INTERVAL;
        let (journal, name) = (self.pipe.journal.clone(), self.pipe.name.clone());
        self.measuring = Some(async move { journal.backlog(&name).await }.boxed());
        None
    }

    /// The journal counts what is not for this sink as pending while something older is; we do not.
    fn measured(&mut self, backlog: Option<Backlog>) {
        self.count_letters();
        let Some(backlog) = backlog else { return };
        let pending = backlog.pending.saturating_sub(self.pipe.status.skipped());
        let oldest = self.pipe.status.oldest().or(backlog.oldest_received_at).filter(|_| pending > 0);
        self.pipe.metrics.pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
        self.pipe.metrics.oldest_pending_seconds.set(oldest.map_or(0.0, seconds_since));
    }

    pub(super) fn count_letters(&self) {
        let kept = self.pipe.journal.dead_letters_len(&self.pipe.name);
        self.pipe.metrics.dead_letters.set(i64::try_from(kept).unwrap_or(i64::MAX));
    }

    fn report(&mut self) {
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

fn panicked() -> Fault {
    Fault::new("sink-panicked", "the sink panicked: a bug in this kind of sink")
}

/// The output of the future in `slot`, which is empty afterwards; never where there is none. Safe to drop.
async fn ended<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    let Some(future) = slot else { return std::future::pending().await };
    let output = future.await;
    *slot = None;
    output
}

/// What follows `after`, sorted; an empty page once something might have come.
async fn next_page(
    journal: Arc<dyn Journal>,
    selector: Arc<Selector>,
    shard: u16,
    after: Offset,
    limits: ReadLimits,
    pause: Duration,
) -> Result<Sorted, Error> {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
    let page = journal.read(shard, after, limits).await?;
    if page.items.is_empty() && page.end <= after {
        journal.wait_past(shard, after, READ_PATIENCE).await;
    }
    Ok(selector.sort(page).await)
}
