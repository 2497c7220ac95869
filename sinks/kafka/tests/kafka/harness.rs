//! A topic on real brokers, and sinks that write to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use sink_api::conformance::{Abilities, Harness, Received, batch, event_of_size};
use sink_api::{Batch, Context, Event, Format, Outcome, Sink, SinkKind as _};
use test_servers::kafka::{Kafka, Reader};

/// One node for all tests that only need a broker; those that break it have their own.
pub fn shared() -> &'static Kafka {
    static SHARED: OnceLock<Kafka> = OnceLock::new();
    SHARED.get_or_init(|| Kafka::start(1))
}

/// A record as the independent client saw it.
#[derive(Debug, Clone, Deserialize)]
pub struct Record {
    pub partition: i32,
    pub key: String,
    pub headers: HashMap<String, String>,
    value: String,
}

impl Record {
    pub fn value(&self) -> Bytes {
        STANDARD.decode(&self.value).unwrap().into()
    }

    /// The event's id, from the header or the payload.
    pub fn id(&self) -> String {
        match self.headers.get("ce_id") {
            Some(id) => id.clone(),
            None => {
                let event: serde_json::Value = serde_json::from_slice(&self.value()).unwrap();
                event["id"].as_str().unwrap().to_owned()
            }
        }
    }
}

pub fn new_records(reader: &Reader) -> Vec<Record> {
    reader.read_new().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A sink with quick timeouts. `more` are lines of its settings.
pub fn sink(brokers: &str, more: &str) -> Arc<dyn Sink> {
    sink_of(brokers, more, Format::CloudEvents)
}

pub fn sink_of(brokers: &str, more: &str, format: Format) -> Arc<dyn Sink> {
    let properties = if more.contains("properties") { "" } else { "properties = { \"message.timeout.ms\" = 5000 }\n" };
    let settings = toml::from_str(&format!("brokers = \"{brokers}\"\n{properties}{more}")).unwrap();
    let context = Context { name: "stream".into(), format };
    assert_eq!(sink_kafka::Kafka::check(&settings, &context), []);
    sink_kafka::Kafka::build(settings, context).unwrap()
}

/// Events of one session.
pub fn numbered(name: &str, count: usize) -> Batch {
    let events = (0..count).map(|n| event_of_size(&format!("{name}-{n}"), name, 0)).collect();
    batch(0, 1, events)
}

/// Outcomes as words: `delivered`, or the kind and the code.
pub fn told(outcomes: &[Outcome]) -> Vec<String> {
    let word = |outcome: &Outcome| match outcome {
        Outcome::Delivered { .. } => "delivered".to_owned(),
        Outcome::Rejected { fault } => format!("rejected {}", fault.code),
        Outcome::Unavailable { fault, .. } => format!("away {}", fault.code),
        Outcome::Retry { fault, burns_attempt: false, .. } => format!("patience {}", fault.code),
        Outcome::Retry { fault, .. } => format!("retry {}", fault.code),
    };
    outcomes.iter().map(word).collect()
}

/// Delivers until all are, as the pipeline would.
pub async fn deliver_at_last(sink: &dyn Sink, mut batch: Batch) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !batch.events.is_empty() {
        let outcomes = sink.deliver(&batch).await;
        assert!(Instant::now() < deadline, "not delivered at last: {:?}", told(&outcomes));
        let mut outcomes = outcomes.iter();
        batch.events.retain(|_| !matches!(outcomes.next(), Some(Outcome::Delivered { .. })));
    }
}

/// Text that does not get shorter by compressing.
pub fn noise(bytes: usize) -> String {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..bytes)
        .map(|_| {
            char::from(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"[(next() % 64) as usize])
        })
        .collect()
}

/// An event that is larger than a topic takes, compressed or not.
pub fn large_noise(id: &str, session: &str, bytes: usize) -> Event {
    let mut event = event_of_size(id, session, 0);
    event.data = serde_json::value::to_raw_value(&noise(bytes)).unwrap();
    event
}

/// How an outage looks.
#[derive(Clone, Copy, PartialEq)]
pub enum Outage {
    /// Every broker is gone.
    Killed,
    /// Brokers hold connections and answer nothing.
    Frozen,
    /// Too few replicas: nodes 2 and 3 are stopped.
    TooFewReplicas,
}

/// One topic of one cluster, for the conformance suite.
pub struct Destination<'k> {
    pub kafka: &'k Kafka,
    pub settings: String,
    pub format: Format,
    pub outage: Outage,
    pub poison: Option<usize>,
    reader: Reader,
    read: Mutex<Vec<Record>>,
}

impl<'k> Destination<'k> {
    pub fn new(kafka: &'k Kafka, topic: &str, more: &str, outage: Outage) -> Self {
        let is_transactional = more.contains("transactional = true");
        Self {
            kafka,
            settings: format!("topic = \"{topic}.{{action}}\"\n{more}"),
            format: Format::CloudEvents,
            outage,
            poison: None,
            reader: kafka.reader(&[&format!("{topic}.cdr")], is_transactional),
            read: Mutex::default(),
        }
    }
}

#[async_trait]
impl Harness for Destination<'_> {
    async fn fresh(&self) -> Arc<dyn Sink> {
        sink_of(&self.kafka.brokers(), &self.settings, self.format)
    }

    async fn read_back(&self) -> Vec<Received> {
        let mut read = self.read.lock().unwrap();
        read.extend(new_records(&self.reader));
        read.iter().map(|record| Received { id: record.id(), payload: record.value() }).collect()
    }

    async fn break_destination(&self) {
        match self.outage {
            Outage::Killed => self.kafka.kill(1),
            Outage::Frozen => self.kafka.freeze(1),
            Outage::TooFewReplicas => [2, 3].into_iter().for_each(|node| self.kafka.stop(node)),
        }
    }

    async fn mend_destination(&self) {
        match self.outage {
            Outage::Killed => self.kafka.restart(1),
            Outage::Frozen => self.kafka.thaw(1),
            Outage::TooFewReplicas => [2, 3].into_iter().for_each(|node| self.kafka.restart(node)),
        }
    }

    fn abilities(&self) -> Abilities {
        Abilities { recovery_time_max: Duration::from_secs(60), ..Abilities::default() }
    }

    fn poison_event(&self, id: &str, session: &str) -> Option<Event> {
        self.poison.map(|bytes| large_noise(id, session, bytes))
    }

    fn payload(&self, event: &Event) -> Bytes {
        if self.settings.contains("structured") {
            return event.payload(Format::CloudEvents);
        }
        match self.format {
            Format::Raw => event.raw.clone(),
            _ => event.payload(Format::Data),
        }
    }

    async fn held(&self) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let held = connections(&self.kafka.client_ports());
            if held.is_empty() || Instant::now() > deadline {
                return held;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// This process's connections to these ports of loopback.
fn connections(ports: &[u16]) -> Vec<String> {
    let mine: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok()?.to_str().map(str::to_owned))
        .collect();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let remote = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = u16::from_str_radix(fields[2].rsplit_once(':')?.1, 16).ok()?;
        let is_mine = mine.contains(&format!("socket:[{}]", fields[9]));
        (is_mine && ports.contains(&port)).then(|| format!("a connection to port {port}"))
    };
    table.lines().skip(1).filter_map(remote).collect()
}
