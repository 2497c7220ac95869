//! `cargo bench --bench amqp`: how fast a pipeline brings entries from the disk journal to RabbitMQ, beside RabbitMQ's own load
//! generator on the same broker: both persistent, mandatory and confirmed, into a quorum queue, with bodies of the same size and the
//! same number of unconfirmed messages. Prints messages/s, CPU per message and the ratios of a few rounds.
//!
//! `tests/servers/install perf_test` brings the generator, which needs Java. Its CPU has the start of the Java machine in it.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use sink_api::{Context, Format, SinkKind as _};
use test_servers::process::installed;
use test_servers::rabbitmq::RabbitMq;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use trunkline::journal::disk::{DiskJournal, Options};
use trunkline::journal::{Journal, Push, Start};
use trunkline::metrics::Metrics;
use trunkline::names::{PushId, SessionId, SinkName, SourceName};
use trunkline::pipeline::{Pipeline, Status};
use trunkline::tccc;

const ENTRIES: u64 = 50_000;
const SESSIONS: u64 = 5_000;
const ROUNDS: usize = 3;
const UNCONFIRMED_MAX: u32 = 1_000;

/// The kernel's unit of CPU time as `/proc` tells it: 100 a second on every Linux that Rust runs on.
const TICK: Duration = Duration::from_millis(10);

struct Run {
    per_second: f64,
    cpu_micros: f64,
}

fn main() {
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
    let body_size = tccc::normalise(&push(0)).event.payload(Format::Data).len();
    let broker = RabbitMq::start();

    println!(
        "{ENTRIES} messages of {body_size} B       gateway/s   µs CPU   perf-test/s   µs CPU   RATIO/s   RATIO CPU"
    );
    for round in 1..=ROUNDS {
        let gateway = gateway(&runtime, &broker, &journal, &metrics, round);
        let yardstick = perf_test(&broker, body_size, round);
        println!(
            "round {round}                        {:>10.0} {:>8.1} {:>13.0} {:>8.1} {:>9.2} {:>11.2}",
            gateway.per_second,
            gateway.cpu_micros,
            yardstick.per_second,
            yardstick.cpu_micros,
            gateway.per_second / yardstick.per_second,
            gateway.cpu_micros / yardstick.cpu_micros
        );
    }
    runtime.block_on(journal.close());
}

fn push(number: u64) -> Push {
    let body = include_str!("../tests/samples/cdr-inbound-transfer.json");
    let session = format!("session-{}", number % SESSIONS);
    Push {
        id: PushId::new(format!("push-{number}")),
        source: SourceName::from("main"),
        action: "cdr".to_owned(),
        version: None,
        session: Some(SessionId::new(session.clone())),
        received_at: Timestamp::now(),
        traceparent: None,
        body: Bytes::from(body.replace("7d7d6f02-3f7e-4a0c-b0f0-6a2f4a9b1c55", &session)),
    }
}

async fn fill(journal: &Arc<DiskJournal>) {
    // Entries are kept for whoever is registered.
    for round in 1..=ROUNDS {
        journal.register_sink(&sink_name(round), Start::Oldest).await.expect("the journal is well");
    }
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..256 {
        let journal = Arc::clone(journal);
        callers.spawn(async move {
            for number in (caller..ENTRIES).step_by(256) {
                journal.accept(push(number)).await.expect("the journal takes it");
            }
        });
    }
    callers.join_all().await;
}

fn sink_name(round: usize) -> SinkName {
    SinkName::new(format!("queue-{round}"))
}

fn gateway(runtime: &Runtime, broker: &RabbitMq, journal: &Arc<DiskJournal>, metrics: &Metrics, round: usize) -> Run {
    let name = sink_name(round);
    let table: trunkline::config::model::Sink =
        toml::from_str("type = \"amqp\"\nbatch = { linger = \"5ms\" }").expect("a sink's table");
    let settings = format!(
        "url = \"{}\"\nexchange = \"\"\nrouting_key = \"{name}\"\nunconfirmed_max = {UNCONFIRMED_MAX}\ndeclare = {{ queue = \"{name}\" }}",
        broker.url()
    );
    let context = Context { name: name.to_string(), format: Format::CloudEvents };
    let settings = toml::from_str(&settings).expect("settings of a sink");
    let sink = sink_amqp::Amqp::build(settings, context).expect("a sink");
    let status = Arc::new(Status::new());
    let pipeline = Pipeline::new(
        name.clone(),
        &table,
        sink,
        Arc::clone(journal) as Arc<dyn Journal>,
        0,
        metrics.sink(&name),
        metrics.normalise_warnings.clone(),
        status,
    )
    .expect("settings without a mask");
    let delivered = metrics.sink(&name).delivered;
    let (begun, cpu) = (Instant::now(), own_cpu());
    runtime.block_on(async {
        let (stop, force) = (CancellationToken::new(), CancellationToken::new());
        let running = tokio::spawn(pipeline.run(stop.clone(), force));
        while delivered.get() < ENTRIES {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.cancel();
        running.await.expect("the pipeline ends");
    });
    let run = Run::over(begun, own_cpu() - cpu);
    broker.ctl(&["delete_queue", name.as_str()]);
    run
}

/// The same load by RabbitMQ's generator, whose own measure of its rate leaves its start out.
fn perf_test(broker: &RabbitMq, body_size: usize, round: usize) -> Run {
    let (jars, queue) = (installed("perf-test"), format!("perf-{round}"));
    let cpu = childrens_cpu();
    let output = Command::new("java")
        .arg("-cp")
        .arg(format!("{}/*", jars.display()))
        .arg("com.rabbitmq.perf.PerfTest")
        .args(["--uri", &broker.url(), "--producers", "1", "--consumers", "0", "--quorum-queue", "--queue", &queue])
        .args(["--size", &body_size.to_string(), "--confirm", &UNCONFIRMED_MAX.to_string()])
        .args(["--pmessages", &ENTRIES.to_string(), "--flag", "persistent", "--flag", "mandatory"])
        .output()
        .expect("java starts");
    let cpu = childrens_cpu() - cpu;
    let said = String::from_utf8_lossy(&output.stdout);
    let rate = said.split("sending rate avg: ").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    let complaint = String::from_utf8_lossy(&output.stderr);
    let per_second = rate.unwrap_or_else(|| panic!("perf-test tells no rate: {said}{complaint}"));
    broker.ctl(&["delete_queue", &queue]);
    Run { per_second, cpu_micros: cpu.as_secs_f64() * 1e6 / ENTRIES as f64 }
}

impl Run {
    fn over(begun: Instant, cpu: Duration) -> Self {
        let messages = ENTRIES as f64;
        Self { per_second: messages / begun.elapsed().as_secs_f64(), cpu_micros: cpu.as_secs_f64() * 1e6 / messages }
    }
}

fn own_cpu() -> Duration {
    cpu(11) + cpu(12)
}

/// Of children that have ended.
fn childrens_cpu() -> Duration {
    cpu(13) + cpu(14)
}

/// A field of `/proc/self/stat`, counted behind the name of the program: see proc(5).
fn cpu(field: usize) -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc is there");
    let (_, fields) = stat.rsplit_once(')').expect("the name stands in parentheses");
    let ticks: u32 =
        fields.split_whitespace().nth(field).and_then(|text| text.parse().ok()).expect("a number of ticks");
    TICK * ticks
}
