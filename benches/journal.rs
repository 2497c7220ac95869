//! Durable accepts of both journals, without HTTP: 1, 64 and 256 callers at a time, beside a plain write and sync of one push. Redis
//! runs beside it on the same machine, with `appendfsync always`.

mod common;

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jiff::Timestamp;
use test_servers::redis::{Program, Redis};
use tokio::runtime::Runtime;
use trunkline::journal::redis::{self, Durability, Mode, Place, RedisJournal};
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
async fn accept(journal: &Arc<dyn Journal>, first: u64, count: u64, callers: u64) {
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

/// A journal in `server`. Nobody reads it, so that at `size_max` the oldest entries make room.
async fn in_redis(server: &Redis) -> Arc<dyn Journal> {
    let place =
        Place { response_timeout: Duration::from_secs(5), ..Place::new(Mode::Standalone, vec![server.url().into()]) };
    let options = redis::Options {
        place,
        prefix: "bench".to_owned(),
        shards: 8,
        durability: Durability::Fsync,
        replicas: 0,
        replica_timeout: Duration::from_secs(1),
        allow_weaker: false,
        size_max: 4 << 30,
        dedup_window: Duration::from_secs(3600),
    };
    server.command(&["CONFIG", "SET", "maxmemory", "8gb"]);
    let (journal, tasks) = RedisJournal::open(options, Metrics::new().journal).await.expect("a journal");
    for (_name, task) in tasks {
        tokio::spawn(task);
    }
    journal
}

fn accepts(criterion: &mut Criterion) {
    let dir = tempfile::tempdir_in(".").expect("a folder on the project's disk");
    let runtime = Runtime::new().expect("a runtime");
    let journal: Arc<dyn Journal> = common::journal(dir.path(), &Metrics::new());
    let server = Redis::start_durable(Program::Redis);
    let in_redis = runtime.block_on(in_redis(&server));
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
        for journal in [&journal, &in_redis] {
            group.bench_function(format!("accept, {callers} callers, {}", journal.backend()), |bench| {
                bench.iter_custom(|count| {
                    let begun = Instant::now();
                    runtime.block_on(accept(journal, next, count, callers));
                    next += count;
                    begun.elapsed()
                });
            });
        }
    }
    group.finish();
    runtime.block_on(journal.close());
    runtime.block_on(in_redis.close());
}

criterion_group!(benches, accepts);
criterion_main!(benches);
