//! Making dead letters of doomed entries, and saying so without a flood.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::sessions::Seq;
use super::window::Window;
use crate::journal::{DeadLetter, DeadLetterId};
use crate::names::SinkName;
use crate::trace::trace_id;

/// As many dead letters are kept in one act, at most.
const LETTERS_AT_ONCE: usize = 500;

/// Between two log lines about the same code.
const QUIET: Duration = Duration::from_secs(60);

/// Codes come from sinks; beyond this many different ones the log forgets which it has told of.
const CODES_MAX: usize = 100;

/// The first doomed entries of `window` as dead letters, as many as there is `room` for but at least one, with their seqs.
pub(super) fn first_letters(window: &Window, sink: &SinkName, shard: u16, room: u64) -> (Vec<Seq>, Vec<DeadLetter>) {
    let count = usize::try_from(room).unwrap_or(usize::MAX).clamp(1, LETTERS_AT_ONCE);
    let letters = window.doomed().take(count).map(|(seq, offset, push, doom)| {
        let letter = DeadLetter {
            id: DeadLetterId::of_entry(sink.clone(), shard, offset),
            push: (**push).clone(),
            code: doom.fault.code.to_string(),
            reason: doom.fault.reason.clone(),
            attempts: doom.attempts,
            first_attempt_at: doom.first_at,
            last_attempt_at: doom.last_at,
        };
        (seq, letter)
    });
    letters.unzip()
}

/// Tells of the first dead letter of a code and then at most once a minute, with how many there were in between.
#[derive(Debug, Default)]
pub(super) struct LetterLog {
    told: HashMap<String, (Instant, u64)>,
}

impl LetterLog {
    pub(super) fn tell(&mut self, letter: &DeadLetter, now: Instant) {
        if let Some(count) = self.count(&letter.code, now) {
            let DeadLetter { id, push, code, reason, attempts, .. } = letter;
            let trace_id = push.traceparent.as_deref().and_then(trace_id);
            warn!(sink = %id.sink, letter = %id, code, reason, attempts, trace_id, count, "dead letters kept");
        }
    }

    /// How many dead letters of `code` a line has to tell of now, where one is due.
    fn count(&mut self, code: &str, now: Instant) -> Option<u64> {
        if self.told.len() >= CODES_MAX && !self.told.contains_key(code) {
            self.told.clear();
        }
        match self.told.get_mut(code) {
            Some((at, left_out)) if now < *at + QUIET => {
                *left_out += 1;
                None
            }
            Some((at, left_out)) => {
                *at = now;
                Some(std::mem::take(left_out) + 1)
            }
            None => {
                self.told.insert(code.to_owned(), (now, 0));
                Some(1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_code_is_one_line_a_minute() {
        let now = Instant::now();
        let mut log = LetterLog::default();
        assert_eq!(log.count("http-400", now), Some(1));
        assert_eq!(log.count("http-400", now), None);
        assert_eq!(log.count("http-422", now), Some(1));
        assert_eq!(log.count("http-400", now + QUIET), Some(2));
    }
}
