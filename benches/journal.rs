//! Durable accepts of the disk journal, without HTTP: 1, 64 and 256 callers at a time, beside a plain write and sync of one push.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jiff::Timestamp;
use tokio::runtime::Runtime;
use trunkline::journal::disk::{DiskJournal, Options};
use trunkline::journal::{Accepted, Journal, Push};
use trunkline::metrics::Metrics;
use trunkline::names::{PushId, SessionId, SourceName};

const BODY_SIZE: usize = 1_500;

fn push(number: u64) -> Push {
    Push {
        id: PushId::new(format!("push-{number}")),
        source: SourceName::from("main"),
        action: "cdr".to_owned(),
        version: Some("1".to_owned()),
        session: Some(SessionId::new(format!("session-{}", number % 997))),
        received_at: Timestamp::now(),
        traceparent: None,
        body: Bytes::from(vec![b'x'; BODY_SIZE]),
    }
}

/// `count` accepts by `callers` tasks that each wait for their answer before the next.
async fn accept(journal: &Arc<DiskJournal>, first: u64, count: u64, callers: u64) {
    let mut tasks = tokio::task::JoinSet::new();
    for caller in 0..callers {
        let journal = Arc::clone(journal);
        tasks.spawn(async move {
            for number in (caller..count).step_by(callers as usize) {
                let accepted = journal.accept(push(first + number)).await.expect("the journal takes it");
                assert!(matches!(accepted, Accepted::New { .. }));
            }
        });
    }
    tasks.join_all().await;
}

fn accepts(criterion: &mut Criterion) {
    let dir = tempfile::tempdir_in(".").expect("a folder on the project's disk");
    let runtime = Runtime::new().expect("a runtime");
    let options = Options {
        dir: dir.path().join("journal"),
        segment_size: 64 << 20,
        size_max: 64 << 30,
        reserve: 0,
        dedup_window: Duration::from_secs(3600),
    };
    let journal = DiskJournal::open(options, Metrics::new().journal).expect("a journal");
    let mut next = 0;
    let mut group = criterion.benchmark_group("journal");
    group.throughput(Throughput::Elements(1)).sample_size(10);
    group.bench_function("write and sync of one push", |bench| {
        let file = File::create(dir.path().join("plain")).expect("a file");
        let body = vec![b'x'; BODY_SIZE];
        bench.iter_custom(|count| {
            let begun = Instant::now();
            for at in 0..count {
                file.write_all_at(black_box(&body), at * BODY_SIZE as u64).expect("space");
                file.sync_data().expect("a sync");
            }
            begun.elapsed()
        });
    });
    for callers in [1, 64, 256] {
        group.bench_function(format!("accept, {callers} callers"), |bench| {
            bench.iter_custom(|count| {
                let begun = Instant::now();
                runtime.block_on(accept(&journal, next, count, callers));
                next += count;
                begun.elapsed()
            });
        });
    }
    group.finish();
    runtime.block_on(journal.close());
}

criterion_group!(benches, accepts);
criterion_main!(benches);
