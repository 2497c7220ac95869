//! The conformance suite itself: it passes a sink that keeps the contract, and finds each way of breaking it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sink_api::conformance::{self, Abilities, Harness, Received};
use sink_api::{Batch, Event, Fault, Format, Outcome, Sink, Unavailable};

/// A way of breaking the contract.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Flaw {
    None,
    LosesTheLastEvent,
    AnswersOnceForAll,
    TurnsKeysAround,
    BlamesEventsForAnOutage,
    StaysAwayAfterAnOutage,
    OvertakesPoison,
    BlamesBystanders,
    ProbesByWriting,
    ProbesNothing,
    Hangs,
}

/// A destination in memory.
#[derive(Default)]
struct Memory {
    held: Mutex<Vec<Received>>,
    broken: Mutex<bool>,
}

struct MemorySink {
    memory: Arc<Memory>,
    flaw: Flaw,
    met_an_outage: Mutex<bool>,
}

impl MemorySink {
    fn hold(&self, event: &Event) {
        let received = Received { id: event.id.clone(), payload: event.payload(Format::CloudEvents) };
        self.memory.held.lock().unwrap().push(received);
    }

    fn is_away(&self) -> bool {
        let mut met_an_outage = self.met_an_outage.lock().unwrap();
        *met_an_outage |= *self.memory.broken.lock().unwrap();
        *self.memory.broken.lock().unwrap() || (self.flaw == Flaw::StaysAwayAfterAnOutage && *met_an_outage)
    }

    fn deliver_one(&self, event: &Event, stuck_keys: &mut HashSet<String>) -> Outcome {
        let behind = stuck_keys.contains(&event.partitionkey) && self.flaw != Flaw::OvertakesPoison;
        if behind || (self.flaw == Flaw::BlamesBystanders && event.id == "bystander") {
            let burns_attempt = self.flaw == Flaw::BlamesBystanders;
            return Outcome::Retry { fault: Fault::new("waits", "waits for its key"), after: None, burns_attempt };
        }
        if event.id == "poison" {
            stuck_keys.insert(event.partitionkey.clone());
            return Outcome::rejected(Fault::new("poison", "refused"));
        }
        self.hold(event);
        Outcome::delivered()
    }
}

#[async_trait]
impl Sink for MemorySink {
    async fn deliver(&self, batch: &Batch) -> Vec<Outcome> {
        if self.flaw == Flaw::Hangs {
            std::future::pending::<()>().await;
        }
        let count = batch.events.len();
        if self.is_away() {
            let fault = Fault::new("away", "the destination is away");
            let blames = self.flaw == Flaw::BlamesEventsForAnOutage;
            return vec![if blames { Outcome::retry(fault) } else { Outcome::unavailable(fault) }; count];
        }
        let mut events: Vec<&Event> = batch.events.iter().map(|entry| &*entry.event).collect();
        match self.flaw {
            Flaw::TurnsKeysAround => events.reverse(),
            Flaw::LosesTheLastEvent => events.truncate(count - 1),
            _ => {}
        }
        let mut stuck_keys = HashSet::new();
        let mut outcomes: Vec<_> = events.iter().map(|event| self.deliver_one(event, &mut stuck_keys)).collect();
        outcomes.resize(if self.flaw == Flaw::AnswersOnceForAll { 1 } else { count }, Outcome::delivered());
        outcomes
    }

    async fn probe(&self) -> Result<(), Unavailable> {
        if self.flaw == Flaw::ProbesByWriting {
            self.hold(&conformance::event("hello", "hello"));
        }
        let away = self.is_away() && self.flaw != Flaw::ProbesNothing;
        if away { Err(Fault::new("away", "the destination is away")) } else { Ok(()) }
    }
}

struct MemoryHarness {
    memory: Arc<Memory>,
    flaw: Flaw,
}

#[async_trait]
impl Harness for MemoryHarness {
    async fn fresh(&self) -> Arc<dyn Sink> {
        Arc::new(MemorySink { memory: self.memory.clone(), flaw: self.flaw, met_an_outage: Mutex::default() })
    }

    async fn read_back(&self) -> Vec<Received> {
        self.memory.held.lock().unwrap().clone()
    }

    async fn break_destination(&self) {
        *self.memory.broken.lock().unwrap() = true;
    }

    async fn mend_destination(&self) {
        *self.memory.broken.lock().unwrap() = false;
    }

    fn abilities(&self) -> Abilities {
        let time_max = Duration::from_secs(5);
        Abilities { answer_time_max: time_max, recovery_time_max: time_max, ..Abilities::default() }
    }

    fn poison_event(&self, id: &str, session: &str) -> Option<Event> {
        Some(conformance::event(id, session))
    }
}

async fn run(flaw: Flaw) {
    conformance::run(&MemoryHarness { memory: Arc::default(), flaw }).await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_keeps_the_contract_passes() {
    run(Flaw::None).await;
}

#[tokio::test(start_paused = true)]
async fn every_way_of_breaking_the_contract_is_found() {
    let flaws = [
        (Flaw::LosesTheLastEvent, "does not hold it"),
        (Flaw::AnswersOnceForAll, "not one outcome per event"),
        (Flaw::TurnsKeysAround, "overtook"),
        (Flaw::BlamesEventsForAnOutage, "in an outage an event is answered Retry"),
        (Flaw::StaysAwayAfterAnOutage, "the destination is back"),
        (Flaw::OvertakesPoison, "overtook an event of its key"),
        (Flaw::BlamesBystanders, "is blamed for it"),
        (Flaw::ProbesByWriting, "a probe changes nothing"),
        (Flaw::ProbesNothing, "the probe is content"),
        (Flaw::Hangs, "no answer within"),
    ];
    for (flaw, finding) in flaws {
        let panic = tokio::spawn(run(flaw)).await.expect_err("the flaw was not found").into_panic();
        let message = panic.downcast_ref::<String>().expect("checks panic with a formatted message");
        assert!(message.contains(finding), "{flaw:?}: {message}");
    }
}
