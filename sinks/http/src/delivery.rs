//! In which order the events of a batch go out, and what becomes of the others once one has failed. Knows nothing of HTTP: it is
//! told how events are posted.
//!
//! One by one: as [`sink_api::lanes`] says.
//!
//! Together: one request for all. A receiver that refuses it says nothing of which event it minds, so what was refused is halved and
//! each half sent by itself, until what is refused is one event.

use std::collections::HashSet;
use std::future::Future;

use sink_api::lanes::{self, waits};
use sink_api::{BatchEvent, Event, Outcome};

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
    lanes::one_by_one(events, LANES_MAX, |event| post.one(event)).await
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

fn in_order(count: usize, answered: impl IntoIterator<Item = (usize, Outcome)>) -> Vec<Outcome> {
    let mut outcomes = vec![None; count];
    for (index, outcome) in answered {
        outcomes[index] = Some(outcome);
    }
    outcomes.into_iter().map(|outcome| outcome.expect("every event has an answer")).collect()
}

#[cfg(test)]
mod tests;
