//! How fast a replay may go. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// What may go at once after a pause, in seconds of the rate; one event always may.
const BURST_SECONDS: f64 = 0.1;

/// Keeps to a rate, in events a second, or to none.
#[derive(Debug)]
pub struct Pace {
    rate: Option<f64>,
    allowance: f64,
    counted_at: Option<Instant>,
}

impl Pace {
    /// `rate` is above 0.
    pub fn new(rate: Option<f64>) -> Self {
        Self { rate, allowance: 1.0, counted_at: None }
    }

    /// Takes leave for one event, or says when to ask again.
    pub fn leave(&mut self, now: Instant) -> Result<(), Instant> {
        let Some(rate) = self.rate else { return Ok(()) };
        let passed = self.counted_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.counted_at = Some(now);
        self.allowance = (self.allowance + passed.as_secs_f64() * rate).min((rate * BURST_SECONDS).max(1.0));
        // A whole event up to the rounding of the clock.
        if self.allowance > 1.0 - 1e-6 {
            self.allowance -= 1.0;
            return Ok(());
        }
        let wait = (1.0 - self.allowance) / rate;
        Err(now + Duration::from_secs_f64(wait.min(3600.0)).max(Duration::from_millis(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent_in(rate: f64, time: Duration) -> u32 {
        let begun = Instant::now();
        let (mut pace, mut now, mut sent) = (Pace::new(Some(rate)), begun, 0);
        while now < begun + time {
            match pace.leave(now) {
                Ok(()) => sent += 1,
                Err(at) => now = at,
            }
        }
        sent
    }

    #[test]
    fn a_rate_is_kept_to() {
        assert_eq!(sent_in(0.5, Duration::from_secs(20)), 10);
        assert_eq!(sent_in(5.0, Duration::from_secs(10)), 50);
        let many = sent_in(20_000.0, Duration::from_secs(5));
        assert!((99_000..=103_000).contains(&many), "{many}");
    }

    #[test]
    fn a_pause_saves_up_a_tenth_of_a_second_at_most() {
        let (mut pace, now) = (Pace::new(Some(100.0)), Instant::now());
        pace.leave(now).unwrap();
        let later = now + Duration::from_secs(60);
        assert_eq!((0..100).filter(|_| pace.leave(later).is_ok()).count(), 10);
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let mut pace = Pace::new(None);
        assert!((0..10_000).all(|_| pace.leave(Instant::now()).is_ok()));
    }
}
