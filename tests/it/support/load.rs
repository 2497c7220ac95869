//! A load: call records from many senders at a time, each until it is acknowledged, to a gateway that may be killed and started again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

use super::{Gateway, Sender, cdr, eventually};

/// Sessions take turns. Where there are as many senders, the pushes of a session come from one of them, in the order of their numbers.
pub const SESSIONS: u64 = 32;

/// How often a sender tries: far more patient than the vendor's, so that a restart costs resends and not pushes.
const TRIES: usize = 1_000;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// A number that makes a test larger, from the environment.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().expect("a number"))
}

/// What the senders saw.
#[derive(Default)]
pub struct Seen {
    pub acknowledged: HashSet<String>,
    /// Of every request that was acknowledged, in milliseconds.
    pub latencies: Vec<f64>,
    /// Requests refused or without a reply.
    pub refused: u64,
    /// From the first request to the last reply.
    pub elapsed: Duration,
}

/// Pushes `push-0`, `push-1`, … on their way.
pub struct Load {
    way: Arc<Way>,
    senders: JoinSet<()>,
    begun: Instant,
}

struct Way {
    pushes: u64,
    senders: u64,
    url: watch::Sender<String>,
    sent: AtomicU64,
    seen: Mutex<Seen>,
}

impl Load {
    pub fn begin(url: String, pushes: u64, senders: u64) -> Self {
        let (url, _) = watch::channel(url);
        let way = Arc::new(Way { pushes, senders, url, sent: AtomicU64::new(0), seen: Mutex::default() });
        let mut senders = JoinSet::new();
        for first in 0..way.senders {
            senders.spawn(Arc::clone(&way).send(first));
        }
        Self { way, senders, begun: Instant::now() }
    }

    pub fn has_sent(&self, percent: u64) -> bool {
        self.way.sent.load(Ordering::Relaxed) >= self.way.pushes * percent / 100
    }

    pub fn is_over(&self) -> bool {
        self.has_sent(100)
    }

    /// Waits until so much is sent.
    pub async fn until(&self, percent: u64) {
        while !self.has_sent(percent) {
            // Large loads take longer than a wait may.
            let before = self.way.sent.load(Ordering::Relaxed);
            eventually("the load goes on", async || (self.way.sent.load(Ordering::Relaxed) > before).then_some(()))
                .await;
        }
    }

    /// Waits until everything is acknowledged.
    pub async fn end(mut self) -> Seen {
        while let Some(ended) = self.senders.join_next().await {
            ended.expect("every push is acknowledged");
        }
        let mut seen = std::mem::take(&mut *self.way.seen.lock().await);
        seen.elapsed = self.begun.elapsed();
        assert_eq!(seen.acknowledged.len() as u64, self.way.pushes);
        seen
    }
}

impl Way {
    /// Every tenth push goes a second time over another connection: half of them at the same moment, half of them after the first
    /// was acknowledged.
    async fn send(self: Arc<Self>, first: u64) {
        let (sender, other) = (Sender::new(""), Sender::new(""));
        for number in (first..self.pushes).step_by(self.senders as usize) {
            let once = self.until_acknowledged(&sender, number);
            match number % 20 {
                0 => _ = tokio::join!(once, self.until_acknowledged(&other, number)),
                10 => {
                    once.await;
                    self.until_acknowledged(&other, number).await;
                }
                _ => once.await,
            }
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Always to where the gateway is now.
    async fn until_acknowledged(&self, sender: &Sender, number: u64) {
        let (id, body) = (format!("push-{number}"), cdr(&format!("session-{}", number % SESSIONS), number));
        for _ in 0..TRIES {
            let url = self.url.borrow().clone();
            let begun = Instant::now();
            let reply = sender.at(&url).once("cdr", &id, body.clone()).await;
            let mut seen = self.seen.lock().await;
            if reply.is_some_and(|(_, reply)| reply["ErrCode"] == 0) {
                seen.latencies.push(begun.elapsed().as_secs_f64() * 1e3);
                seen.acknowledged.insert(id);
                return;
            }
            seen.refused += 1;
            drop(seen);
            tokio::time::sleep(TRY_AGAIN_AFTER).await;
        }
        panic!("{id} was refused {TRIES} times");
    }
}

/// A load on one gateway.
pub struct Run {
    gateway: Option<Gateway>,
    load: Load,
}

impl Run {
    pub fn begin(gateway: Gateway, pushes: u64, senders: u64) -> Self {
        Self { load: Load::begin(gateway.url(), pushes, senders), gateway: Some(gateway) }
    }

    pub async fn until(&self, percent: u64) {
        self.load.until(percent).await;
    }

    /// Kills the gateway and starts another on its journal.
    pub async fn restart<F: Future<Output = Gateway>>(&mut self, start: impl Fn() -> F) {
        self.gateway.take().expect("one is running").kill();
        let next = start().await;
        self.load.way.url.send_replace(next.url());
        self.gateway = Some(next);
    }

    pub async fn end(self) -> (Gateway, HashSet<String>) {
        let seen = self.load.end().await;
        (self.gateway.expect("one is running"), seen.acknowledged)
    }
}

/// An event as it arrived.
pub struct Arrived {
    pub id: String,
    pub session: String,
}

impl Arrived {
    pub fn new(id: &Value, session: &Value) -> Self {
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        Self { id: text(id), session: text(session) }
    }
}

/// How many of `events` are there again. Fails where an acknowledged one is not there at all.
pub fn again(acknowledged: &HashSet<String>, events: &[Arrived]) -> usize {
    let ids: HashSet<&String> = events.iter().map(|event| &event.id).collect();
    let missing: Vec<_> = acknowledged.iter().filter(|id| !ids.contains(id)).collect();
    assert!(
        missing.is_empty(),
        "{} of {} acknowledged pushes are missing: {missing:?}",
        missing.len(),
        acknowledged.len()
    );
    events.len() - ids.len()
}

/// Holds the first delivery of each event against the places of its session's events.
pub fn in_order_by_session(events: &[Arrived], place: impl Fn(&str) -> Option<u64>) {
    let (mut seen, mut last) = (HashSet::new(), HashMap::new());
    for event in events.iter().filter(|event| seen.insert(&event.id)) {
        let Some(place) = place(&event.id) else { continue };
        if let Some(before) = last.insert(&event.session, place) {
            assert!(before < place, "{}: {place} came after {before}", event.session);
        }
    }
}

/// The place of a push in the order in which its sender sent it.
pub fn number_of(id: &str) -> Option<u64> {
    id.strip_prefix("push-")?.parse().ok()
}
