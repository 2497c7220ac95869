//! The checks themselves, each named after the sentence that it holds a sink to.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{Harness, batch, poll_at_most};
use crate::{Batch, Event, Outcome, Sink};

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How often an event may be asked to wait for another before that counts as never.
const ROUNDS_MAX: usize = 20;

const POISON: &str = "poison";
/// The poison, and the event that may only follow once the poison is out of its way.
const POISONED: [&str; 2] = [POISON, "after-the-poison"];

pub(super) struct Suite<'a> {
    harness: &'a dyn Harness,
    next_offset: AtomicU64,
}

impl<'a> Suite<'a> {
    pub(super) fn new(harness: &'a dyn Harness) -> Self {
        Self { harness, next_offset: AtomicU64::new(1) }
    }

    pub(super) async fn a_probe_changes_nothing(&self) {
        let check = "a probe changes nothing";
        let sink = self.harness.fresh().await;
        for state in ["before the first delivery", "after a delivery"] {
            let before = self.harness.fingerprint().await;
            let probed = self.in_time(check, sink.probe()).await;
            assert!(probed.is_ok(), "{check}: {state} the probe of a sound destination says {probed:?}");
            assert_eq!(self.harness.fingerprint().await, before, "{check}: {state} it did");
            self.deliver_all(check, &*sink, &self.batch(0, self.events(&format!("probe {state}"), 1, 1))).await;
        }
        sink.close().await;
    }

    pub(super) async fn delivered_means_that_the_destination_holds_it(&self) {
        let check = "delivered means that the destination holds it";
        let sink = self.harness.fresh().await;
        let sizes =
            [self.events("one", 1, 1), self.events("many", 500, 7), vec![self.harness.large_event("large", "s")]];
        for events in sizes {
            let batch = self.batch(0, events);
            self.deliver_all(check, &*sink, &batch).await;
            self.assert_held(check, &batch).await;
        }
        sink.close().await;
    }

    pub(super) async fn batches_go_side_by_side(&self) {
        let check = "batches of different sessions go side by side";
        let sink = self.harness.fresh().await;
        let batches = [0, 1, 2, 3].map(|shard| self.batch(shard, self.events(&format!("side {shard}"), 50, 3)));
        let [a, b, c, d] = &batches;
        tokio::join!(
            self.deliver_all(check, &*sink, a),
            self.deliver_all(check, &*sink, b),
            self.deliver_all(check, &*sink, c),
            self.deliver_all(check, &*sink, d),
        );
        for batch in &batches {
            self.assert_held(check, batch).await;
        }
        sink.close().await;
    }

    pub(super) async fn delivering_again_is_safe(&self) {
        let check = "delivering again is safe, under the same ids";
        let sink = self.harness.fresh().await;
        let first = self.batch(0, self.events("again", 20, 3));
        self.deliver_all(check, &*sink, &first).await;
        let second = attempted_again(&first);
        self.deliver_all(check, &*sink, &second).await;
        sink.close().await;
        let restarted = self.harness.fresh().await;
        self.deliver_all(check, &*restarted, &attempted_again(&second)).await;
        self.assert_held(check, &first).await;
        restarted.close().await;
    }

    /// The poisoned key waits, whatever became of its poison; the others are delivered, at the latest once the poison is taken out,
    /// and no attempt of theirs is burned.
    pub(super) async fn a_refused_event_holds_up_its_own_key_alone(&self) {
        let check = "a refused event holds up its own key alone";
        let Some(poison) = self.harness.poison_event(POISON, "poisoned") else { return };
        let sink = self.harness.fresh().await;
        let events = vec![
            self.harness.event("before-the-poison", "poisoned"),
            poison,
            self.harness.event(POISONED[1], "poisoned"),
            self.harness.event("bystander", "sound"),
        ];
        let mut batch = self.batch(0, events);
        for _ in 0..ROUNDS_MAX {
            let outcomes = self.deliver(check, &*sink, &batch).await;
            self.assert_poison_is_kept_to_itself(check, &batch, &outcomes).await;
            let mut outcomes = outcomes.into_iter();
            batch
                .events
                .retain(|_| matches!(outcomes.next(), Some(Outcome::Retry { .. } | Outcome::Unavailable { .. })));
            if batch.events.iter().all(|e| POISONED.contains(&e.event.id.as_str())) {
                // What a pipeline does once the poison has become a dead letter.
                batch.events.retain(|e| e.event.id != POISON);
            }
            if batch.events.is_empty() {
                return sink.close().await;
            }
            batch = attempted_again(&batch);
        }
        panic!("{check}: after {ROUNDS_MAX} rounds there still remain {:?}", ids(&batch));
    }

    async fn assert_poison_is_kept_to_itself(&self, check: &str, batch: &Batch, outcomes: &[Outcome]) {
        let held: HashSet<String> = self.harness.read_back().await.into_iter().map(|received| received.id).collect();
        let mut stuck_keys = HashSet::new();
        for (event, outcome) in batch.events.iter().map(|e| &e.event).zip(outcomes) {
            let behind = stuck_keys.contains(&event.partitionkey);
            let id = &event.id;
            if id == POISON {
                let refused = matches!(outcome, Outcome::Rejected { .. } | Outcome::Retry { .. });
                assert!(refused, "{check}: the destination refuses one event, which is answered {outcome:?}");
            } else {
                let blamed = matches!(outcome, Outcome::Rejected { .. } | Outcome::Retry { burns_attempt: true, .. });
                assert!(!blamed, "{check}: {id} is blamed for it: {outcome:?}");
            }
            let delivered = matches!(outcome, Outcome::Delivered { .. });
            assert!(!(behind && delivered), "{check}: {id} overtook an event of its key");
            assert!(!(behind && held.contains(id)), "{check}: {id} is {outcome:?}, but the destination holds it");
            if !delivered {
                stuck_keys.insert(&event.partitionkey);
            }
        }
    }

    pub(super) async fn a_dropped_delivery_loses_nothing_but_its_answer(&self) {
        let check = "a dropped delivery loses nothing but its answer";
        let sink = self.harness.fresh().await;
        for polls_max in 1..=6 {
            let batch = self.batch(0, self.events(&format!("dropped at {polls_max}"), 40, 3));
            let _answer_is_lost = self.in_time(check, poll_at_most(polls_max, sink.deliver(&batch))).await;
            self.deliver_all(check, &*sink, &attempted_again(&batch)).await;
            self.assert_held(check, &batch).await;
        }
        sink.close().await;
    }

    pub(super) async fn an_outage_is_no_fault_of_an_event(&self) {
        let check = "an outage is no fault of an event";
        let sink = self.harness.fresh().await;
        self.deliver_all(check, &*sink, &self.batch(0, self.events("before the outage", 5, 2))).await;
        self.endure_outage(check, sink).await;
    }

    pub(super) async fn a_sink_made_during_an_outage_delivers_after_it(&self) {
        let check = "a sink made during an outage delivers after it";
        let sink = self.harness.fresh().await;
        self.endure_outage(check, sink).await;
    }

    async fn endure_outage(&self, check: &str, sink: Arc<dyn Sink>) {
        let batch = self.batch(0, self.events(check, 10, 3));
        self.harness.break_destination().await;
        for _ in 0..2 {
            let outcomes = self.deliver(check, &*sink, &batch).await;
            for outcome in &outcomes {
                let outage = matches!(outcome, Outcome::Unavailable { .. });
                assert!(outage, "{check}: in an outage an event is answered {outcome:?}");
            }
            let probed = self.in_time(check, sink.probe()).await;
            assert!(probed.is_err(), "{check}: deliver says {:?}, but the probe is content", outcomes.first());
        }
        self.harness.mend_destination().await;
        self.deliver_once_back(check, &*sink, attempted_again(&batch)).await;
        self.assert_held(check, &batch).await;
        sink.close().await;
    }

    /// As the pipeline does: probes until the probe is content, then delivers.
    async fn deliver_once_back(&self, check: &str, sink: &dyn Sink, mut batch: Batch) {
        let deadline = Instant::now() + self.harness.abilities().recovery_time_max;
        loop {
            let probed = self.in_time(check, sink.probe()).await;
            let outcomes = if probed.is_ok() { self.deliver(check, sink, &batch).await } else { Vec::new() };
            let mut answers = outcomes.iter();
            if probed.is_ok() {
                batch.events.retain(|_| !matches!(answers.next(), Some(Outcome::Delivered { .. })));
            }
            if batch.events.is_empty() {
                return;
            }
            let late = Instant::now() > deadline;
            assert!(!late, "{check}: the destination is back, but the probe says {probed:?} and deliver {outcomes:?}");
            sleep(POLL_INTERVAL).await;
        }
    }

    pub(super) async fn positions_are_remembered_if_the_sink_says_so(&self) {
        let check = "positions are remembered if the sink says so";
        let sink = self.harness.fresh().await;
        let resumes = sink.needs().resumes_positions;
        let shard = 5;
        let batch = self.batch(shard, self.events("position", 5, 2));
        self.deliver_all(check, &*sink, &batch).await;
        sink.close().await;
        let restarted = self.harness.fresh().await;
        let position = self.in_time(check, restarted.resume(shard)).await;
        let expected = if resumes { batch.events.last().map(|event| event.offset) } else { None };
        assert_eq!(position, Ok(expected), "{check}: resumes_positions is {resumes}");
        restarted.close().await;
    }

    pub(super) async fn a_closed_sink_holds_nothing(&self) {
        let check = "a closed sink holds nothing";
        let sink = self.harness.fresh().await;
        self.deliver_all(check, &*sink, &self.batch(0, self.events("closed", 1, 1))).await;
        self.in_time(check, sink.close()).await;
        let held = self.harness.held().await;
        assert!(held.is_empty(), "{check}: {held:?}");
    }

    /// Ids are as those of pushes: visible ASCII.
    fn events(&self, name: &str, count: usize, sessions: usize) -> Vec<Event> {
        let name = name.replace(' ', "-");
        (0..count).map(|n| self.harness.event(&format!("{name}-{n}"), &format!("{name}-s{}", n % sessions))).collect()
    }

    fn batch(&self, shard: u16, events: Vec<Event>) -> Batch {
        let first_offset = self.next_offset.fetch_add(events.len() as u64, Ordering::Relaxed);
        batch(shard, first_offset, events)
    }

    async fn deliver(&self, check: &str, sink: &dyn Sink, batch: &Batch) -> Vec<Outcome> {
        let outcomes = self.in_time(check, sink.deliver(batch)).await;
        assert_eq!(outcomes.len(), batch.events.len(), "{check}: not one outcome per event");
        outcomes
    }

    async fn deliver_all(&self, check: &str, sink: &dyn Sink, batch: &Batch) {
        let outcomes = self.deliver(check, sink, batch).await;
        for (event, outcome) in batch.events.iter().zip(&outcomes) {
            let delivered = matches!(outcome, Outcome::Delivered { .. });
            assert!(delivered, "{check}: {} is answered {outcome:?} by a sound destination", event.event.id);
        }
    }

    async fn in_time<F: Future>(&self, check: &str, call: F) -> F::Output {
        let time_max = self.harness.abilities().answer_time_max;
        timeout(time_max, call).await.unwrap_or_else(|_| panic!("{check}: no answer within {time_max:?}"))
    }

    /// The destination holds every event of `batch`, unharmed, and those of one key in order. Repetitions do not count against the
    /// order: a consumer that knows an id passes it over.
    async fn assert_held(&self, check: &str, batch: &Batch) {
        let abilities = self.harness.abilities();
        let mut places: HashMap<String, Vec<usize>> = HashMap::new();
        let received = self.harness.read_back().await;
        for (place, one) in received.iter().enumerate() {
            places.entry(one.id.clone()).or_default().push(place);
        }
        let mut last_of_key: HashMap<&str, (usize, &str)> = HashMap::new();
        for event in batch.events.iter().map(|entry| &entry.event) {
            let id = event.id.as_str();
            let copies = places.get(id).map_or(&[][..], Vec::as_slice);
            let Some(&first) = copies.first() else {
                panic!("{check}: {id} is delivered, but the destination does not hold it");
            };
            let excess = abilities.keeps_one_copy && copies.len() > 1;
            assert!(!excess, "{check}: the destination holds {} copies of {id}", copies.len());
            let expected = self.harness.payload(event);
            let harmed = copies.iter().any(|&place| received[place].payload != expected);
            assert!(!harmed, "{check}: the destination holds {id} with another payload");
            if let Some((before, other)) = last_of_key.insert(&event.partitionkey, (first, id))
                && abilities.keeps_order
            {
                assert!(before < first, "{check}: {id} overtook {other} of its key");
            }
        }
    }
}

fn attempted_again(batch: &Batch) -> Batch {
    let mut again = batch.clone();
    for event in &mut again.events {
        event.attempt += 1;
    }
    again
}

fn ids(batch: &Batch) -> Vec<&str> {
    batch.events.iter().map(|event| event.event.id.as_str()).collect()
}
