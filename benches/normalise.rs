//! What a push costs between the socket and a sink: reading its head, and normalising it.

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jiff::Timestamp;
use trunkline::journal::Push;
use trunkline::names::{PushId, SourceName};
use trunkline::tccc::{normalise, read_head};

fn benches(criterion: &mut Criterion) {
    let body = Bytes::from_static(include_bytes!("../tests/samples/cdr-inbound-transfer.json"));
    let push = Push {
        id: PushId::from("p-1"),
        source: SourceName::from("main"),
        action: "cdr".to_owned(),
        version: Some("1".to_owned()),
        session: None,
        received_at: Timestamp::UNIX_EPOCH,
        traceparent: None,
        body: body.clone(),
    };
    let mut group = criterion.benchmark_group("cdr");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("read_head", |bencher| bencher.iter(|| read_head(&body)));
    group.bench_function("normalise", |bencher| bencher.iter(|| normalise(&push)));
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
