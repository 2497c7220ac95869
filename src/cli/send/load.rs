//! How many pushes go out, and when: a closed loop, where the next push waits for a reply, or an open loop, where it waits for its
//! time.
//!
//! In the open loop a push's latency counts from the time it was due, so that a receiver that stalls cannot hide the pushes that
//! stood in line behind it (coordinated omission). In the closed loop it counts from its first attempt. Both include retries. Memory
//! is bounded by the number of pushes in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::header::HeaderValue;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::body::Body;
use super::vendor::{Attempts, Failure, Vendor};

/// The longest that the pacer sleeps before it looks whether it is still needed.
const PACER_NAP: Duration = Duration::from_millis(50);

/// What is to be sent.
#[derive(Debug, Clone)]
pub struct Load {
    pub body: Body,
    pub count: u64,
    /// Pushes a second; none is a closed loop.
    pub rate: Option<f64>,
    /// Most pushes in flight.
    pub concurrency: usize,
    /// The id that all pushes carry; each has a fresh one where absent.
    pub push_id: Option<HeaderValue>,
}

/// One push, once its outcome is known.
#[derive(Debug)]
pub struct Outcome {
    pub push_id: HeaderValue,
    pub session_id: Option<String>,
    pub attempts: Attempts,
    pub latency: Duration,
}

/// What all senders share.
struct Shared {
    vendor: Vendor,
    load: Load,
    next: AtomicU64,
    started: Instant,
    /// One permit for each push that is due; absent in the closed loop.
    due: Option<Arc<Semaphore>>,
    stop: CancellationToken,
}

/// Starts sending. Outcomes come as they are known; the channel ends after the last, or, once `stop` is cancelled, when the pushes in
/// flight have been given up.
pub fn start(vendor: Vendor, load: Load, stop: CancellationToken) -> mpsc::Receiver<Outcome> {
    let senders = load.concurrency.min(usize::try_from(load.count).unwrap_or(usize::MAX));
    let (outcomes, receiver) = mpsc::channel(load.concurrency.min(1024));
    let started = Instant::now();
    let due = load.rate.map(|rate| {
        let due = Arc::new(Semaphore::new(0));
        let (permits, count, stop) = (Arc::clone(&due), load.count, stop.clone());
        std::thread::spawn(move || pace(&permits, started, rate, count, &stop));
        due
    });
    let shared = Arc::new(Shared { vendor, load, next: AtomicU64::new(0), started, due, stop });
    for _ in 0..senders {
        tokio::spawn(send_one_by_one(Arc::clone(&shared), outcomes.clone()));
    }
    receiver
}

/// Releases each push when it is due. A thread, since the runtime's timer counts in whole milliseconds.
fn pace(due: &Semaphore, started: Instant, rate: f64, count: u64, stop: &CancellationToken) {
    for number in 0..count {
        let at = started + due_after(number, rate);
        loop {
            if stop.is_cancelled() {
                return;
            }
            let wait = at.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                break;
            }
            std::thread::sleep(wait.min(PACER_NAP));
        }
        due.add_permits(1);
    }
}

fn due_after(number: u64, rate: f64) -> Duration {
    Duration::from_secs_f64(number as f64 / rate)
}

/// One of the senders: takes the next push, sends it to its end, and so on until none is left.
async fn send_one_by_one(shared: Arc<Shared>, outcomes: mpsc::Sender<Outcome>) {
    while let Some((number, since)) = shared.next_push().await {
        let (body, session_id) = shared.load.body.of_push(number);
        let push_id = shared.load.push_id.clone().unwrap_or_else(fresh_push_id);
        let attempts = tokio::select! {
            attempts = shared.vendor.push(&push_id, &body) => attempts,
            () = shared.stop.cancelled() => Attempts::interrupted(),
        };
        let outcome = Outcome { push_id, session_id, attempts, latency: since.elapsed() };
        if outcomes.send(outcome).await.is_err() {
            return;
        }
    }
}

impl Shared {
    /// The number of the next push, and since when its latency counts.
    async fn next_push(&self) -> Option<(u64, Instant)> {
        if let Some(due) = &self.due {
            tokio::select! {
                permit = due.acquire() => permit.ok()?.forget(),
                () = self.stop.cancelled() => return None,
            }
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= self.load.count || self.stop.is_cancelled() {
            return None;
        }
        if number + 1 == self.load.count {
            // No permit comes after the last: whoever waits for one is done.
            self.due.iter().for_each(|due| due.close());
        }
        let since = self.load.rate.map_or_else(Instant::now, |rate| self.started + due_after(number, rate));
        Some((number, since))
    }
}

impl Attempts {
    fn interrupted() -> Self {
        Self { made: 1, answered: false, err_code: None, result: Err(Failure::Interrupted) }
    }
}

/// A random UUID (RFC 9562 section 5.4).
fn fresh_push_id() -> HeaderValue {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's random numbers do not run out");
    let bits = u128::from_be_bytes(bytes);
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let uuid = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
    HeaderValue::from_str(&uuid).expect("hex digits and dashes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_id_is_a_random_uuid() {
        let (a, b) = (fresh_push_id(), fresh_push_id());
        assert_ne!(a, b);
        let text = a.to_str().unwrap();
        let lengths: Vec<_> = text.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(&text[14..15], "4");
        assert!("89ab".contains(&text[19..20]), "{text}");
    }

    #[test]
    fn pushes_are_due_at_an_even_pace() {
        assert_eq!(due_after(0, 1000.0), Duration::ZERO);
        assert_eq!(due_after(1500, 1000.0), Duration::from_millis(1500));
        assert_eq!(due_after(1, 0.5), Duration::from_secs(2));
    }
}
