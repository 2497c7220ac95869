//! `cargo bench --bench kafka`: how fast entries of the disk journal get through a pipeline into Kafka, and what CPU that costs the
//! gateway, beside a bare librdkafka producer that is handed the same payloads, and beside Kafka's own performance tool. All on one
//! broker in one run; prints events/s, CPU per event and ratios of a few rounds.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::own_cpu;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use sink_api::{Context, Event, Format, SinkKind as _};
use test_servers::kafka::{Kafka, java};
use tokio::runtime::{Builder, Runtime};
use trunkline::journal::{Item, Journal, ReadLimits, Start};
use trunkline::metrics::Metrics;
use trunkline::names::{Offset, SinkName};
use trunkline::tccc;

const ENTRIES: u64 = 100_000;
const SESSIONS: u64 = 5_000;
const ROUNDS: usize = 3;

/// What one way cost.
struct Cost {
    per_second: f64,
    micros_per_event: f64,
}

fn main() {
    let kafka = Kafka::start(1);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let metrics = Metrics::new();
    let journal: Arc<dyn Journal> = common::journal(dir.path(), &metrics);
    let runtime = Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(fill(&journal));
    let events = runtime.block_on(read_all(&journal));
    let payload_bytes = events[0].data.get().len();

    println!("{ENTRIES} events of {payload_bytes} bytes, {SESSIONS} sessions, one broker, acks=all, idempotent, zstd");
    println!(
        "                  events/s   CPU us/event   events/s/core   ratio of CPU to bare   ratio of events/s to the tool"
    );
    for round in 0..ROUNDS {
        for topic in ["bare", "journal", "tool"] {
            kafka.create_topic(&format!("{topic}-{round}"), 6, 1, &[]);
        }
        let bare = cost(|| produce(&kafka.brokers(), &format!("bare-{round}"), &events));
        let ours = cost(|| deliver(&runtime, &kafka.brokers(), &journal, &metrics, round));
        let tool = tool(&kafka.brokers(), &format!("tool-{round}"), &events, dir.path());
        show("bare librdkafka", &bare, None);
        show("journal to sink", &ours, Some((ours.micros_per_event / bare.micros_per_event, ours.per_second / tool)));
        println!("Kafka's own tool {tool:>10.0}");
    }
    runtime.block_on(journal.close());
}

fn show(what: &str, cost: &Cost, ratios: Option<(f64, f64)>) {
    let Cost { per_second, micros_per_event } = cost;
    let per_core = 1e6 / micros_per_event;
    let ratios = ratios.map_or(String::new(), |(cpu, tool)| format!("{cpu:>22.2} {tool:>31.2}"));
    println!("{what} {per_second:>11.0} {micros_per_event:>14.1} {per_core:>15.0} {ratios}");
}

fn cost(run: impl FnOnce()) -> Cost {
    let (begun, cpu) = (Instant::now(), own_cpu());
    run();
    let micros = (own_cpu() - cpu).as_secs_f64() * 1e6;
    Cost { per_second: ENTRIES as f64 / begun.elapsed().as_secs_f64(), micros_per_event: micros / ENTRIES as f64 }
}

async fn fill(journal: &Arc<dyn Journal>) {
    // Entries are kept for whoever is registered.
    for round in 0..ROUNDS {
        journal.register_sink(&sink_name(round), Start::Oldest).await.expect("the journal is well");
    }
    common::fill(journal, ENTRIES, SESSIONS, 256).await;
}

async fn read_all(journal: &Arc<dyn Journal>) -> Vec<Event> {
    let limits = ReadLimits { events_max: 500, bytes_max: 1 << 20 };
    let (mut after, mut events) = (Offset::ZERO, Vec::new());
    while (events.len() as u64) < ENTRIES {
        let page = journal.read(0, after, limits).await.expect("the journal reads");
        for item in &page.items {
            let Item::Entry(entry) = item else { panic!("a corrupt entry") };
            events.push(tccc::normalise(&entry.push).event);
        }
        after = page.end;
    }
    events
}

/// Hands records to librdkafka as fast as it takes them.
fn produce(brokers: &str, topic: &str, events: &[Event]) {
    struct Confirmed(AtomicU64);
    impl ClientContext for Confirmed {}
    impl ProducerContext for Confirmed {
        type DeliveryOpaque = ();
        fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
            self.0.fetch_add(u64::from(result.is_ok()), Ordering::Relaxed);
        }
    }
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("acks", "all").set("enable.idempotence", "true");
    config.set("compression.type", "zstd").set("linger.ms", "5");
    let producer: ThreadedProducer<Confirmed> =
        config.create_with_context(Confirmed(AtomicU64::new(0))).expect("a producer");
    for event in events {
        let mut record = BaseRecord::to(topic).key(&event.partitionkey).payload(event.data.get());
        while let Err((error, unsent)) = producer.send(record) {
            assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            producer.poll(Duration::from_millis(1));
            record = unsent;
        }
    }
    producer.flush(Duration::from_secs(60)).expect("all are confirmed");
    while producer.context().0.load(Ordering::Relaxed) < ENTRIES {
        producer.poll(Duration::from_millis(1));
    }
}

fn sink_name(round: usize) -> SinkName {
    SinkName::new(format!("kafka-{round}"))
}

fn deliver(runtime: &Runtime, brokers: &str, journal: &Arc<dyn Journal>, metrics: &Metrics, round: usize) {
    let name = sink_name(round);
    let own = toml::from_str(&format!("brokers = \"{brokers}\"\ntopic = \"journal-{round}\"")).expect("settings");
    let context = Context { name: name.to_string(), format: Format::CloudEvents };
    let sink = sink_kafka::Kafka::build(own, context).expect("a sink");
    runtime.block_on(common::deliver(name, sink, journal, metrics, ENTRIES));
}

/// Kafka's own performance tool with the same payloads; records/s, the JVM's start left out.
fn tool(brokers: &str, topic: &str, events: &[Event], dir: &std::path::Path) -> f64 {
    let payloads = dir.join("payloads");
    let lines: Vec<&str> = events.iter().take(10_000).map(|event| event.data.get()).collect();
    std::fs::write(&payloads, lines.join("\n")).expect("a file");
    let output = java(512, "org.apache.kafka.tools.ProducerPerformance")
        .args(["--topic", topic, "--num-records", &ENTRIES.to_string(), "--throughput", "-1", "--payload-file"])
        .arg(payloads)
        .args(["--producer-props", &format!("bootstrap.servers={brokers}"), "acks=all", "enable.idempotence=true"])
        .args(["compression.type=zstd", "linger.ms=5", "batch.size=1000000"])
        .output()
        .expect("java starts");
    let text = String::from_utf8_lossy(&output.stdout);
    // "100000 records sent, 53333.3 records/sec (…"
    let line = text.lines().rev().find(|line| line.contains("records/sec")).unwrap_or_default();
    let before = line.split(" records/sec").next().unwrap_or_default();
    let rate = before.rsplit(' ').next().and_then(|rate| rate.replace(',', ".").parse().ok());
    rate.unwrap_or_else(|| panic!("the tool says {text} {}", String::from_utf8_lossy(&output.stderr)))
}
