//! `cargo bench --bench isolation`: what a dead sink costs the others. A healthy `file` sink alone, and beside one that hangs and one
//! that fails every event, each on a journal of its own: events/s when pushes come as fast as they can, and delivery lag when they
//! come at a steady rate. Prints both and their ratios, a few rounds in one run.

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use common::{fill, pipeline, push};
use hdrhistogram::Histogram;
use jiff::Timestamp;
use sink_api::{Batch, Context, Fault, Format, Outcome, Sink, SinkKind, Unavailable};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trunkline::journal::{Journal, Start};
use trunkline::metrics::Metrics;
use trunkline::names::SinkName;

const ENTRIES: u64 = 40_000;
const SESSIONS: u64 = 2_000;
const CALLERS: u64 = 64;
/// Pushes a second, and how many, when the lag is measured.
const STEADY: (u64, u64) = (1_000, 5_000);
const ROUNDS: usize = 3;

/// Delivers through `inner`, and notes when.
struct Healthy {
    inner: Arc<dyn Sink>,
    delivered: AtomicU64,
    expected: u64,
    all: Notify,
    lags_us: Mutex<Histogram<u64>>,
}

#[async_trait]
impl Sink for Healthy {
    async fn deliver(&self, batch: &Batch) -> Vec<Outcome> {
        let outcomes = self.inner.deliver(batch).await;
        let now = Timestamp::now();
        let mut lags = self.lags_us.lock().expect("no panic while locked");
        for event in &batch.events {
            let lag = now.duration_since(event.event.recordedtime).as_micros();
            lags.record(u64::try_from(lag).unwrap_or(0)).expect("it grows as needed");
        }
        drop(lags);
        let count = batch.events.len() as u64;
        if self.delivered.fetch_add(count, Ordering::Relaxed) + count >= self.expected {
            self.all.notify_one();
        }
        outcomes
    }

    async fn probe(&self) -> Result<(), Unavailable> {
        self.inner.probe().await
    }
}

struct Hanging;

#[async_trait]
impl Sink for Hanging {
    async fn deliver(&self, _batch: &Batch) -> Vec<Outcome> {
        std::future::pending().await
    }

    async fn probe(&self) -> Result<(), Unavailable> {
        Ok(())
    }
}

/// As a receiver that answers every event with 500.
struct Failing;

#[async_trait]
impl Sink for Failing {
    async fn deliver(&self, batch: &Batch) -> Vec<Outcome> {
        batch.events.iter().map(|_| Outcome::retry(Fault::new("http-500", "the endpoint answers 500"))).collect()
    }

    async fn probe(&self) -> Result<(), Unavailable> {
        Ok(())
    }
}

struct Figures {
    per_second: f64,
    lag_p50_ms: f64,
    lag_p99_ms: f64,
}

#[tokio::main]
async fn main() {
    println!("{ENTRIES} pushes at once, then {} at {}/s      events/s   lag p50 ms   lag p99 ms", STEADY.1, STEADY.0);
    for round in 1..=ROUNDS {
        let alone = measure(false).await;
        let beside = measure(true).await;
        for (name, figures) in [("alone", &alone), ("beside dead sinks", &beside)] {
            println!(
                "round {round}  {name:<36} {:>10.0} {:>12.2} {:>12.2}",
                figures.per_second, figures.lag_p50_ms, figures.lag_p99_ms
            );
        }
        println!(
            "round {round}  {:<36} {:>10.2} {:>12.2} {:>12.2}",
            "RATIO",
            beside.per_second / alone.per_second,
            beside.lag_p50_ms / alone.lag_p50_ms,
            beside.lag_p99_ms / alone.lag_p99_ms
        );
    }
}

async fn measure(with_dead_sinks: bool) -> Figures {
    let (seconds, _) = run(with_dead_sinks, ENTRIES, None).await;
    let (_, lags) = run(with_dead_sinks, STEADY.1, Some(STEADY.0)).await;
    let millis = |quantile| lags.value_at_quantile(quantile) as f64 / 1e3;
    Figures { per_second: ENTRIES as f64 / seconds, lag_p50_ms: millis(0.5), lag_p99_ms: millis(0.99) }
}

/// Accepts `entries` pushes and waits until the healthy sink has them: seconds, and lags in microseconds.
async fn run(with_dead_sinks: bool, entries: u64, per_second: Option<u64>) -> (f64, Histogram<u64>) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let metrics = Metrics::new();
    let journal: Arc<dyn Journal> = common::journal(dir.path(), &metrics);
    let settings = toml::from_str(&format!("path = {:?}", dir.path().join("events.ndjson"))).expect("settings");
    let context = Context { name: "healthy".to_owned(), format: Format::CloudEvents };
    let healthy = Arc::new(Healthy {
        inner: sink_file::File::build(settings, context).expect("a file sink"),
        delivered: AtomicU64::new(0),
        expected: entries,
        all: Notify::new(),
        lags_us: Mutex::new(Histogram::new(3).expect("three digits")),
    });
    let mut sinks: Vec<(&str, Arc<dyn Sink>)> = vec![("healthy", Arc::clone(&healthy) as Arc<dyn Sink>)];
    if with_dead_sinks {
        sinks.extend([("hanging", Arc::new(Hanging) as Arc<dyn Sink>), ("failing", Arc::new(Failing))]);
    }
    let (stop, force) = (CancellationToken::new(), CancellationToken::new());
    let mut pipelines = JoinSet::new();
    for (name, sink) in sinks {
        let name = SinkName::from(name);
        journal.register_sink(&name, Start::Oldest).await.expect("the journal is well");
        pipelines.spawn(pipeline(name, sink, &journal, &metrics).run(stop.clone(), force.clone()));
    }
    let begun = Instant::now();
    match per_second {
        None => fill(&journal, entries, SESSIONS, CALLERS).await,
        Some(per_second) => trickle(&journal, entries, per_second).await,
    }
    healthy.all.notified().await;
    let seconds = begun.elapsed().as_secs_f64();
    force.cancel();
    pipelines.join_all().await;
    journal.close().await;
    let lags = healthy.lags_us.lock().expect("no panic while locked").clone();
    (seconds, lags)
}

async fn trickle(journal: &Arc<dyn Journal>, entries: u64, per_second: u64) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(per_second).expect("a small number"));
    let mut accepts = JoinSet::new();
    for number in 0..entries {
        ticks.tick().await;
        let journal = Arc::clone(journal);
        accepts.spawn(async move { journal.accept(push(number, SESSIONS)).await.expect("the journal takes it") });
    }
    accepts.join_all().await;
}
