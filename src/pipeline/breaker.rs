//! Whether the sink as a whole is judged to be there. Pure: told what happened and when, it says what may go out.
//!
//! ```text
//!  start ──▶ probing ──reached──▶ closed ◀──────────── trial passed ─┐
//!               │                    │                                │
//!             away             unavailable                          trial ◀── one batch ── half open
//!               ▼                    ▼                                │                        ▲
//!             open ◀─────────────────┴──────── unavailable ───────────┘                        │
//!               └── delay over ──▶ probing ──reached───────────────────────────────────────────┘
//! ```
//!
//! The delay doubles with every opening until an event is delivered: a probe that is answered is no proof.

use tokio::time::Instant;

/// How much may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    All,
    /// One batch, to see whether it is delivered.
    Trial,
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Instant },
    Probing { was_open: bool },
    HalfOpen,
    Trial,
}

#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    /// Openings since an event was delivered.
    failures: u32,
}

impl Breaker {
    /// Nothing goes out before the first probe, which is due at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self { state: State::Open { until: now }, failures: 0 }
    }

    pub(super) fn pass(&self) -> Pass {
        match self.state {
            State::Closed => Pass::All,
            State::HalfOpen => Pass::Trial,
            State::Open { .. } | State::Probing { .. } | State::Trial => Pass::Nothing,
        }
    }

    /// Whether the sink is judged to be away. Not so before the first probe.
    pub(super) fn is_open(&self) -> bool {
        match self.state {
            State::Closed => false,
            State::Open { .. } => self.failures > 0,
            State::Probing { was_open } => was_open,
            State::HalfOpen | State::Trial => true,
        }
    }

    /// When the next probe is due, where one is.
    pub(super) fn probe_at(&self) -> Option<Instant> {
        match self.state {
            State::Open { until } => Some(until),
            _ => None,
        }
    }

    pub(super) fn probe_began(&mut self) {
        self.state = State::Probing { was_open: self.is_open() };
    }

    /// The probe was answered. Closes at once where the breaker was not open, or where there is nothing to try.
    pub(super) fn probe_passed(&mut self, something_to_try: bool) {
        let try_first = self.is_open() && something_to_try;
        self.state = if try_first { State::HalfOpen } else { State::Closed };
    }

    pub(super) fn trial_began(&mut self) {
        self.state = State::Trial;
    }

    /// The trial batch came back without the sink being away.
    pub(super) fn trial_passed(&mut self) {
        self.state = State::Closed;
    }

    pub(super) fn delivered(&mut self) {
        self.failures = 0;
    }

    /// Whether a report that the sink is away counts: while the breaker is open already only the probe and the trial are
    /// believed, since a batch from before may come back late.
    pub(super) fn believes(&self, is_trial: bool) -> bool {
        match self.state {
            State::Closed => true,
            State::Probing { .. } | State::Trial => is_trial,
            State::Open { .. } | State::HalfOpen => false,
        }
    }

    /// The sink is away. `until` is given how often that was so in a row.
    pub(super) fn trip(&mut self, until: impl FnOnce(u32) -> Instant) {
        self.failures = self.failures.saturating_add(1);
        self.state = State::Open { until: until(self.failures) };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn closed(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(now);
        breaker.probe_began();
        breaker.probe_passed(true);
        breaker
    }

    #[test]
    fn the_first_probe_closes_without_a_trial() {
        let now = Instant::now();
        let mut breaker = Breaker::new(now);
        assert_eq!((breaker.pass(), breaker.is_open(), breaker.probe_at()), (Pass::Nothing, false, Some(now)));
        breaker.probe_began();
        assert_eq!((breaker.pass(), breaker.is_open()), (Pass::Nothing, false));
        breaker.probe_passed(true);
        assert_eq!(breaker.pass(), Pass::All);
    }

    #[test]
    fn an_outage_is_over_after_a_probe_and_one_trial_batch() {
        let now = Instant::now();
        let mut breaker = closed(now);
        assert!(breaker.believes(false));
        breaker.trip(|_| now + Duration::from_secs(1));
        assert_eq!((breaker.pass(), breaker.is_open()), (Pass::Nothing, true));
        breaker.probe_began();
        assert!(breaker.is_open());
        breaker.probe_passed(true);
        assert_eq!(breaker.pass(), Pass::Trial);
        breaker.trial_began();
        assert_eq!(breaker.pass(), Pass::Nothing);
        breaker.trial_passed();
        assert_eq!((breaker.pass(), breaker.is_open()), (Pass::All, false));
    }

    #[test]
    fn failures_in_a_row_count_until_something_is_delivered() {
        let now = Instant::now();
        let mut breaker = closed(now);
        let mut seen = Vec::new();
        for _ in 0..3 {
            breaker.trip(|failures| {
                seen.push(failures);
                now
            });
            breaker.probe_began();
            breaker.probe_passed(true);
            breaker.trial_began();
        }
        breaker.trial_passed();
        breaker.delivered();
        breaker.trip(|failures| {
            seen.push(failures);
            now
        });
        assert_eq!(seen, [1, 2, 3, 1]);
    }

    #[test]
    fn a_late_batch_from_before_does_not_spoil_a_trial() {
        let now = Instant::now();
        let mut breaker = closed(now);
        breaker.trip(|_| now);
        assert!(!breaker.believes(false));
        breaker.probe_began();
        breaker.probe_passed(true);
        breaker.trial_began();
        assert!(!breaker.believes(false));
        assert!(breaker.believes(true));
    }

    #[test]
    fn with_nothing_to_try_an_answered_probe_closes() {
        let now = Instant::now();
        let mut breaker = closed(now);
        breaker.trip(|_| now);
        breaker.probe_began();
        breaker.probe_passed(false);
        assert_eq!(breaker.pass(), Pass::All);
    }
}
