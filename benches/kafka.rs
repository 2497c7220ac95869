//! `cargo bench --bench kafka`: how fast entries of the disk journal get through a pipeline into Kafka, and what CPU that costs the
//! gateway, beside a bare librdkafka producer that is handed the same payloads, and beside Kafka's own performance tool. All on one
//! broker in one run; prints events/s, CPU per event and ratios of a few rounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use sink_api::{Batch, Context, Event, Format, Outcome, Sink, SinkKind as _, Unavailable};
use test_servers::kafka::{Kafka, java};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use trunkline::journal::disk::{DiskJournal, Options};
use trunkline::journal::{Item, Journal, Push, ReadLimits, Start};
use trunkline::metrics::Metrics;
use trunkline::names::{Offset, PushId, SessionId, SinkName, SourceName};
use trunkline::pipeline::{Pipeline, Status};
use trunkline::tccc;

const ENTRIES: u64 = 100_000;
const SESSIONS: u64 = 5_000;
const ROUNDS: usize = 3;

/// Linux counts CPU time of a process in hundredths of a second (`proc_pid_stat(5)`, USER_HZ).
const MICROS_PER_TICK: f64 = 10_000.0;

/// The sink, with a count of what it delivered.
struct Counted {
    sink: Arc<dyn Sink>,
    delivered: AtomicU64,
    all: Notify,
}

#[async_trait]
impl Sink for Counted {
    async fn deliver(&self, batch: &Batch) -> Vec<Outcome> {
        let outcomes = self.sink.deliver(batch).await;
        let count = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Delivered { .. })).count() as u64;
        if self.delivered.fetch_add(count, Ordering::Relaxed) + count >= ENTRIES {
            self.all.notify_one();
        }
        outcomes
    }

    async fn probe(&self) -> Result<(), Unavailable> {
        self.sink.probe().await
    }
}

/// What one way cost.
struct Cost {
    per_second: f64,
    micros_per_event: f64,
}

fn main() {
    let kafka = Kafka::start(1);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let metrics = Metrics::new();
    let options = Options {
        dir: dir.path().join("journal"),
        segment_size: 64 << 20,
        size_max: 64 << 30,
        reserve: 0,
        dedup_window: Duration::from_secs(3600),
    };
    let journal = DiskJournal::open(options, metrics.journal.clone()).expect("a journal");
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
    let (begun, ticks) = (Instant::now(), cpu_ticks());
    run();
    let micros = (cpu_ticks() - ticks) as f64 * MICROS_PER_TICK;
    Cost { per_second: ENTRIES as f64 / begun.elapsed().as_secs_f64(), micros_per_event: micros / ENTRIES as f64 }
}

/// User and system time of this process.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name in brackets").1.split(' ').collect();
    fields[11].parse::<u64>().expect("ticks") + fields[12].parse::<u64>().expect("ticks")
}

async fn fill(journal: &Arc<DiskJournal>) {
    let body = include_str!("../tests/samples/cdr-inbound-transfer.json");
    for round in 0..ROUNDS {
        journal.register_sink(&sink_name(round), Start::Oldest).await.expect("the journal is well");
    }
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..256 {
        let journal = Arc::clone(journal);
        callers.spawn(async move {
            for number in (caller..ENTRIES).step_by(256) {
                let session = format!("session-{}", number % SESSIONS);
                let push = Push {
                    id: PushId::new(format!("push-{number}")),
                    source: SourceName::from("main"),
                    action: "cdr".to_owned(),
                    version: None,
                    session: Some(SessionId::new(session.clone())),
                    received_at: Timestamp::now(),
                    traceparent: None,
                    body: Bytes::from(body.replace("7d7d6f02-3f7e-4a0c-b0f0-6a2f4a9b1c55", &session)),
                };
                journal.accept(push).await.expect("the journal takes it");
            }
        });
    }
    callers.join_all().await;
}

async fn read_all(journal: &Arc<DiskJournal>) -> Vec<Event> {
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

fn deliver(runtime: &Runtime, brokers: &str, journal: &Arc<DiskJournal>, metrics: &Metrics, round: usize) {
    let name = sink_name(round);
    let settings: trunkline::config::model::Sink =
        toml::from_str("type = \"kafka\"\nbatch = { linger = \"5ms\" }").expect("a sink's table");
    let own = toml::from_str(&format!("brokers = \"{brokers}\"\ntopic = \"journal-{round}\"")).expect("settings");
    let context = Context { name: name.to_string(), format: Format::CloudEvents };
    let sink = sink_kafka::Kafka::build(own, context).expect("a sink");
    let sink = Arc::new(Counted { sink, delivered: AtomicU64::new(0), all: Notify::new() });
    let pipeline = Pipeline::new(
        name.clone(),
        &settings,
        Arc::clone(&sink) as Arc<dyn Sink>,
        Arc::clone(journal) as Arc<dyn Journal>,
        0,
        metrics.sink(&name),
        metrics.normalise_warnings.clone(),
        Arc::new(Status::new()),
    )
    .expect("settings without a mask");
    runtime.block_on(async {
        let (stop, force) = (CancellationToken::new(), CancellationToken::new());
        let running = tokio::spawn(pipeline.run(stop.clone(), force));
        sink.all.notified().await;
        stop.cancel();
        running.await.expect("the pipeline ends");
        sink.sink.close().await;
    });
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
