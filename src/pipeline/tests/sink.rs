//! A sink that does what a test says.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sink_api::{Batch, BatchEvent, Fault, Needs, Outcome, Sink, Unavailable};
use tokio::time::Instant;

pub(super) enum Reaction {
    Answer(Vec<Outcome>),
    Hang,
    Panic,
}

type Script = Box<dyn FnMut(&Batch) -> Reaction + Send>;

/// One try of a batch.
#[derive(Debug, Clone)]
pub(super) struct Try {
    pub(super) at: Instant,
    /// Offset, session, attempt.
    pub(super) events: Vec<(u64, String, u32)>,
}

pub(super) struct Scripted {
    script: Mutex<Script>,
    takes: Duration,
    pub(super) needs: Needs,
    pub(super) position: Mutex<Option<u64>>,
    pub(super) is_away: AtomicBool,
    pub(super) probes: AtomicUsize,
    pub(super) tries: Mutex<Vec<Try>>,
    /// Offset and session of what was confirmed, in order.
    pub(super) delivered: Mutex<Vec<(u64, String)>>,
    /// Sessions in flight, to see that none is twice.
    in_flight: Mutex<Vec<String>>,
    pub(super) in_flight_max: AtomicUsize,
    flights: AtomicUsize,
}

impl Scripted {
    pub(super) fn new(script: impl FnMut(&Batch) -> Reaction + Send + 'static) -> Self {
        Self {
            script: Mutex::new(Box::new(script)),
            takes: Duration::ZERO,
            needs: Needs::default(),
            position: Mutex::new(None),
            is_away: AtomicBool::new(false),
            probes: AtomicUsize::new(0),
            tries: Mutex::default(),
            delivered: Mutex::default(),
            in_flight: Mutex::default(),
            in_flight_max: AtomicUsize::new(0),
            flights: AtomicUsize::new(0),
        }
    }

    /// Answers event by event; keeps the contract for what follows a failure in the same session.
    pub(super) fn each(mut outcome: impl FnMut(&BatchEvent) -> Outcome + Send + 'static) -> Self {
        Self::new(move |batch| {
            let mut failed: Vec<&str> = Vec::new();
            let answer = batch.events.iter().map(|event| {
                let key = event.event.partitionkey.as_str();
                if failed.contains(&key) {
                    return Outcome::Retry { fault: fault("behind"), after: None, burns_attempt: false };
                }
                let outcome = outcome(event);
                if !matches!(outcome, Outcome::Delivered { .. }) {
                    failed.push(key);
                }
                outcome
            });
            Reaction::Answer(answer.collect())
        })
    }

    pub(super) fn ok() -> Self {
        Self::each(|_| Outcome::delivered())
    }

    pub(super) fn taking(self, takes: Duration) -> Self {
        Self { takes, ..self }
    }

    pub(super) fn asking(self, needs: Needs) -> Self {
        Self { needs, ..self }
    }

    pub(super) fn tries(&self) -> Vec<Vec<u64>> {
        let tries = self.tries.lock().unwrap();
        tries.iter().map(|one| one.events.iter().map(|(offset, ..)| *offset).collect()).collect()
    }

    pub(super) fn times(&self) -> Vec<Instant> {
        self.tries.lock().unwrap().iter().map(|one| one.at).collect()
    }

    pub(super) fn delivered(&self) -> Vec<u64> {
        self.delivered.lock().unwrap().iter().map(|(offset, _)| *offset).collect()
    }
}

pub(super) fn fault(code: &'static str) -> Fault {
    Fault::new(code, "scripted")
}

/// Counts a batch as in flight until it is dropped, aborted deliveries included.
struct InFlight<'a>(&'a Scripted, Vec<String>);

impl<'a> InFlight<'a> {
    fn new(sink: &'a Scripted, batch: &Batch) -> Self {
        let mut sessions: Vec<String> = batch.events.iter().map(|e| e.event.partitionkey.clone()).collect();
        sessions.sort();
        sessions.dedup();
        let mut in_flight = sink.in_flight.lock().unwrap();
        assert!(!sessions.iter().any(|session| in_flight.contains(session)), "a session is in flight twice");
        in_flight.extend(sessions.iter().cloned());
        sink.in_flight_max.fetch_max(sink.flights.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        Self(sink, sessions)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.flights.fetch_sub(1, Ordering::SeqCst);
        self.0.in_flight.lock().unwrap().retain(|session| !self.1.contains(session));
    }
}

#[async_trait]
impl Sink for Scripted {
    async fn deliver(&self, batch: &Batch) -> Vec<Outcome> {
        let _in_flight = InFlight::new(self, batch);
        let events = batch.events.iter().map(|e| (e.offset, e.event.partitionkey.clone(), e.attempt)).collect();
        self.tries.lock().unwrap().push(Try { at: Instant::now(), events });
        let reaction = if self.is_away.load(Ordering::SeqCst) {
            Reaction::Answer(vec![Outcome::unavailable(fault("away")); batch.events.len()])
        } else {
            (self.script.lock().unwrap())(batch)
        };
        if !self.takes.is_zero() {
            tokio::time::sleep(self.takes).await;
        }
        match reaction {
            Reaction::Hang => std::future::pending().await,
            Reaction::Panic => panic!("scripted"),
            Reaction::Answer(outcomes) if outcomes.len() != batch.events.len() => outcomes,
            Reaction::Answer(outcomes) => {
                let confirmed = batch.events.iter().zip(&outcomes);
                let confirmed = confirmed.filter(|(_, outcome)| matches!(outcome, Outcome::Delivered { .. }));
                self.delivered.lock().unwrap().extend(confirmed.map(|(e, _)| (e.offset, e.event.partitionkey.clone())));
                outcomes
            }
        }
    }

    async fn probe(&self) -> Result<(), Unavailable> {
        self.probes.fetch_add(1, Ordering::SeqCst);
        if self.is_away.load(Ordering::SeqCst) { Err(fault("away")) } else { Ok(()) }
    }

    fn needs(&self) -> Needs {
        self.needs
    }

    async fn resume(&self, _: u16) -> Result<Option<u64>, Unavailable> {
        Ok(*self.position.lock().unwrap())
    }
}
