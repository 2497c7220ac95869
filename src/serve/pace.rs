//! Keeps a flood of equal events from becoming a flood of log lines: each kind passes once a minute and then says how many were
//! held back.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(60);

/// Kinds are words of the program, never of a peer, so the table stays small.
#[derive(Debug, Default)]
pub struct Pace(Mutex<BTreeMap<&'static str, Slot>>);

#[derive(Debug)]
struct Slot {
    passed_at: Instant,
    held_back: u64,
}

impl Pace {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether an event of `kind` is to be logged now; says how many were held back since the last that was.
    pub fn pass(&self, kind: &'static str) -> Option<u64> {
        self.pass_at(kind, Instant::now())
    }

    fn pass_at(&self, kind: &'static str, now: Instant) -> Option<u64> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = slots.get_mut(kind) else {
            slots.insert(kind, Slot { passed_at: now, held_back: 0 });
            return Some(0);
        };
        if now.duration_since(slot.passed_at) < EVERY {
            slot.held_back += 1;
            return None;
        }
        slot.passed_at = now;
        Some(std::mem::take(&mut slot.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_passes_once_a_minute_and_counts_the_rest() {
        let (pace, start) = (Pace::new(), Instant::now());
        assert_eq!(pace.pass_at("a", start), Some(0));
        assert_eq!(pace.pass_at("b", start), Some(0));
        assert_eq!(pace.pass_at("a", start), None);
        assert_eq!(pace.pass_at("a", start), None);
        assert_eq!(pace.pass_at("a", start + EVERY), Some(2));
        assert_eq!(pace.pass_at("a", start + EVERY), None);
    }
}
