//! `cargo bench --bench deliver`: how fast a pipeline brings entries from the disk journal to a sink that costs nothing, beside a bare
//! loop that only reads and normalises the same entries. Both on one thread; prints events/s and the ratio of a few rounds.

mod common;

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use sink_api::{Batch, Outcome, Sink, Unavailable};
use tokio::runtime::Builder;
use trunkline::journal::{Item, Journal, ReadLimits, Start};
use trunkline::metrics::Metrics;
use trunkline::names::{Offset, SinkName};
use trunkline::tccc;

const ENTRIES: u64 = 100_000;
const SESSIONS: u64 = 5_000;
const ROUNDS: usize = 3;

/// Confirms everything at once.
struct Nowhere;

#[async_trait]
impl Sink for Nowhere {
    async fn deliver(&self, batch: &Batch) -> Vec<Outcome> {
        vec![Outcome::delivered(); batch.events.len()]
    }

    async fn probe(&self) -> Result<(), Unavailable> {
        Ok(())
    }
}

fn main() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let metrics = Metrics::new();
    let journal: Arc<dyn Journal> = common::journal(dir.path(), &metrics);
    Builder::new_multi_thread().enable_all().build().expect("a runtime").block_on(fill(&journal));

    let one_thread = Builder::new_current_thread().enable_all().build().expect("a runtime");
    println!("{ENTRIES} entries of {SESSIONS} sessions       bare/s   pipeline/s   RATIO");
    for round in 0..ROUNDS {
        let bare = per_second(|| one_thread.block_on(read_and_normalise(&journal)));
        let pipeline = per_second(|| {
            one_thread.block_on(common::deliver(sink_name(round), Arc::new(Nowhere), &journal, &metrics, ENTRIES));
        });
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

async fn fill(journal: &Arc<dyn Journal>) {
    // Entries are kept for whoever is registered.
    for round in 0..ROUNDS {
        journal.register_sink(&sink_name(round), Start::Oldest).await.expect("the journal is well");
    }
    common::fill(journal, ENTRIES, SESSIONS, 256).await;
}

async fn read_and_normalise(journal: &Arc<dyn Journal>) {
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
