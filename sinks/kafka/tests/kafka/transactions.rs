//! Transactions on a real broker: positions, owners that change, and what a consumer of committed records sees.

use std::sync::Arc;

use sink_api::conformance::{batch, event, poll_at_most};
use sink_api::{Batch, Origin, Sink};

use crate::harness::{deliver_at_last, large_noise, new_records, numbered, shared, sink, told};

fn exact(topic: &str, prefix: &str, journal: &str) -> Arc<dyn Sink> {
    let properties = "properties = { \"message.timeout.ms\" = 20000 }";
    let sink = sink(&shared().brokers(), &format!("topic = \"{topic}\"\ntransactional = true\n{properties}"));
    sink.belong_to(&Origin { prefix: prefix.into(), journal: journal.into() });
    sink
}

fn at(shard: u16, first: u64, ids: &[&str]) -> Batch {
    batch(shard, first, ids.iter().map(|id| event(id, "s")).collect())
}

fn committed(topic: &str) -> Vec<String> {
    new_records(&shared().reader(&[topic], true)).iter().map(|record| record.id()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_outlive_the_sink_and_replays_do_not_move_them_back() {
    let kafka = shared();
    kafka.create_topic("positions", 2, 1, &[]);
    let first = exact("positions", "positions", "j1");
    assert_eq!(first.resume(0).await, Ok(None));
    assert_eq!(told(&first.deliver(&at(0, 10, &["a", "b"])).await), ["delivered"; 2]);
    assert_eq!(told(&first.deliver(&at(0, 3, &["replayed"])).await), ["delivered"]);
    assert_eq!(told(&first.deliver(&at(1, 77, &["other-shard"])).await), ["delivered"]);
    first.close().await;

    let second = exact("positions", "positions", "j1");
    assert_eq!(second.resume(0).await, Ok(Some(11)));
    assert_eq!(second.resume(1).await, Ok(Some(77)));
    second.close().await;
    // A journal that was made anew has other offsets, and nothing of it is passed over.
    let anew = exact("positions", "positions", "j2");
    assert_eq!(anew.resume(0).await, Ok(None));
    anew.close().await;

    assert_eq!(kafka.setting("positions.checkpoints", "cleanup.policy"), "compact");
    let mut seen = committed("positions");
    seen.sort();
    assert_eq!(seen, ["a", "b", "other-shard", "replayed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_over_a_shard_fences_its_earlier_owner() {
    shared().create_topic("takeover", 1, 1, &[]);
    let (old, new) = (exact("takeover", "takeover", "j"), exact("takeover", "takeover", "j"));
    assert_eq!(told(&old.deliver(&at(0, 1, &["a"])).await), ["delivered"]);
    assert_eq!(new.resume(0).await, Ok(Some(1)));
    assert_eq!(told(&old.deliver(&at(0, 2, &["b"])).await), ["away fenced"]);
    assert_eq!(
        told(&old.deliver(&at(0, 2, &["b"])).await),
        ["away fenced"],
        "it does not take the shard back by itself"
    );
    assert_eq!(told(&new.deliver(&at(0, 2, &["b"])).await), ["delivered"]);
    // Once its pipeline has the lease again.
    assert_eq!(old.resume(0).await, Ok(Some(2)));
    assert_eq!(told(&old.deliver(&at(0, 3, &["c"])).await), ["delivered"]);
    old.close().await;
    new.close().await;
    assert_eq!(committed("takeover"), ["a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_stops_before_an_event_that_is_refused() {
    shared().create_topic("stops", 1, 1, &["max.message.bytes=20000"]);
    let sink = exact("stops", "stops", "j");
    let mut events: Vec<_> = (0..4).map(|n| large_noise(&format!("e-{n}"), &format!("s-{n}"), 3_000)).collect();
    events[2] = large_noise("e-2", "s-2", 30_000);
    let outcomes = told(&sink.deliver(&batch(0, 1, events)).await);
    assert_eq!(outcomes[..2], ["delivered", "delivered"]);
    assert_eq!(outcomes[2], "rejected message-size-too-large");
    assert_eq!(outcomes[3], "patience behind", "the position must not pass an event that is not settled yet");
    assert_eq!(sink.resume(0).await, Ok(Some(2)));
    sink.close().await;
    assert_eq!(committed("stops"), ["e-0", "e-1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_dropped_is_known_to_the_next_resume() {
    shared().create_topic("dropped", 1, 1, &[]);
    let sink = exact("dropped", "dropped", "j");
    assert_eq!(sink.resume(0).await, Ok(None));
    let mut next = 1;
    for round in 0..5 {
        let batch = at(0, next, &[&format!("r{round}-a"), &format!("r{round}-b")]);
        assert!(poll_at_most(1, sink.deliver(&batch)).await.is_none());
        // It waits for what was begun, and says how that ended.
        assert_eq!(sink.resume(0).await, Ok(Some(next + 1)));
        next += 2;
    }
    sink.close().await;
    assert_eq!(committed("dropped").len(), 10, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_topic_leaves_no_transaction_open() {
    let sink = exact("missing", "missing", "j");
    let outcomes = told(&sink.deliver(&numbered("missing", 2)).await);
    assert!(outcomes.iter().all(|word| word.starts_with("away unknown-topic")), "{outcomes:?}");
    shared().create_topic("missing", 1, 1, &[]);
    deliver_at_last(&*sink, numbered("missing", 2)).await;
    sink.close().await;
    assert_eq!(committed("missing"), ["missing-0", "missing-1"]);
}
