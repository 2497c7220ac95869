//! Dead letters that go through the pipeline again.
//!
//! They come a few at a time from the [`Inbox`] and go out in batches of their own, one at a time, in turns with live batches. In
//! each session they go by rising id, and never while a live entry of the session is out; while they are out, the session's live
//! entries wait. Between two tries of a letter the session goes on: a letter that keeps failing holds up nobody.
//!
//! A letter has as many attempts anew as an event has. It is removed only after its delivery is confirmed; one that is out of
//! attempts or rejected is written again with its history. A full store of dead letters does not stop replays, which make room.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use sink_api::{Fault, Outcome};
use tokio::task;
use tokio::time::Instant;
use tracing::{error, warn};

use super::batch::{Courier, Parcel};
use super::landed;
use super::retry::Backoff;
use super::run::Run;
use super::select::Choice;
use super::sessions::{Key, Load};
use super::window::Window;
use crate::journal::{DeadLetter, DeadLetterId, Error, Journal};
use crate::names::Offset;
use crate::replay::{Job, Stretch};

/// So many batches' worth of letters are in hand, so that a few that wait do not hold up the others.
const BATCHES_IN_HAND: usize = 2;

/// A letter in hand.
#[derive(Debug)]
struct Ticket {
    letter: DeadLetter,
    key: Key,
    /// Tries of this replay that failed for a reason of the event's own, and those of them that burned an attempt.
    tries: u32,
    burned: u32,
    not_before: Option<Instant>,
}

/// The batch that is with the sink.
#[derive(Debug)]
struct Out {
    task: task::Id,
    tickets: Vec<Ticket>,
    is_trial: bool,
    began_at: Timestamp,
}

/// Fates that are not saved yet.
#[derive(Debug, Default)]
struct Fates {
    delivered: Vec<DeadLetterId>,
    failed: Vec<DeadLetter>,
}

/// What a run knows of its replays.
#[derive(Default)]
pub(super) struct Replaying {
    /// By rising id within each session.
    waiting: VecDeque<Ticket>,
    out: Option<Out>,
    fates: Fates,
    job: Option<Job>,
    /// Nothing follows what is in hand.
    is_read: bool,
    pub(super) loading: Option<BoxFuture<'static, Loaded>>,
    pub(super) saving: Option<BoxFuture<'static, Saved>>,
}

/// A job comes back with its next letters.
pub(super) struct Loaded {
    job: Job,
    stretch: Result<Stretch, Error>,
}

/// Fates that are durable.
pub(super) struct Saved {
    delivered: u64,
    failed: u64,
}

impl Fates {
    fn is_empty(&self) -> bool {
        self.delivered.is_empty() && self.failed.is_empty()
    }
}

impl Replaying {
    /// Whether another job can be taken.
    pub(super) fn is_idle(&self) -> bool {
        self.job.is_none() && self.loading.is_none()
    }

    /// Whether no fate waits to be saved.
    pub(super) fn is_saved(&self) -> bool {
        self.fates.is_empty() && self.saving.is_none()
    }

    pub(super) fn is_out(&self) -> bool {
        self.out.is_some()
    }

    /// Whether `task` is the batch that is out.
    pub(super) fn is_task(&self, task: task::Id) -> bool {
        self.out.as_ref().is_some_and(|out| out.task == task)
    }

    pub(super) fn begin(&mut self, job: Job) {
        self.job = Some(job);
        self.is_read = false;
    }

    fn bytes(&self) -> u64 {
        let out = self.out.iter().flat_map(|out| &out.tickets);
        self.waiting.iter().chain(out).map(|ticket| ticket.letter.push.body.len() as u64).sum()
    }

    /// Takes what may go out now, up to `limits` but at least one where one may. Says when to ask again, where that is a matter of
    /// time alone.
    fn take(&mut self, limits: Load, window: &Window, now: Instant) -> (Vec<Ticket>, Option<Instant>) {
        let Some(job) = &mut self.job else { return (Vec::new(), None) };
        let (mut taken, mut taken_bytes, mut ask_at) = (Vec::new(), 0, None::<Instant>);
        let mut held: HashSet<Key> = HashSet::new();
        let mut left = VecDeque::with_capacity(self.waiting.len());
        while let Some(ticket) = self.waiting.pop_front() {
            let bytes = ticket.letter.push.body.len() as u64;
            let is_full = taken.len() >= limits.events.max(1) || taken_bytes + bytes > limits.bytes;
            if is_full && !taken.is_empty() {
                self.waiting.push_front(ticket);
                break;
            }
            let not_before = ticket.not_before.filter(|at| *at > now);
            if not_before.is_some() || held.contains(&ticket.key) || window.is_out(&ticket.key) {
                ask_at = ask_at.into_iter().chain(not_before).min();
                held.insert(ticket.key.clone());
                left.push_back(ticket);
                continue;
            }
            if let Err(at) = job.pace().leave(now) {
                ask_at = ask_at.into_iter().chain([at]).min();
                self.waiting.push_front(ticket);
                break;
            }
            taken_bytes += bytes;
            taken.push(ticket);
        }
        left.append(&mut self.waiting);
        self.waiting = left;
        (taken, ask_at)
    }
}

impl Ticket {
    fn new(letter: DeadLetter) -> Self {
        let key = Key::from(letter.push.session.as_ref().map_or(letter.push.id.as_str(), |session| session.as_str()));
        Self { letter, key, tries: 0, burned: 0, not_before: None }
    }

    fn parcel(&self, seq: u64) -> Parcel {
        Parcel {
            seq,
            offset: Offset(self.letter.id.offset()),
            attempt: self.letter.attempts.saturating_add(self.tries).saturating_add(1),
            push: Arc::new(self.letter.push.clone()),
        }
    }

    /// The letter that takes the old one's place.
    fn failed(self, fault: &Fault, began_at: Timestamp) -> DeadLetter {
        DeadLetter {
            code: fault.code.to_string(),
            reason: fault.reason.clone(),
            attempts: self.letter.attempts.saturating_add(self.burned),
            last_attempt_at: began_at,
            ..self.letter
        }
    }
}

impl Run<'_> {
    /// Reads, saves and sends what may be. Says when to look again.
    pub(super) fn launch_replays(&mut self, now: Instant) -> Option<Instant> {
        self.launch_saving();
        self.launch_loading();
        if !self.may_replay() {
            return None;
        }
        let limits = Load { events: self.pipe.batch.events_max.max(1), bytes: self.pipe.batch.bytes_max.0 };
        let (tickets, ask_at) = self.replaying.take(limits, &self.window, now);
        if tickets.is_empty() {
            return ask_at;
        }
        for ticket in &tickets {
            self.window.occupy(&ticket.key);
        }
        let parcels = (0..).zip(&tickets).map(|(seq, ticket)| ticket.parcel(seq)).collect();
        let pipe = self.pipe;
        let delivery = deliver(pipe.courier(), parcels, pipe.journal.clone());
        let (task, is_trial) = self.fly(delivery);
        self.replaying.out = Some(Out { task, tickets, is_trial, began_at: Timestamp::now() });
        None
    }

    fn launch_loading(&mut self) {
        let replaying = &mut self.replaying;
        let is_over = replaying.is_read && replaying.waiting.is_empty() && replaying.out.is_none();
        if is_over && replaying.is_saved() {
            replaying.job = None;
        }
        let (events_max, bytes_max) = (
            self.pipe.batch.events_max.max(1).saturating_mul(BATCHES_IN_HAND),
            self.pipe.batch.bytes_max.0.saturating_mul(BATCHES_IN_HAND as u64),
        );
        let out = replaying.out.as_ref().map_or(0, |out| out.tickets.len());
        let events = events_max.saturating_sub(replaying.waiting.len() + out);
        let bytes = bytes_max.saturating_sub(replaying.bytes());
        // In large steps: a few letters at a time would cost as many reads.
        let is_low = events >= events_max / 2 && (bytes > 0 || events == events_max);
        if self.is_draining || replaying.is_read || !is_low {
            return;
        }
        let Some(mut job) = replaying.job.take() else { return };
        let journal = self.pipe.journal.clone();
        let load = async move {
            let stretch = job.next(&*journal, events, bytes).await;
            Loaded { job, stretch }
        };
        replaying.loading = Some(load.boxed());
    }

    /// Letters were read.
    pub(super) fn loaded(&mut self, loaded: Loaded) {
        let Loaded { job, stretch } = loaded;
        let sink = &self.pipe.name;
        self.replaying.job = Some(job);
        match stretch {
            Ok(stretch) => {
                self.pipe.replays.failed(stretch.unreadable);
                self.replaying.is_read = stretch.is_last;
                stretch.letters.into_iter().map(Ticket::new).for_each(|ticket| self.admit(ticket));
            }
            Err(error) => {
                warn!(%sink, shard = self.pipe.shard, %error, "replay ended, the journal cannot list");
                self.replaying.is_read = true;
            }
        }
    }

    /// What the sink takes waits for its batch. The rest stays a dead letter: what it takes may have changed since.
    fn admit(&mut self, ticket: Ticket) {
        let fault = match self.pipe.selector.choose(&ticket.letter.push) {
            Choice::Taken => return self.replaying.waiting.push_back(ticket),
            Choice::Failed(fault) => fault,
            Choice::Passed(by) => Fault::new("not-selected", format!("the sink does not take this push: {by}")),
        };
        self.replaying.fates.failed.push(ticket.failed(&fault, Timestamp::now()));
    }

    /// Applies the sink's answer for the replayed batch.
    pub(super) fn replayed(&mut self, answer: Result<Vec<Outcome>, Fault>, now: Instant) {
        let Out { tickets, is_trial, began_at, .. } = self.replaying.out.take().expect("only called for what is out");
        let outcomes = answer.unwrap_or_else(|fault| {
            let (sink, shard) = (&self.pipe.name, self.pipe.shard);
            error!(%sink, shard, code = %fault.code, reason = %fault.reason, "sink broke its contract");
            vec![Outcome::unavailable(fault); tickets.len()]
        });
        self.judge_sink(&outcomes, is_trial, now);
        // Last first, so that what waits again stands in order.
        for (ticket, outcome) in tickets.into_iter().zip(outcomes).rev() {
            self.window.release(&ticket.key);
            self.apply_to_ticket(ticket, outcome, began_at, now);
        }
        // Letters of one batch are saved by rising id.
        self.replaying.fates.failed.sort_by_key(|letter| letter.id.number);
    }

    fn apply_to_ticket(&mut self, mut ticket: Ticket, outcome: Outcome, began_at: Timestamp, now: Instant) {
        let metrics = &self.pipe.metrics;
        let delay = match outcome {
            Outcome::Delivered { .. } => {
                metrics.attempts_delivered.inc();
                metrics.count_delivered(&ticket.letter.push.action);
                self.pipe.status.delivered_one();
                return self.replaying.fates.delivered.push(ticket.letter.id);
            }
            Outcome::Rejected { fault } => {
                metrics.attempts_rejected.inc();
                self.pipe.status.failed(&fault);
                ticket.burned += 1;
                return self.replaying.fates.failed.push(ticket.failed(&fault, began_at));
            }
            Outcome::Retry { fault, after, burns_attempt } => {
                metrics.attempts_retry.inc();
                self.pipe.status.failed(&fault);
                ticket.tries = ticket.tries.saturating_add(1);
                ticket.burned = ticket.burned.saturating_add(u32::from(burns_attempt));
                if burns_attempt && ticket.burned >= self.pipe.attempts_max {
                    return self.replaying.fates.failed.push(ticket.failed(&fault, began_at));
                }
                self.pipe.status.retried();
                self.pipe.backoff.delay(ticket.tries, after, &mut self.rng)
            }
            Outcome::Unavailable { .. } => {
                metrics.attempts_unavailable.inc();
                Duration::ZERO
            }
        };
        ticket.not_before = (!delay.is_zero()).then(|| now + delay);
        self.replaying.waiting.push_front(ticket);
    }

    fn launch_saving(&mut self) {
        let replaying = &mut self.replaying;
        if replaying.saving.is_some() || replaying.fates.is_empty() {
            return;
        }
        let fates = std::mem::take(&mut replaying.fates);
        for letter in &fates.failed {
            self.letter_log.tell(letter, Instant::now());
        }
        replaying.saving = Some(save(self.pipe.journal.clone(), fates).boxed());
    }

    /// Fates are durable: the removed letters have made room.
    pub(super) fn replays_saved(&mut self, saved: &Saved) {
        self.pipe.replays.delivered(saved.delivered);
        self.pipe.replays.failed(saved.failed);
        self.count_letters();
        if saved.delivered > 0 {
            self.held_until = None;
        }
    }
}

/// Delivers, and has derived pushes accepted: only then their events count as delivered.
async fn deliver(courier: Courier, parcels: Vec<Parcel>, journal: Arc<dyn Journal>) -> Result<Vec<Outcome>, Fault> {
    let origins: Vec<_> = parcels.iter().map(|parcel| Arc::clone(&parcel.push)).collect();
    let mut outcomes = courier.deliver(parcels).await?;
    for (outcome, origin) in outcomes.iter_mut().zip(origins) {
        let Outcome::Delivered { derived: Some(derived) } = outcome else { continue };
        let accepted = match landed::derived_push(&origin, (**derived).clone()) {
            Ok(push) => {
                let tell = |error: &_| warn!(%error, "derived push not accepted yet");
                landed::accept(journal.clone(), push, tell).await
            }
            Err(fault) => Err(fault),
        };
        *outcome = match accepted {
            Ok(()) => Outcome::delivered(),
            Err(fault) => Outcome::rejected(fault),
        };
    }
    Ok(outcomes)
}

/// Until the journal has it.
async fn save(journal: Arc<dyn Journal>, fates: Fates) -> Saved {
    let backoff = Backoff::new(super::JOURNAL_BACKOFF.0, super::JOURNAL_BACKOFF.1);
    let mut rng = fastrand::Rng::new();
    let mut failures = 0;
    let Fates { delivered, failed } = fates;
    loop {
        let rewritten = match failed.is_empty() {
            true => Ok(0),
            false => journal.update_dead_letters(failed.clone()).await,
        };
        let saved = match rewritten {
            Ok(_) if delivered.is_empty() => Ok(0),
            Ok(_) => journal.purge_dead_letters(&delivered).await,
            Err(error) => Err(error),
        };
        match saved {
            Ok(_) => return Saved { delivered: delivered.len() as u64, failed: failed.len() as u64 },
            Err(error) => {
                failures += 1;
                if failures == 1 {
                    warn!(%error, "fates of replayed dead letters not saved yet");
                }
                tokio::time::sleep(backoff.delay(failures, None, &mut rng)).await;
            }
        }
    }
}
