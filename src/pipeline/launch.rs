//! What may start now: batches, saves, probes, reads and measurements, each begun here and nowhere else.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use sink_api::{Fault, Outcome};
use tokio::task;
use tokio::time::Instant;

use super::MEASURING_SHARD;
use super::batch::{self, Due, Parcel};
use super::breaker::Pass;
use super::run::{Flight, Run, panicked};
use super::select::{Selector, Sorted};
use super::sessions::Load;
use crate::journal::{Error, Journal, ReadLimits};
use crate::names::Offset;

/// How long one wait for new entries lasts.
const READ_PATIENCE: Duration = Duration::from_secs(30);

/// Before waiting again where a wait brought nothing, so that a journal that ends waits early cannot make the loop spin.
const READ_BREATH: Duration = Duration::from_millis(5);

/// A sink that does not answer a probe by then is away.
const PROBE_PATIENCE: Duration = Duration::from_secs(30);

/// Between two refreshes of the gauges.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);

impl Run<'_> {
    /// Starts whatever may start; says when to look again although nothing has come.
    pub(super) fn launch(&mut self, now: Instant) -> Option<Instant> {
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

    fn launch_measure(&mut self, now: Instant) -> Option<Instant> {
        if self.measuring.is_some() || self.pipe.shard != MEASURING_SHARD {
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
