//! What the benches that run pipelines over a disk journal share.

#![allow(dead_code, reason = "each bench uses a part of it")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use sink_api::{Batch, Outcome, Sink, Unavailable};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trunkline::journal::disk::{DiskJournal, Options};
use trunkline::journal::{Journal, Push};
use trunkline::metrics::Metrics;
use trunkline::names::{PushId, SessionId, SinkName, SourceName};
use trunkline::pipeline::{Pipeline, Status};

/// The kernel's unit of CPU time as `/proc` tells it: 100 a second on every Linux that Rust runs on.
const TICK: Duration = Duration::from_millis(10);

/// A journal under `dir` that never comes near a limit.
pub fn journal(dir: &Path, metrics: &Metrics) -> Arc<DiskJournal> {
    let options = Options {
        dir: dir.join("journal"),
        segment_size: 64 << 20,
        size_max: 64 << 30,
        reserve: 0,
        dedup_window: Duration::from_secs(3600),
    };
    DiskJournal::open(options, metrics.journal.clone()).expect("a journal")
}

/// A call record of one of so many sessions.
pub fn push(number: u64, sessions: u64) -> Push {
    let session = format!("session-{}", number % sessions);
    let body = include_str!("../../tests/samples/cdr-inbound-transfer.json");
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

/// Accepts `entries` pushes, so many at a time as there are callers.
pub async fn fill(journal: &Arc<dyn Journal>, entries: u64, sessions: u64, callers: u64) {
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let journal = Arc::clone(journal);
        tasks.spawn(async move {
            for number in (caller..entries).step_by(callers as usize) {
                journal.accept(push(number, sessions)).await.expect("the journal takes it");
            }
        });
    }
    tasks.join_all().await;
}

/// The pipeline of a sink with settings as they are by themselves, but for a short linger.
pub fn pipeline(name: SinkName, sink: Arc<dyn Sink>, journal: &Arc<dyn Journal>, metrics: &Metrics) -> Pipeline {
    let settings = toml::from_str("type = \"bench\"\nbatch = { linger = \"5ms\" }").expect("a sink's table");
    let (series, warnings) = (metrics.sink(&name), metrics.normalise_warnings.clone());
    Pipeline::new(name, &settings, sink, Arc::clone(journal), 0, series, warnings, Arc::new(Status::new()))
        .expect("no `when` and no mask")
}

/// Delivers all entries of `journal` to `sink`, which is registered as `name`.
pub async fn deliver(name: SinkName, sink: Arc<dyn Sink>, journal: &Arc<dyn Journal>, metrics: &Metrics, entries: u64) {
    let counted = Arc::new(Counted { sink, delivered: AtomicU64::new(0), entries, all: Notify::new() });
    let pipeline = pipeline(name, Arc::clone(&counted) as Arc<dyn Sink>, journal, metrics);
    let (stop, force) = (CancellationToken::new(), CancellationToken::new());
    let running = tokio::spawn(pipeline.run(stop.clone(), force));
    counted.all.notified().await;
    stop.cancel();
    running.await.expect("the pipeline ends");
    counted.sink.close().await;
}

/// A sink, with a count of what it delivered.
struct Counted {
    sink: Arc<dyn Sink>,
    delivered: AtomicU64,
    entries: u64,
    all: Notify,
}

#[async_trait]
impl Sink for Counted {
    async fn deliver(&self, batch: &Batch) -> Vec<Outcome> {
        let outcomes = self.sink.deliver(batch).await;
        let count = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Delivered { .. })).count() as u64;
        if self.delivered.fetch_add(count, Ordering::Relaxed) + count >= self.entries {
            self.all.notify_one();
        }
        outcomes
    }

    async fn probe(&self) -> Result<(), Unavailable> {
        self.sink.probe().await
    }
}

/// CPU time of this process.
pub fn own_cpu() -> Duration {
    cpu(11) + cpu(12)
}

/// Of children that have ended.
pub fn childrens_cpu() -> Duration {
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
