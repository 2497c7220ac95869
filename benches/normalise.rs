//! What a push costs between the socket and a sink: reading its head, normalising it, judging and masking its event.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use jiff::Timestamp;
use trunkline::event::{Mask, Method, When};
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
    let event = normalise(&push).event;
    for (name, text) in [
        ("when_on_an_attribute", "type.startsWith('com.tencent.ccc.cdr') && pushsource == 'main'"),
        (
            "when_on_data",
            "data.direction == 'inbound' && data.participants.exists(p, p.email.endsWith('@example.com'))",
        ),
    ] {
        let when = When::compile(text).expect("an expression");
        group.bench_function(name, |bencher| bencher.iter(|| when.judge(&event)));
    }
    let path = |text: &str| text.parse().expect("a path");
    let mask = Mask::new([
        (path("caller"), Method::Last4),
        (path("callee"), Method::hmac(b"key")),
        (path("participants[].email"), Method::Drop),
    ]);
    group.bench_function("mask", |bencher| {
        bencher.iter_batched(|| event.clone(), |mut event| mask.apply(&mut event), BatchSize::SmallInput);
    });
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
