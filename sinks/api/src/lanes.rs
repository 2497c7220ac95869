//! Events of different keys side by side, those of one key one after the other; for sinks that deliver event by event. Behind the
//! feature `lanes`.
//!
//! The events of a key stand in a lane. A failure ends its lane, since nothing may overtake; an outage ends all of them.

use std::collections::HashMap;
use std::future::Future;
use std::sync::OnceLock;

use futures::stream::{self, StreamExt as _};

use crate::{BatchEvent, Event, Fault, Outcome};

/// Delivers each of `events` by `one`, in at most `lanes_max` lanes at a time. One outcome per event, in their order.
pub async fn one_by_one<'e, F>(
    events: &'e [BatchEvent],
    lanes_max: usize,
    one: impl Fn(&'e Event) -> F + Sync,
) -> Vec<Outcome>
where
    F: Future<Output = Outcome> + Send,
{
    let outage = OnceLock::new();
    let lanes = lanes(events).into_iter().map(|lane| deliver_lane(&one, events, lane, &outage));
    let answered: Vec<_> = stream::iter(lanes).buffer_unordered(lanes_max).collect().await;
    let mut outcomes = vec![None; events.len()];
    for (index, outcome) in answered.into_iter().flatten() {
        outcomes[index] = Some(outcome);
    }
    outcomes.into_iter().map(|outcome| outcome.expect("every event has an answer")).collect()
}

/// The answer for an event that was not tried, since an earlier one of its key or batch was not delivered.
pub fn waits() -> Outcome {
    let fault = Fault::new("waits", "an earlier event of the batch was not delivered");
    Outcome::Retry { fault, after: None, burns_attempt: false }
}

async fn deliver_lane<'e, F>(
    one: &impl Fn(&'e Event) -> F,
    events: &'e [BatchEvent],
    lane: Vec<usize>,
    outage: &OnceLock<Outcome>,
) -> Vec<(usize, Outcome)>
where
    F: Future<Output = Outcome>,
{
    let mut answered = Vec::with_capacity(lane.len());
    let mut is_stuck = false;
    for index in lane {
        let outcome = match outage.get() {
            Some(outcome) => outcome.clone(),
            None if is_stuck => waits(),
            None => one(&events[index].event).await,
        };
        is_stuck |= !matches!(outcome, Outcome::Delivered { .. });
        if matches!(outcome, Outcome::Unavailable { .. }) {
            outage.get_or_init(|| outcome.clone());
        }
        answered.push((index, outcome));
    }
    answered
}

/// The places of the events of each key, in their order; the key that comes first in front.
fn lanes(events: &[BatchEvent]) -> Vec<Vec<usize>> {
    let mut lanes: Vec<Vec<usize>> = Vec::new();
    let mut lane_of_key = HashMap::new();
    for (index, entry) in events.iter().enumerate() {
        let lane = *lane_of_key.entry(entry.event.partitionkey.as_str()).or_insert(lanes.len());
        if lane == lanes.len() {
            lanes.push(Vec::new());
        }
        lanes[lane].push(index);
    }
    lanes
}
