//! `cargo bench --bench amqp`: how fast a pipeline brings entries from the disk journal to RabbitMQ, beside RabbitMQ's own load
//! generator on the same broker: both persistent, mandatory and confirmed, into a quorum queue, with bodies of the same size and the
//! same number of unconfirmed messages. Prints messages/s, CPU per message and the ratios of a few rounds.
//!
//! `tests/servers/install perf_test` brings the generator, which needs Java. Its CPU has the start of the Java machine in it.

mod common;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{childrens_cpu, own_cpu, push};
use sink_api::{Context, Format, SinkKind as _};
use test_servers::process::installed;
use test_servers::rabbitmq::RabbitMq;
use tokio::runtime::{Builder, Runtime};
use trunkline::journal::{Journal, Start};
use trunkline::metrics::Metrics;
use trunkline::names::SinkName;
use trunkline::tccc;

const ENTRIES: u64 = 50_000;
const SESSIONS: u64 = 5_000;
const ROUNDS: usize = 3;
const UNCONFIRMED_MAX: u32 = 1_000;

struct Run {
    per_second: f64,
    cpu_micros: f64,
}

fn main() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let metrics = Metrics::new();
    let journal: Arc<dyn Journal> = common::journal(dir.path(), &metrics);
    let runtime = Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(fill(&journal));
    let body_size = tccc::normalise(&push(0, SESSIONS)).event.payload(Format::Data).len();
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

async fn fill(journal: &Arc<dyn Journal>) {
    // Entries are kept for whoever is registered.
    for round in 1..=ROUNDS {
        journal.register_sink(&sink_name(round), Start::Oldest).await.expect("the journal is well");
    }
    common::fill(journal, ENTRIES, SESSIONS, 256).await;
}

fn sink_name(round: usize) -> SinkName {
    SinkName::new(format!("queue-{round}"))
}

fn gateway(runtime: &Runtime, broker: &RabbitMq, journal: &Arc<dyn Journal>, metrics: &Metrics, round: usize) -> Run {
    let name = sink_name(round);
    let settings = format!(
        "url = \"{}\"\nexchange = \"\"\nrouting_key = \"{name}\"\nunconfirmed_max = {UNCONFIRMED_MAX}\ndeclare = {{ queue = \"{name}\" }}",
        broker.url()
    );
    let context = Context { name: name.to_string(), format: Format::CloudEvents };
    let settings = toml::from_str(&settings).expect("settings of a sink");
    let sink = sink_amqp::Amqp::build(settings, context).expect("a sink");
    let (begun, cpu) = (Instant::now(), own_cpu());
    runtime.block_on(common::deliver(name.clone(), sink, journal, metrics, ENTRIES));
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
