//! Many replicas over one Redis: shards are shared and move, a paused owner settles nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use test_servers::redis::{Program, Redis};

use crate::support::{Gateway, GatewayBuilder, Outcome, Receiver, Sender, cdr, eventually, folder};

pub(crate) const SHARDS: usize = 8;

/// A replica whose journal is in `redis` and whose only sink, `events`, is `sink`.
pub(crate) fn replica(dir: &TempDir, redis: &Redis, sink: &str) -> GatewayBuilder {
    let journal = format!("[journal]\nbackend = \"redis\"\nredis.url = {:?}\nredis.shards = {SHARDS}", redis.url());
    GatewayBuilder::new(dir.path()).config(&journal).sinks(sink)
}

/// How many shards of `events` each owner has, by what `gateway` knows; `nobody` counts as one.
async fn owners(gateway: &Gateway) -> BTreeMap<String, usize> {
    let mut owners = BTreeMap::new();
    for shard in gateway.status().await["sinks"]["events"]["shards"].as_array().into_iter().flatten() {
        *owners.entry(shard["owner"].as_str().unwrap_or("nobody").to_owned()).or_default() += 1;
    }
    owners
}

/// Waits until the shards are owned by `count` replicas, each with its even share; says how long that took.
pub(crate) async fn are_shared_by(gateway: &Gateway, count: usize) -> Duration {
    let begun = Instant::now();
    eventually(&format!("the shards are shared by {count}"), async || {
        let owners = owners(gateway).await;
        let is_even = owners.values().all(|shards| *shards >= SHARDS / count && *shards <= SHARDS.div_ceil(count));
        let is_whole = owners.values().sum::<usize>() == SHARDS && !owners.contains_key("nobody");
        (is_even && is_whole && owners.len() == count).then_some(())
    })
    .await;
    begun.elapsed()
}

#[tokio::test]
async fn shards_spread_over_the_replicas_and_move_when_one_dies_or_drains() {
    let redis = Redis::start_durable(Program::Redis);
    let receiver = Receiver::start(|_| 200).await;
    let dirs = [folder(), folder(), folder()];
    let start = async |index: usize| replica(&dirs[index], &redis, &receiver.sink("events")).start().await;
    let first = start(0).await;
    are_shared_by(&first, 1).await;
    let (second, third) = (start(1).await, start(2).await);
    let spread = are_shared_by(&first, 3).await;
    third.kill();
    let after_death = are_shared_by(&first, 2).await;
    let third = start(2).await;
    let spread_again = are_shared_by(&first, 3).await;
    third.stop().await;
    let after_drain = are_shared_by(&first, 2).await;
    eprintln!(
        "spread in {spread:?} and {spread_again:?}, moved in {after_death:?} after a kill, {after_drain:?} after a drain"
    );
    for (took, most) in [(spread, 10), (after_death, 12), (spread_again, 10), (after_drain, 5)] {
        assert!(took < Duration::from_secs(most), "{took:?}");
    }
    second.stop().await;
    first.stop().await;
}

#[tokio::test]
async fn events_reach_the_sink_whoever_took_the_push() {
    let redis = Redis::start_durable(Program::Valkey);
    let receiver = Receiver::start(|_| 200).await;
    let dirs = [folder(), folder()];
    let mut replicas = Vec::new();
    for dir in &dirs {
        replicas.push(replica(dir, &redis, &receiver.sink("events")).start().await);
    }
    are_shared_by(&replicas[0], 2).await;
    let senders = [Sender::new(&replicas[0].url()), Sender::new(&replicas[1].url())];
    for number in 0..40 {
        let (id, body) = (format!("p-{number}"), cdr(&format!("s-{}", number % 16), number));
        for sender in &senders {
            assert_eq!(sender.push("cdr", &id, &body).await, Outcome::Acknowledged);
        }
    }
    eventually("all is delivered", async || (receiver.deliveries().len() >= 40).then_some(())).await;
    let total = async |key: &str| {
        let (one, other) = (replicas[0].status().await, replicas[1].status().await);
        one["sources"]["main"][key].as_u64().unwrap() + other["sources"]["main"][key].as_u64().unwrap()
    };
    assert_eq!((total("accepted").await, total("duplicates").await), (40, 40));
    assert_eq!(receiver.deliveries().len(), 40);
    for replica in replicas {
        replica.stop().await;
    }
}

#[tokio::test]
async fn a_paused_owner_settles_nothing_after_it_lost_its_leases() {
    let redis = Redis::start_durable(Program::Redis);
    // 429: it is tried again without end.
    let statuses = [Arc::new(AtomicU16::new(429)), Arc::new(AtomicU16::new(429))];
    let mut receivers = Vec::new();
    for status in &statuses {
        let status = Arc::clone(status);
        receivers.push(Receiver::start(move |_| status.load(Ordering::Relaxed)).await);
    }
    let dirs = [folder(), folder()];
    let paused = replica(&dirs[0], &redis, &receivers[0].sink("events")).start().await;
    let sender = Sender::new(&paused.url());
    for number in 0..30 {
        let body = cdr(&format!("s-{number}"), number);
        assert_eq!(sender.push("cdr", &format!("p-{number}"), &body).await, Outcome::Acknowledged);
    }
    eventually("it has tried", async || (!receivers[0].deliveries().is_empty()).then_some(())).await;
    paused.pause();
    let next = replica(&dirs[1], &redis, &receivers[1].sink("events")).start().await;
    eventually("the next one owns all", async || {
        let status = next.status().await;
        let shards = status["sinks"]["events"]["shards"].as_array()?;
        (shards.len() == SHARDS && shards.iter().all(|shard| shard["here"] == true)).then_some(())
    })
    .await;
    eventually("the next owner has tried", async || (!receivers[1].deliveries().is_empty()).then_some(())).await;

    // Whatever the old owner has in hand now, its destination would confirm.
    statuses[0].store(200, Ordering::Relaxed);
    paused.resume();
    eventually("the old owner knows", async || {
        paused.lines().iter().any(|line| line.contains("lease lost")).then_some(())
    })
    .await;
    assert_eq!(pending(&next).await, 30, "what it delivered with a lost lease is not settled");
    paused.kill();
    statuses[1].store(200, Ordering::Relaxed);
    eventually("the next owner delivers all", async || (pending(&next).await == 0).then_some(())).await;
    let delivered = receivers[1].deliveries().iter().filter(|delivered| delivered.status == 200).count();
    assert_eq!(delivered, 30);
    next.stop().await;
}

async fn pending(gateway: &Gateway) -> u64 {
    gateway.status().await["sinks"]["events"]["pending"].as_u64().expect("a number")
}

#[tokio::test]
async fn the_status_says_who_has_what_and_what_redis_promises() {
    let redis = Redis::start_durable(Program::Redis);
    let receiver = Receiver::start(|_| 429).await;
    let dir = folder();
    let gateway = replica(&dir, &redis, &receiver.sink("events")).start().await;
    let sender = Sender::new(&gateway.url());
    for number in 0..20 {
        sender.push("cdr", &format!("p-{number}"), &cdr(&format!("s-{number}"), number)).await;
    }
    are_shared_by(&gateway, 1).await;
    let status = gateway.status().await;
    let shards = status["sinks"]["events"]["shards"].as_array().expect("one each");
    assert_eq!(shards.len(), SHARDS);
    assert!(shards.iter().all(|shard| shard["here"] == true));
    let lag: u64 = shards.iter().map(|shard| shard["pending"].as_u64().unwrap()).sum();
    assert_eq!(lag, 20);
    assert!(shards.iter().any(|shard| shard["oldest_pending_seconds"].as_f64().unwrap() > 0.0));
    assert!(status["journal"]["promises"].is_object(), "{}", status["journal"]);
    gateway.kill();
}
