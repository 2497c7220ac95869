//! The trial: a load over three replicas behind a balancer, while they are killed and Redis is restarted. Nothing acknowledged is
//! lost, nothing is journalled twice, sessions keep their order.
//!
//! `TRUNKLINE_TEST_PUSHES`, `TRUNKLINE_TEST_SENDERS`, `TRUNKLINE_TEST_KILL_EVERY_MS` and `TRUNKLINE_TEST_PROGRAM` (another build of the gateway) make it what
//! the figures of benches/README.md were measured with.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use test_servers::redis::{Program, Redis};
use tokio::sync::Mutex;

use crate::replicas::{SHARDS, are_shared_by, replica};
use crate::support::{Balancer, Gateway, GatewayBuilder, PATIENCE, Receiver, Sender, cdr, events, file_sink, folder};

const REPLICAS: usize = 3;
/// Pushes of a quiet run, at most.
const QUIET_MAX: u64 = 5_000;
const SESSIONS: u64 = 97;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().expect("a number"))
}

/// The trial. Quiet runs over a disk journal and over Redis come first, as the yardstick of its figures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_with_replicas_killed_and_redis_restarted_loses_nothing_and_doubles_nothing() {
    let pushes = setting("TRUNKLINE_TEST_PUSHES", 2_000);
    let every = Duration::from_millis(setting("TRUNKLINE_TEST_KILL_EVERY_MS", 2_000));
    quiet_disk((pushes / 4).min(QUIET_MAX)).await;
    quiet_redis((pushes / 4).min(QUIET_MAX)).await;

    let mut redis = Redis::start_durable(Program::Redis);
    let receiver = Receiver::start(|_| 200).await;
    let mut fleet = Fleet::start(&redis, &receiver).await;
    let load = Load::new(pushes, fleet.balancer.url());
    let running = {
        let load = Arc::clone(&load);
        tokio::spawn(async move { load.run().await })
    };
    let (mut kills, mut restarts) = (0, 0);
    while !running.is_finished() {
        tokio::time::sleep(every).await;
        fleet.replace(kills % REPLICAS, &redis, &receiver).await;
        kills += 1;
        if restarts < 2 && load.sent.load(Ordering::Relaxed) >= pushes * (restarts + 1) / 3 {
            tokio::task::block_in_place(|| {
                redis.kill();
                redis.start_again();
            });
            restarts += 1;
        }
    }
    let rate = running.await.expect("it ran to its end");
    assert_eq!(restarts, 2, "redis was restarted while pushes came");

    let seen = load.seen.lock().await;
    assert_eq!(seen.acknowledged.len() as u64, pushes, "the senders are patient");
    fleet.wait_for_all(&receiver, &seen.acknowledged).await;
    let places = journalled(&redis);
    assert_eq!(places.len() as u64, pushes);
    in_order_by_session(&receiver, &places);
    tell("redis, replicas killed", &seen, rate);
    eprintln!(
        "{kills} kills of {REPLICAS} replicas, {restarts} restarts of redis, {} requests unanswered or refused",
        seen.refused
    );
    fleet.stop().await;
}

async fn quiet_disk(pushes: u64) {
    let (dir, receiver, balancer) = (folder(), Receiver::start(|_| 200).await, Balancer::start().await);
    let gateway = GatewayBuilder::new(dir.path()).sinks(&sinks(dir.path(), &receiver)).start().await;
    balancer.lead_to(vec![gateway.ingress]);
    let load = Load::new(pushes, balancer.url());
    let rate = load.run().await;
    tell("disk, one replica, quiet", &*load.seen.lock().await, rate);
    gateway.kill();
}

async fn quiet_redis(pushes: u64) {
    let redis = Redis::start_durable(Program::Redis);
    let receiver = Receiver::start(|_| 200).await;
    let fleet = Fleet::start(&redis, &receiver).await;
    let load = Load::new(pushes, fleet.balancer.url());
    let rate = load.run().await;
    tell("redis, three replicas, quiet", &*load.seen.lock().await, rate);
    assert_eq!(journalled(&redis).len() as u64, pushes);
    fleet.stop().await;
}

fn tell(what: &str, seen: &Seen, rate: f64) {
    let [p50, p99] = [50.0, 99.0].map(|percent| seen.percentile(percent));
    let count = seen.acknowledged.len();
    eprintln!("{what}: {count} pushes at {rate:.0}/s, acknowledged in {p50:.1} ms (p50), {p99:.1} ms (p99)");
}

/// Events to `receiver`, an archive in a file of this replica's own, and a sink that is never there, so that nothing is trimmed and the
/// whole journal can be looked at.
fn sinks(dir: &Path, receiver: &Receiver) -> String {
    let nowhere = format!("http://127.0.0.1:{}/", test_servers::process::free_port());
    let keeper = format!(
        "[sinks.keeper]\ntype = \"http\"\nstart = \"oldest\"\nretry = {{ delay_min = \"5s\", delay_max = \"60s\" }}\n\
         settings = {{ url = \"{nowhere}\", allow_networks = [\"127.0.0.0/8\"] }}\n"
    );
    receiver.sink("events") + &file_sink("archive", &dir.join("archive.ndjson")) + &keeper
}

/// Replicas behind a balancer.
struct Fleet {
    dirs: Vec<TempDir>,
    replicas: Vec<Gateway>,
    balancer: Balancer,
}

impl Fleet {
    async fn start(redis: &Redis, receiver: &Receiver) -> Self {
        let mut fleet = Self { dirs: Vec::new(), replicas: Vec::new(), balancer: Balancer::start().await };
        for _ in 0..REPLICAS {
            let dir = folder();
            fleet.replicas.push(Self::one(&dir, redis, receiver).await);
            fleet.dirs.push(dir);
        }
        fleet.lead();
        are_shared_by(&fleet.replicas[0], REPLICAS).await;
        fleet
    }

    async fn one(dir: &TempDir, redis: &Redis, receiver: &Receiver) -> Gateway {
        // That Redis is away is an error that a person must know of.
        replica(dir, redis, &sinks(dir.path(), receiver)).expect_errors().start().await
    }

    fn lead(&self) {
        self.balancer.lead_to(self.replicas.iter().map(|replica| replica.ingress).collect());
    }

    /// Kills a replica and starts another in its place.
    async fn replace(&mut self, index: usize, redis: &Redis, receiver: &Receiver) {
        self.replicas.remove(index).kill();
        let next = Self::one(&self.dirs[index], redis, receiver).await;
        self.replicas.insert(index, next);
        self.lead();
    }

    fn archived(&self) -> Vec<Value> {
        self.dirs.iter().flat_map(|dir| events(&dir.path().join("archive.ndjson"))).collect()
    }

    /// Waits until every acknowledged push is in both sinks, as long as more arrive.
    async fn wait_for_all(&self, receiver: &Receiver, acknowledged: &HashSet<String>) {
        let (mut most, mut grew_at) = (0, Instant::now());
        loop {
            let delivered: HashSet<String> =
                receiver.deliveries().iter().map(|delivered| id_of(&delivered.event)).collect();
            let archived: HashSet<String> = self.archived().iter().map(id_of).collect();
            let missing = acknowledged.iter().filter(|id| !delivered.contains(*id) || !archived.contains(*id)).count();
            if missing == 0 {
                return;
            }
            let arrived = delivered.len() + archived.len();
            if arrived > most {
                (most, grew_at) = (arrived, Instant::now());
            }
            assert!(grew_at.elapsed() < PATIENCE, "{missing} acknowledged pushes are missing in a sink");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn stop(self) {
        for replica in self.replicas {
            replica.stop().await;
        }
    }
}

fn id_of(event: &Value) -> String {
    event["id"].as_str().expect("an id").to_owned()
}

/// Where each push is in the journal: shard and offset. Fails where one is there twice.
fn journalled(redis: &Redis) -> HashMap<String, (usize, u64)> {
    let client = redis::Client::open(redis.url()).expect("a URL");
    let mut connection = client.get_connection().expect("redis answers");
    let mut places = HashMap::new();
    for shard in 0..SHARDS {
        let mut range = redis::cmd("XRANGE");
        range.arg(format!("trunkline:{{p{shard}}}:log")).arg("-").arg("+");
        let entries: Vec<(String, HashMap<String, Vec<u8>>)> = range.query(&mut connection).expect("the stream");
        for (offset, fields) in entries {
            let id = push_id_in(&fields["m"]);
            let offset: u64 = offset.split('-').next().and_then(|offset| offset.parse().ok()).expect("an offset");
            if let Some(earlier) = places.insert(id.clone(), (shard, offset)) {
                panic!("{id} is in the journal twice, at {earlier:?} and {:?}", (shard, offset));
            }
        }
    }
    places
}

/// The id is the only part of an entry's head that looks like one.
fn push_id_in(head: &[u8]) -> String {
    let text = String::from_utf8_lossy(head).into_owned();
    let id = &text[text.find("push-").expect("the id of a push")..];
    let end = id["push-".len()..].find(|c: char| !c.is_ascii_digit()).map_or(id.len(), |end| end + "push-".len());
    id[..end].to_owned()
}

/// The first delivery of each event follows the journal's order within its session.
fn in_order_by_session(receiver: &Receiver, places: &HashMap<String, (usize, u64)>) {
    let mut seen = HashSet::new();
    let mut last: HashMap<String, u64> = HashMap::new();
    for delivered in receiver.deliveries() {
        let id = id_of(&delivered.event);
        let (_, offset) = places[&id];
        if seen.insert(id) {
            let session = delivered.event["subject"].as_str().expect("a session").to_owned();
            let before = last.insert(session.clone(), offset);
            assert!(before.is_none_or(|before| before < offset), "{session}: {offset} came after {before:?}");
        }
    }
}

/// What the senders saw.
#[derive(Default)]
struct Seen {
    acknowledged: HashSet<String>,
    /// Of every request that was acknowledged, in milliseconds.
    latencies: Vec<f64>,
    refused: u64,
}

impl Seen {
    fn percentile(&self, percent: f64) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted
            .get(((sorted.len() as f64 * percent / 100.0) as usize).min(sorted.len().saturating_sub(1)))
            .copied()
            .unwrap_or(0.0)
    }
}

/// Pushes on their way through the balancer.
struct Load {
    pushes: u64,
    senders: u64,
    url: String,
    sent: AtomicU64,
    seen: Mutex<Seen>,
}

impl Load {
    fn new(pushes: u64, url: String) -> Arc<Self> {
        let senders = setting("TRUNKLINE_TEST_SENDERS", 32);
        Arc::new(Self { pushes, senders, url, sent: AtomicU64::new(0), seen: Mutex::default() })
    }

    /// Sends everything, so many at a time as there are senders; gives the rate of different pushes acknowledged.
    async fn run(self: &Arc<Self>) -> f64 {
        let begun = Instant::now();
        let mut senders = tokio::task::JoinSet::new();
        for sender in 0..self.senders {
            senders.spawn(Arc::clone(self).send(sender));
        }
        while let Some(ended) = senders.join_next().await {
            ended.expect("no sender panics");
        }
        let seen = self.seen.lock().await;
        seen.acknowledged.len() as f64 / begun.elapsed().as_secs_f64()
    }

    /// Every tenth push goes a second time over another connection, which leads to another replica: half of them at the same
    /// moment, half of them after the first was acknowledged.
    async fn send(self: Arc<Self>, first: u64) {
        let (sender, other) = (Sender::new(&self.url), Sender::new(&self.url));
        for number in (first..self.pushes).step_by(self.senders as usize) {
            let once = self.until_acknowledged(&sender, number);
            match number % 20 {
                0 => _ = tokio::join!(once, self.until_acknowledged(&other, number)),
                10 => {
                    once.await;
                    self.until_acknowledged(&other, number).await;
                }
                _ => once.await,
            }
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// More patient than the vendor's sender, so that a restart costs resends and not pushes.
    async fn until_acknowledged(&self, sender: &Sender, number: u64) {
        let (id, body) = (format!("push-{number}"), cdr(&format!("session-{}", number % SESSIONS), number));
        for _ in 0..1_000 {
            let begun = Instant::now();
            let reply = sender.once("cdr", &id, body.clone()).await;
            let mut seen = self.seen.lock().await;
            if reply.is_some_and(|(_, reply)| reply["ErrCode"] == 0) {
                seen.latencies.push(begun.elapsed().as_secs_f64() * 1e3);
                seen.acknowledged.insert(id);
                return;
            }
            seen.refused += 1;
            drop(seen);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
