//! The trial: a load over three replicas behind a balancer, while they are killed and Redis is restarted. Nothing acknowledged is
//! lost, nothing is journalled twice, sessions keep their order.
//!
//! `TRUNKLINE_TEST_PUSHES`, `TRUNKLINE_TEST_SENDERS`, `TRUNKLINE_TEST_KILL_EVERY_MS` and `TRUNKLINE_TEST_PROGRAM` (another build of the gateway) make it what
//! the figures of benches/README.md were measured with.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use test_servers::redis::{Program, Redis};

use crate::replicas::{SHARDS, are_shared_by, replica};
use crate::support::{
    Arrived, Balancer, Gateway, GatewayBuilder, Load, PATIENCE, Receiver, SESSIONS, Seen, events, file_sink, folder,
    in_order_by_session, setting,
};

const REPLICAS: usize = 3;
/// Pushes of a quiet run, at most.
const QUIET_MAX: u64 = 5_000;

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
    let load = begin(pushes, &fleet.balancer);
    let (mut kills, mut restarts) = (0, 0);
    while !load.is_over() {
        tokio::time::sleep(every).await;
        fleet.replace(kills % REPLICAS, &redis, &receiver).await;
        kills += 1;
        if restarts < 2 && load.has_sent(100 * (restarts + 1) / 3) {
            tokio::task::block_in_place(|| {
                redis.kill();
                redis.start_again();
            });
            restarts += 1;
        }
    }
    let seen = load.end().await;
    assert_eq!(restarts, 2, "redis was restarted while pushes came");

    fleet.wait_for_all(&receiver, &seen.acknowledged).await;
    let places = journalled(&redis);
    assert_eq!(places.len() as u64, pushes);
    let delivered: Vec<_> = receiver
        .deliveries()
        .iter()
        .map(|delivered| Arrived::new(&delivered.event["id"], &delivered.event["subject"]))
        .collect();
    in_order_by_session(&delivered, |id| places.get(id).map(|(_, offset)| *offset));
    tell("redis, replicas killed", &seen);
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
    tell("disk, one replica, quiet", &begin(pushes, &balancer).end().await);
    gateway.kill();
}

async fn quiet_redis(pushes: u64) {
    let redis = Redis::start_durable(Program::Redis);
    let receiver = Receiver::start(|_| 200).await;
    let fleet = Fleet::start(&redis, &receiver).await;
    tell("redis, three replicas, quiet", &begin(pushes, &fleet.balancer).end().await);
    assert_eq!(journalled(&redis).len() as u64, pushes);
    fleet.stop().await;
}

fn begin(pushes: u64, balancer: &Balancer) -> Load {
    Load::begin(balancer.url(), pushes, setting("TRUNKLINE_TEST_SENDERS", SESSIONS))
}

fn tell(what: &str, seen: &Seen) {
    let mut sorted = seen.latencies.clone();
    sorted.sort_unstable_by(f64::total_cmp);
    let [p50, p99] = [50, 99].map(|percent| sorted[sorted.len() * percent / 100]);
    let count = seen.acknowledged.len();
    let rate = count as f64 / seen.elapsed.as_secs_f64();
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
