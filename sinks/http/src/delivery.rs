//! In which order the events of a batch go out, and what becomes of the others once one has failed. Knows nothing of HTTP: it is
//! told how events are posted.
//!
//! One by one: the events of a key stand in a lane and go out one after the other; lanes go side by side. A failure ends its lane,
//! since nothing may overtake; an outage ends all of them.
//!
//! Together: one request for all. A receiver that refuses it says nothing of which event it minds, so what was refused is halved and
//! each half sent by itself, until what is refused is one event.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::OnceLock;

use futures::stream::{self, StreamExt as _};
use sink_api::{BatchEvent, Event, Fault, Outcome};

/// Lanes of one batch that are under way at the same time.
const LANES_MAX: usize = 16;

/// How events reach the receiver.
pub(crate) trait Post: Sync {
    /// Posts one event by itself.
    fn one(&self, event: &Event) -> impl Future<Output = Outcome> + Send;

    /// Posts all of them in one request, whose outcome is that of each.
    fn all(&self, events: &[&Event]) -> impl Future<Output = Outcome> + Send;
}

/// Events of different keys side by side, each by itself.
pub(crate) async fn one_by_one(post: &impl Post, events: &[BatchEvent]) -> Vec<Outcome> {
    let outage = OnceLock::new();
    let lanes = lanes(events).into_iter().map(|lane| deliver_lane(post, events, lane, &outage));
    let answered: Vec<_> = stream::iter(lanes).buffer_unordered(LANES_MAX).collect().await;
    in_order(events.len(), answered.into_iter().flatten())
}

/// All events in one request, or in as few as the receiver takes.
pub(crate) async fn together(post: &impl Post, events: &[BatchEvent]) -> Vec<Outcome> {
    let mut answered = Vec::with_capacity(events.len());
    let mut stuck_keys = HashSet::new();
    // What is left gets this answer once a part has failed for another reason than its events.
    let mut ended = None;
    let mut parts = vec![(0..events.len()).collect::<Vec<_>>()];
    while let Some(mut part) = parts.pop() {
        if let Some(outcome) = &ended {
            answered.extend(part.into_iter().map(|index| (index, Outcome::clone(outcome))));
            continue;
        }
        let key = |index: usize| events[index].event.partitionkey.as_str();
        let waiting = part.extract_if(.., |index| stuck_keys.contains(key(*index)));
        answered.extend(waiting.map(|index| (index, waits())));
        if part.is_empty() {
            continue;
        }
        let members: Vec<&Event> = part.iter().map(|index| &*events[*index].event).collect();
        let outcome = post.all(&members).await;
        match outcome {
            Outcome::Rejected { .. } if part.len() > 1 => {
                let second = part.split_off(part.len() / 2);
                parts.push(second);
                parts.push(part);
                continue;
            }
            Outcome::Delivered { .. } => {}
            Outcome::Rejected { .. } => stuck_keys.extend(part.iter().map(|index| key(*index))),
            Outcome::Retry { .. } => ended = Some(waits()),
            Outcome::Unavailable { .. } => ended = Some(outcome.clone()),
        }
        answered.extend(part.into_iter().map(|index| (index, outcome.clone())));
    }
    in_order(events.len(), answered)
}

async fn deliver_lane(
    post: &impl Post,
    events: &[BatchEvent],
    lane: Vec<usize>,
    outage: &OnceLock<Outcome>,
) -> Vec<(usize, Outcome)> {
    let mut answered = Vec::with_capacity(lane.len());
    let mut is_stuck = false;
    for index in lane {
        let outcome = match outage.get() {
            Some(outcome) => outcome.clone(),
            None if is_stuck => waits(),
            None => post.one(&events[index].event).await,
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

fn waits() -> Outcome {
    let fault = Fault::new("waits", "an earlier event of the batch was not delivered");
    Outcome::Retry { fault, after: None, burns_attempt: false }
}

fn in_order(count: usize, answered: impl IntoIterator<Item = (usize, Outcome)>) -> Vec<Outcome> {
    let mut outcomes = vec![None; count];
    for (index, outcome) in answered {
        outcomes[index] = Some(outcome);
    }
    outcomes.into_iter().map(|outcome| outcome.expect("every event has an answer")).collect()
}

#[cfg(test)]
mod tests;
