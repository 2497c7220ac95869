//! Transactions of the sink `kafka`, with the real program and a real broker: a gateway that is killed, and a consumer that is neither of
//! ours.
//!
//! `TRUNKLINE_TEST_PUSHES` makes the loads larger.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use test_servers::kafka::{Kafka, Reader};
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinSet, block_in_place};

use crate::support::{Gateway, GatewayBuilder, Sender, cdr, eventually, folder};

/// Each sends one session, one push after the other.
const SENDERS: u64 = 32;

/// A sink to `brokers`, with `more` settings.
pub fn kafka_sink(brokers: &str, topic: &str, more: &str) -> String {
    format!(
        "[sinks.stream]\ntype = \"kafka\"\nstart = \"oldest\"\nbatch.linger = \"5ms\"\nretry = {{ delay_min = \"50ms\", delay_max = \"1s\" }}\n\
         settings = {{ brokers = \"{brokers}\", topic = \"{topic}.{{action}}\", {more} properties = {{ \"message.timeout.ms\" = 10000 }} }}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_of_committed_records_sees_each_event_once_across_kills() {
    let kafka = block_in_place(|| Kafka::start(1));
    kafka.create_topic("exact.cdr", 4, 1, &[]);
    let dir = folder();
    let sink = kafka_sink(&kafka.brokers(), "exact", "transactional = true,");
    let start = || GatewayBuilder::new(dir.path()).sinks(&sink).start();
    let mut run = Run::begin(start().await, pushes()).await;
    for percent in [15, 30, 50, 70, 90] {
        run.until(percent).await;
        run.restart(start).await;
    }
    let (gateway, acknowledged) = run.end().await;

    let events = wait_for_all(&kafka.reader(&["exact.cdr"], true), &acknowledged).await;
    gateway.stop().await;
    assert_eq!(in_order_by_session(&events), events.len(), "an event was seen twice");
    // Aborted transactions leave records that such a consumer passes over.
    let written = records(&kafka.reader(&["exact.cdr"], false));
    eprintln!("{} acknowledged, {} seen, {} written", acknowledged.len(), events.len(), written.len());
}

pub fn pushes() -> u64 {
    std::env::var("TRUNKLINE_TEST_PUSHES").ok().map_or(2_000, |value| value.parse().expect("a number"))
}

/// A load on a gateway that is killed and started again.
pub struct Run {
    gateway: Option<Gateway>,
    load: Arc<Load>,
    senders: JoinSet<()>,
    url: watch::Sender<String>,
}

struct Load {
    pushes: u64,
    sent: AtomicU64,
    acknowledged: Mutex<HashSet<String>>,
}

impl Run {
    pub async fn begin(gateway: Gateway, pushes: u64) -> Self {
        let (url, url_seen) = watch::channel(gateway.url());
        let load = Arc::new(Load { pushes, sent: AtomicU64::new(0), acknowledged: Mutex::default() });
        let mut senders = JoinSet::new();
        for session in 0..SENDERS {
            senders.spawn(Arc::clone(&load).send(session, url_seen.clone()));
        }
        Self { gateway: Some(gateway), load, senders, url }
    }

    /// Waits until so much of the load is sent.
    pub async fn until(&self, percent: u64) {
        let due = self.load.pushes * percent / 100;
        let mut sent = 0;
        while sent < due {
            // Large loads take longer than a wait may.
            let before = sent;
            sent = eventually("the load goes on", async || {
                let sent = self.load.sent.load(Ordering::Relaxed);
                (sent > before || sent >= due).then_some(sent)
            })
            .await;
        }
    }

    /// Kills the gateway and starts another on its journal.
    pub async fn restart<F: Future<Output = Gateway>>(&mut self, start: impl Fn() -> F) {
        self.gateway.take().expect("one is running").kill();
        let next = start().await;
        // Nobody listens once the whole load is sent; then there is still what is not delivered.
        self.url.send_replace(next.url());
        self.gateway = Some(next);
    }

    pub async fn end(mut self) -> (Gateway, HashSet<String>) {
        while let Some(ended) = self.senders.join_next().await {
            ended.expect("no sender panics");
        }
        let acknowledged = self.load.acknowledged.lock().await.clone();
        assert_eq!(acknowledged.len() as u64, self.load.pushes);
        (self.gateway.expect("one is running"), acknowledged)
    }
}

impl Load {
    async fn send(self: Arc<Self>, session: u64, url: watch::Receiver<String>) {
        let sender = Sender::new("");
        for number in (session..self.pushes).step_by(SENDERS as usize) {
            let (id, body) = (format!("push-{number}"), cdr(&format!("session-{session}"), number));
            // More patient than the vendor's sender, so that a restart costs resends and not pushes.
            loop {
                let here = sender.at(&url.borrow().clone());
                let reply = here.once("cdr", &id, body.clone()).await;
                if reply.is_some_and(|(_, reply)| reply["ErrCode"].as_i64() == Some(0)) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            self.acknowledged.lock().await.insert(id);
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// An event as the independent client read it.
pub struct Seen {
    pub id: String,
    pub session: String,
    pub number: u64,
}

impl Seen {
    pub fn new(id: String, session: &str) -> Self {
        let number = id.strip_prefix("push-").unwrap().parse().unwrap();
        Self { id, session: session.to_owned(), number }
    }
}

fn records(reader: &Reader) -> Vec<Seen> {
    let seen = |line: &String| {
        let record: Value = serde_json::from_str(line).unwrap();
        let id = record["headers"]["ce_id"].as_str().unwrap().to_owned();
        Seen::new(id, record["key"].as_str().unwrap())
    };
    reader.read_new().iter().map(seen).collect()
}

pub async fn wait_for_all(reader: &Reader, acknowledged: &HashSet<String>) -> Vec<Seen> {
    let (mut seen, mut ids) = (Vec::new(), HashSet::new());
    while ids.len() < acknowledged.len() {
        let new = eventually("every acknowledged push is in Kafka", async || {
            let new = records(reader);
            (!new.is_empty()).then_some(new)
        })
        .await;
        ids.extend(new.iter().map(|one| one.id.clone()));
        seen.extend(new);
    }
    assert!(acknowledged.iter().all(|id| ids.contains(id)));
    seen
}

/// Holds the first delivery of each event against its session's order. Says how many events there are.
pub fn in_order_by_session(events: &[Seen]) -> usize {
    let (mut seen, mut last) = (HashSet::new(), HashMap::new());
    for event in events.iter().filter(|event| seen.insert(&event.id)) {
        if let Some(before) = last.insert(&event.session, event.number) {
            assert!(before < event.number, "{}: {} came after {before}", event.session, event.number);
        }
    }
    seen.len()
}
