//! Delivery without transactions: one idempotent producer for all batches, every record of a batch in flight at once.
//!
//! Order within a key holds because librdkafka keeps it (idempotence, one partition per key), and because nothing can pass what
//! failed: a record that librdkafka does not take holds up its key here; one that brokers refuse is fatal to the producer by
//! `enable.gapless.guarantee`, so that what is behind it fails with it; and what is not confirmed in time is given up in one act.
//!
//! Brokers refuse requests, not records, so a refusal says only that one of several records is meant. Those are sent again one by one,
//! over a producer of their own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use sink_api::{BatchEvent, Fault, Outcome};
use tokio::time::Instant;

use crate::client::{Clients, Live};
use crate::error::{self, Verdict};
use crate::flight::{Flight, Report};
use crate::message::Writer;

/// Reports of what was given up come at once.
const REPORT_PATIENCE: Duration = Duration::from_secs(2);

pub(crate) struct Plain {
    clients: Arc<Clients>,
    writer: Arc<Writer>,
    current: Mutex<Option<Arc<Live>>>,
    is_closed: AtomicBool,
}

/// What one try says of an event.
enum Fate {
    Known(Outcome),
    /// Refused together with others.
    RefusedAmongOthers,
}

impl Plain {
    pub(crate) fn new(clients: Arc<Clients>, writer: Arc<Writer>) -> Self {
        Self { clients, writer, current: Mutex::default(), is_closed: AtomicBool::new(false) }
    }

    pub(crate) async fn deliver(&self, events: &[BatchEvent]) -> Vec<Outcome> {
        let deadline = Instant::now() + self.clients.patience();
        let fates = match self.live() {
            Ok(live) => self.together(&live, events, deadline).await,
            Err(fault) => return vec![Outcome::unavailable(fault); events.len()],
        };
        self.settle(events, fates, deadline).await
    }

    /// The producer that all batches share, made where there is none.
    pub(crate) fn live(&self) -> Result<Arc<Live>, Fault> {
        let mut current = self.current();
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(Fault::new("closed", "the sink is closed"));
        }
        if let Some(live) = &*current {
            return Ok(Arc::clone(live));
        }
        let live = Arc::new(self.clients.producer()?);
        *current = Some(Arc::clone(&live));
        Ok(live)
    }

    pub(crate) async fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        let last = self.current().take();
        if let Some(live) = last.and_then(Arc::into_inner) {
            // Fails only where the runtime is going down, and then everything is let go.
            drop(tokio::task::spawn_blocking(move || live.end()).await);
        }
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Live>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next call makes another producer.
    fn discard(&self, live: &Arc<Live>) {
        let mut current = self.current();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, live)) {
            *current = None;
        }
    }

    /// Sends all of them without waiting in between.
    async fn together(&self, live: &Arc<Live>, events: &[BatchEvent], deadline: Instant) -> Vec<Fate> {
        let flight = Flight::of(events.len());
        let mut unsent: Vec<Option<Outcome>> = vec![None; events.len()];
        let mut stuck = HashMap::new();
        for (seat, event) in events.iter().map(|entry| &entry.event).enumerate() {
            let key = event.partitionkey.as_str();
            let outcome = match stuck.get(key) {
                Some(earlier) => error::behind(earlier),
                None => {
                    let mut message = self.writer.message(event);
                    match live.send(message.record(flight.ticket(seat)), deadline).await {
                        Ok(()) => continue,
                        Err(code) => error::outcome(code),
                    }
                }
            };
            stuck.insert(key, outcome.clone());
            unsent[seat] = Some(outcome);
            flight.report(seat, Err(RDKafkaErrorCode::PurgeQueue));
        }
        let is_in_time = tokio::select! {
            is_landed = flight.landed(deadline) => is_landed,
            () = live.spent() => true,
        };
        if !is_in_time || live.is_spent() {
            live.give_up();
            flight.landed(Instant::now() + REPORT_PATIENCE).await;
        }
        let reports = flight.reports();
        let is_spent = reports
            .iter()
            .flatten()
            .any(|report| report.is_err_and(|code| matches!(error::verdict(code), Verdict::Spent | Verdict::Fenced)));
        if !is_in_time || is_spent || live.is_spent() {
            self.discard(live);
        }
        let judge = |(unsent, report): (Option<Outcome>, Option<Report>)| match unsent {
            Some(outcome) => Fate::Known(outcome),
            None => judged(report, is_in_time, live),
        };
        unsent.into_iter().zip(reports).map(judge).collect()
    }

    /// Finds out which of those refused is meant; answers for all, so that no key shows a gap.
    async fn settle(&self, events: &[BatchEvent], fates: Vec<Fate>, deadline: Instant) -> Vec<Outcome> {
        let mut lone = None;
        let mut stuck: HashMap<&str, Outcome> = HashMap::new();
        let mut outcomes = Vec::with_capacity(events.len());
        for (entry, fate) in events.iter().zip(fates) {
            let key = entry.event.partitionkey.as_str();
            let outcome = match (stuck.get(key), fate) {
                (Some(earlier), _) => error::behind(earlier),
                (None, Fate::Known(outcome)) => outcome,
                (None, Fate::RefusedAmongOthers) => self.alone(&mut lone, entry, deadline).await,
            };
            if !matches!(outcome, Outcome::Delivered { .. }) {
                stuck.insert(key, outcome.clone());
            }
            outcomes.push(outcome);
        }
        outcomes
    }

    /// Sends one record that shares its request with no other.
    async fn alone(&self, lone: &mut Option<Live>, entry: &BatchEvent, deadline: Instant) -> Outcome {
        if lone.as_ref().is_none_or(Live::is_spent) {
            match self.clients.lone_producer() {
                Ok(live) => *lone = Some(live),
                Err(fault) => return Outcome::unavailable(fault),
            }
        }
        let live = lone.as_ref().expect("made above");
        let flight = Flight::of(1);
        let mut message = self.writer.message(&entry.event);
        if let Err(code) = live.send(message.record(flight.ticket(0)), deadline).await {
            return error::outcome(code);
        }
        let is_in_time = flight.landed(deadline).await;
        match flight.reports().pop().flatten() {
            Some(Err(code)) if error::verdict(code) == Verdict::Refused => Outcome::rejected(error::fault(code)),
            report => match judged(report, is_in_time, live) {
                Fate::Known(outcome) => outcome,
                Fate::RefusedAmongOthers => unreachable!("judged above"),
            },
        }
    }
}

fn judged(report: Option<Report>, is_in_time: bool, live: &Live) -> Fate {
    match report {
        Some(Ok(())) => Fate::Known(Outcome::delivered()),
        Some(Err(code)) if error::verdict(code) == Verdict::Refused => Fate::RefusedAmongOthers,
        Some(Err(RDKafkaErrorCode::MessageTimedOut)) | None => Fate::Known(away(live)),
        Some(Err(code)) if !is_in_time && error::verdict(code) == Verdict::Again => Fate::Known(away(live)),
        Some(Err(code)) => Fate::Known(error::outcome(code)),
    }
}

/// Nothing was confirmed in time; says why, where a broker or the lack of one did.
fn away(live: &Live) -> Outcome {
    let fault = live.watcher().trouble().unwrap_or_else(|| error::fault(RDKafkaErrorCode::MessageTimedOut));
    Outcome::unavailable(fault)
}
