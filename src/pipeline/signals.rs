//! What the loop waits for, and what each thing that comes does.

use futures::future::BoxFuture;
use jiff::Timestamp;
use sink_api::outcome::FENCED;
use sink_api::{Fault, Outcome};
use tokio::task::{self, JoinError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::replays::{Loaded, Saved};
use super::run::{End, Run, panicked};
use super::save::Written;
use super::select::{Fate, Sorted};
use super::sessions::Seq;
use crate::journal::{Backlog, Error, Recall};
use crate::replay::Job;

/// What the loop waits for.
pub(super) enum Signal {
    Force,
    Stop,
    Recalled(Recall),
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

impl Run<'_> {
    pub(super) async fn next(
        &mut self,
        wake: Option<Instant>,
        stop: &CancellationToken,
        force: &CancellationToken,
    ) -> Signal {
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
            recall = ended(&mut self.recalling), if !self.is_draining => Signal::Recalled(recall),
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

    pub(super) fn apply(&mut self, signal: Signal, now: Instant) -> Option<End> {
        match signal {
            Signal::Force | Signal::Switched | Signal::Woke => None,
            Signal::Stop => {
                self.is_draining = true;
                self.may_send_last = true;
                self.reading = None;
                None
            }
            Signal::Recalled(recall) => self.recalled(recall),
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
                if is_fenced(&answer) {
                    return Some(End::Lost);
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

    /// The batch that is being gathered is left to the next owner.
    fn recalled(&mut self, recall: Recall) -> Option<End> {
        match recall {
            Recall::Lost => Some(End::Lost),
            Recall::HandOver => {
                debug!(sink = %self.pipe.name, shard = self.pipe.shard, "another process is to have the lease");
                self.is_draining = true;
                self.is_recalled = true;
                self.reading = None;
                None
            }
        }
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

    fn probed(&mut self, probed: Result<(), Fault>, now: Instant) {
        let was_open = self.breaker.is_open();
        match probed {
            Ok(()) => self.breaker.probe_passed(self.window.unsettled() > 0),
            Err(fault) => self.sink_is_away(&fault, None, true, now),
        }
        self.tell_if_closed(was_open);
    }

    fn measured(&mut self, backlog: Option<Backlog>) {
        self.count_letters();
        self.pipe.show(backlog);
    }
}

/// The output of the future in `slot`, which is empty afterwards; never where there is none. Safe to drop.
async fn ended<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    let Some(future) = slot else { return std::future::pending().await };
    let output = future.await;
    *slot = None;
    output
}

/// Whether the sink says that another process has the shard.
fn is_fenced(answer: &Result<Vec<Outcome>, Fault>) -> bool {
    let says_so = |outcome: &Outcome| matches!(outcome, Outcome::Unavailable { fault, .. } if fault.code == FENCED);
    answer.as_ref().is_ok_and(|outcomes| outcomes.iter().any(says_so))
}
