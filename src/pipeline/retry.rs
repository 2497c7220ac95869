//! How long to wait before the next try. Pure, but for the dice.

use std::time::Duration;

use fastrand::Rng;

/// No wait is shorter, so that a delay of zero in the config cannot make a pipeline spin.
const DELAY_FLOOR: Duration = Duration::from_millis(10);

/// A destination may ask for patience, but not for more than this: an absurd `Retry-After` must not park events for days.
pub(super) const AFTER_MAX: Duration = Duration::from_secs(3600);

/// Exponential delays with equal jitter: half of the delay is certain, half is diced.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        let min = min.max(DELAY_FLOOR);
        Self { min, max: max.max(min) }
    }

    /// The wait after the `failures`-th failure in a row (the first is 1): `min` doubled for each one before, at most `max`, of
    /// which at least half is waited; never shorter than `after`, which counts up to [`AFTER_MAX`].
    pub(super) fn delay(&self, failures: u32, after: Option<Duration>, rng: &mut Rng) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let full = self.min.saturating_mul(1 << doublings).min(self.max);
        let jittered = full.mul_f64(0.5 + 0.5 * rng.f64());
        jittered.max(after.unwrap_or_default().min(AFTER_MAX))
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use proptest::prelude::{prop_assert, proptest};

    use super::*;

    proptest! {
        #[test]
        fn a_delay_lies_between_half_and_the_whole_of_the_doubled_minimum(seed: u64, failures in 1u32..100) {
            let backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(60));
            let full = 0.2 * 2f64.powi(i32::try_from(failures).unwrap() - 1);
            let full = full.min(60.0);
            let delay = backoff.delay(failures, None, &mut Rng::with_seed(seed)).as_secs_f64();
            prop_assert!(delay >= full / 2.0 - 1e-6 && delay <= full + 1e-6, "{delay} of {full}");
        }
    }

    #[test]
    fn the_destination_can_ask_for_longer_but_not_for_ever() {
        let backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(60));
        let mut rng = Rng::with_seed(1);
        assert_eq!(backoff.delay(1, Some(Duration::from_secs(90)), &mut rng), Duration::from_secs(90));
        assert_eq!(backoff.delay(1, Some(Duration::MAX), &mut rng), AFTER_MAX);
        assert!(backoff.delay(20, Some(Duration::from_secs(1)), &mut rng) >= Duration::from_secs(30));
    }

    #[test]
    fn a_delay_of_zero_still_waits() {
        let backoff = Backoff::new(Duration::ZERO, Duration::ZERO);
        assert!(backoff.delay(1, None, &mut Rng::with_seed(1)) >= DELAY_FLOOR / 2);
    }
}
