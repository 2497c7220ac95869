//! In which order the events of a batch go out, and what becomes of the others once one has failed. Knows nothing of AMQP: it is
//! told how events are published.
//!
//! ```text
//! batch   a1 b1 a2 c1 a3 b2
//! waves   a1 b1 c1 │ a2 b2 │ a3      the n-th events of all keys together, so that an event goes out only when the one before
//!                                    it in its key is confirmed
//! ```
//!
//! A broker can refuse or return the first of two messages and take the second, so they must not be under way together.

use std::collections::{HashMap, HashSet};

use sink_api::{BatchEvent, Event, Fault, Outcome};

/// How events reach the broker.
pub(crate) trait Publish {
    /// Publishes events of different keys; one outcome for each.
    async fn publish(&mut self, events: &[&Event]) -> Vec<Outcome>;

    /// Whether nothing more can be published by it.
    fn is_over(&self) -> bool;
}

/// Delivers `events`, at most `window` of them at a time.
pub(crate) async fn in_waves(publish: &mut impl Publish, events: &[BatchEvent], window: usize) -> Vec<Outcome> {
    let mut outcomes: Vec<Option<Outcome>> = vec![None; events.len()];
    let mut stuck_keys = HashSet::new();
    // What is left gets this answer once the broker as a whole has failed.
    let mut outage = None;
    let parts = waves(events);
    for part in parts.iter().flat_map(|wave| wave.chunks(window.max(1))) {
        if publish.is_over() || outage.is_some() {
            break;
        }
        let key = |index: usize| events[index].event.partitionkey.as_str();
        let part: Vec<usize> = part.iter().copied().filter(|index| !stuck_keys.contains(key(*index))).collect();
        if part.is_empty() {
            continue;
        }
        let members: Vec<&Event> = part.iter().map(|index| &*events[*index].event).collect();
        for (index, outcome) in part.into_iter().zip(publish.publish(&members).await) {
            if !matches!(outcome, Outcome::Delivered { .. }) {
                stuck_keys.insert(key(index));
            }
            if matches!(outcome, Outcome::Unavailable { .. }) {
                outage.get_or_insert(outcome.clone());
            }
            outcomes[index] = Some(outcome);
        }
    }
    outcomes.into_iter().map(|outcome| outcome.or_else(|| outage.clone()).unwrap_or_else(waits)).collect()
}

/// The first events of all keys, then the second ones, and so on; places in `events`.
fn waves(events: &[BatchEvent]) -> Vec<Vec<usize>> {
    let mut waves: Vec<Vec<usize>> = Vec::new();
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (index, event) in events.iter().enumerate() {
        let nth = seen.entry(event.event.partitionkey.as_str()).or_default();
        if *nth == waves.len() {
            waves.push(Vec::new());
        }
        waves[*nth].push(index);
        *nth += 1;
    }
    waves
}

/// Not tried, through no fault of its own.
fn waits() -> Outcome {
    let fault = Fault::new("waits", "not tried yet: the batch ended early, or an earlier event of its key failed");
    Outcome::Retry { fault, after: None, burns_attempt: false }
}

#[cfg(test)]
mod tests;
