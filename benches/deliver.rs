//! `cargo bench --bench deliver`: how fast a pipeline brings entries from the disk journal to a sink that costs nothing, beside a bare
//! loop that only reads and normalises the same entries. Both on one thread; prints events/s and the ratio of a few rounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use sink_api::{Batch, Outcome, Sink, Unavailable};
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

/// Confirms everything at once.
struct Nowhere {
    delivered: AtomicU64,
    all: Notify,
}

#[async_trait]
impl Sink for Nowhere {
    async fn deliver(&self, batch: &Batch) -> Vec<Outcome> {
        let count = batch.events.len();
        if self.delivered.fetch_add(count as u64, Ordering::Relaxed) + count as u64 >= ENTRIES {
            self.all.notify_one();
        }
        vec![Outcome::delivered(); count]
    }

    async fn probe(&self) -> Result<(), Unavailable> {
        Ok(())
    }
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
    Builder::new_multi_thread().enable_all().build().expect("a runtime").block_on(fill(&journal));

    let one_thread = Builder::new_current_thread().enable_all().build().expect("a runtime");
    println!("{ENTRIES} entries of {SESSIONS} sessions       bare/s   pipeline/s   RATIO");
    for round in 0..ROUNDS {
        let bare = per_second(|| one_thread.block_on(read_and_normalise(&journal)));
        let pipeline = per_second(|| deliver(&one_thread, &journal, &metrics, round));
        println!(
            "round {}                            {bare:>10.0} {pipeline:>12.0} {:>7.2}",
            round + 1,
            pipeline / bare
        );
    }
    one_thread.block_on(journal.close());
}

fn per_second(run: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    run();
    ENTRIES as f64 / begun.elapsed().as_secs_f64()
}

async fn fill(journal: &Arc<DiskJournal>) {
    let body = include_str!("../tests/samples/cdr-inbound-transfer.json");
    // Entries are kept for whoever is registered.
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

async fn read_and_normalise(journal: &Arc<DiskJournal>) {
    let limits = ReadLimits { events_max: 500, bytes_max: 1 << 20 };
    let (mut after, mut count) = (Offset::ZERO, 0);
    while count < ENTRIES {
        let page = journal.read(0, after, limits).await.expect("the journal reads");
        for item in &page.items {
            let Item::Entry(entry) = item else { panic!("a corrupt entry") };
            std::hint::black_box(tccc::normalise(&entry.push));
        }
        count += page.items.len() as u64;
        after = page.end;
    }
}

fn sink_name(round: usize) -> SinkName {
    SinkName::new(format!("nowhere-{round}"))
}

fn deliver(runtime: &Runtime, journal: &Arc<DiskJournal>, metrics: &Metrics, round: usize) {
    let name = sink_name(round);
    let settings: trunkline::config::model::Sink =
        toml::from_str("type = \"nowhere\"\nbatch = { linger = \"5ms\" }").expect("a sink's table");
    let sink = Arc::new(Nowhere { delivered: AtomicU64::new(0), all: Notify::new() });
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
    });
}
