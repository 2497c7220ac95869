//! From a batch's outcomes to what becomes of each of its entries. Pure.

use std::collections::HashSet;
use std::time::Duration;

use sink_api::{DerivedPush, Fault, Outcome};

use super::sessions::Key;

/// What becomes of an entry that came back from the sink.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    Settle,
    /// Delivered, but settled only when this push is in the journal.
    Derive(Box<DerivedPush>),
    /// To be tried again, not before this long from now.
    Again(Duration),
    Doom(Fault),
}

/// A sink that fills whole batches gets the whole batch again as soon as one of its events is to be tried again: what was delivered
/// stays in it, so that the destination overwrites the same with the same. Only dead letters leave it. The longest delay counts for
/// all.
pub(super) fn keep_whole(verdicts: &mut [Verdict]) {
    let delays = verdicts.iter().filter_map(|verdict| match verdict {
        Verdict::Again(delay) => Some(*delay),
        _ => None,
    });
    let Some(longest) = delays.max() else { return };
    for verdict in verdicts {
        if !matches!(verdict, Verdict::Doom(_)) {
            *verdict = Verdict::Again(longest);
        }
    }
}

/// Whether the sink delivered an event after an earlier one of its session failed in the same batch, against its contract.
pub(super) fn breaks_order<'a>(outcomes: &[Outcome], keys: impl Iterator<Item = &'a Key>) -> bool {
    let mut failed = HashSet::new();
    for (outcome, key) in outcomes.iter().zip(keys) {
        match outcome {
            Outcome::Delivered { .. } if failed.contains(key) => return true,
            Outcome::Delivered { .. } => {}
            _ => {
                failed.insert(key);
            }
        }
    }
    false
}

/// The first fault that is the sink's as a whole, and the longest patience it asks for.
pub(super) fn trouble(outcomes: &[Outcome]) -> Option<(Fault, Option<Duration>)> {
    let mut faults = outcomes.iter().filter_map(|outcome| match outcome {
        Outcome::Unavailable { fault, after } => Some((fault, *after)),
        _ => None,
    });
    let (first, after) = faults.next()?;
    Some((first.clone(), faults.map(|(_, after)| after).fold(after, Option::max)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault() -> Fault {
        Fault::new("http-500", "the endpoint answers 500")
    }

    #[test]
    fn one_retry_brings_the_whole_batch_again_but_for_dead_letters() {
        let second = Duration::from_secs(1);
        let mut verdicts =
            [Verdict::Settle, Verdict::Doom(fault()), Verdict::Again(second), Verdict::Again(Duration::ZERO)];
        keep_whole(&mut verdicts);
        let again = Verdict::Again(second);
        assert_eq!(verdicts, [again.clone(), Verdict::Doom(fault()), again.clone(), again]);
    }

    #[test]
    fn without_a_retry_nothing_changes() {
        let mut verdicts = [Verdict::Settle, Verdict::Doom(fault())];
        keep_whole(&mut verdicts);
        assert_eq!(verdicts, [Verdict::Settle, Verdict::Doom(fault())]);
    }

    #[test]
    fn delivering_past_a_failed_event_of_the_same_session_is_noticed() {
        let (a, b) = (Key::from("a"), Key::from("b"));
        let outcomes = [Outcome::retry(fault()), Outcome::delivered()];
        assert!(breaks_order(&outcomes, [&a, &a].into_iter()));
        assert!(!breaks_order(&outcomes, [&a, &b].into_iter()));
    }

    #[test]
    fn the_longest_patience_of_a_batch_counts() {
        let long = Duration::from_secs(9);
        let outcomes = [
            Outcome::delivered(),
            Outcome::unavailable(fault()),
            Outcome::Unavailable { fault: fault(), after: Some(long) },
        ];
        assert_eq!(trouble(&outcomes), Some((fault(), Some(long))));
        assert_eq!(trouble(&outcomes[..1]), None);
    }
}
