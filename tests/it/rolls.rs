//! A rolling restart: replicas behind a balancer that honours readiness are replaced one after the other while pushes come at a fixed
//! rate, and not one fails. A request that is on its way on an idle connection when that is closed gets no reply, which HTTP/1.1 cannot
//! prevent: the sender resends it, as the vendor's does, and the test says how often.
//!
//! `TRUNKLINE_TEST_RATE` sets pushes per second. `TRUNKLINE_TEST_BEFORE` names an older build of the program, which is replaced by this
//! one.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use test_servers::redis::{Program, Redis};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::replicas::{are_shared_by, replica};
use crate::support::{
    Balancer, Gateway, GatewayBuilder, Receiver, Sender, by_id, cdr, events, eventually, file_sink, folder, setting,
};

const REPLICAS: usize = 3;
const SESSIONS: u64 = 97;
/// The vendor's sender resends three times.
const ATTEMPTS: usize = 4;
/// Kubernetes' own is ten seconds; it must be well below what the gateway announces.
const PROBE_INTERVAL: Duration = Duration::from_millis(200);
/// That of Kubernetes.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
const ANNOUNCE: &str = "1s";
/// Pushes come for so long before, between and after the replacements.
const PAUSE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_over_redis_are_replaced_one_by_one_and_no_push_fails() {
    let redis = Redis::start_durable(Program::Redis);
    let receiver = Receiver::start(|_| 200).await;
    let dirs: Vec<TempDir> = (0..REPLICAS).map(|_| folder()).collect();
    let build = |index: usize| replica(&dirs[index], &redis, &receiver.sink("events"));
    let mut fleet = Fleet::start(build).await;
    are_shared_by(&fleet.replicas[0], REPLICAS).await;
    let acknowledged = fleet.roll_under_load(build).await;
    eventually("everything is delivered", async || {
        let delivered: HashSet<String> =
            receiver.deliveries().iter().map(|one| one.event["id"].as_str().expect("an id").to_owned()).collect();
        acknowledged.is_subset(&delivered).then_some(())
    })
    .await;
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_with_a_disk_each_are_replaced_one_by_one_and_no_push_fails() {
    let dirs: Vec<TempDir> = (0..REPLICAS).map(|_| folder()).collect();
    let file = |index: usize| dirs[index].path().join("events.ndjson");
    let build = |index: usize| GatewayBuilder::new(dirs[index].path()).sinks(&file_sink("events", &file(index)));
    let mut fleet = Fleet::start(build).await;
    let acknowledged = fleet.roll_under_load(build).await;
    eventually("everything is delivered", async || {
        let delivered: Vec<_> = (0..REPLICAS).flat_map(|index| events(&file(index))).collect();
        let ids = by_id(&delivered);
        acknowledged.iter().all(|id| ids.contains_key(id)).then_some(())
    })
    .await;
    fleet.stop().await;
}

/// Replicas behind a balancer.
struct Fleet {
    replicas: Vec<Gateway>,
    balancer: Arc<Balancer>,
    /// Where readiness is asked for, and where pushes go then.
    known: watch::Sender<Vec<(SocketAddr, SocketAddr)>>,
    probing: JoinSet<()>,
}

impl Fleet {
    /// The first generation: of the older build, where one is named.
    async fn start(build: impl Fn(usize) -> GatewayBuilder) -> Self {
        let before = std::env::var_os("TRUNKLINE_TEST_BEFORE").map(PathBuf::from);
        let mut replicas = Vec::new();
        for index in 0..REPLICAS {
            replicas.push(begin(build(index), before.as_deref()).await);
        }
        let balancer = Arc::new(Balancer::start().await);
        let (known, listed) = watch::channel(Vec::new());
        let mut probing = JoinSet::new();
        probing.spawn(probe(listed, Arc::clone(&balancer)));
        let fleet = Self { replicas, balancer, known, probing };
        fleet.list();
        fleet
    }

    fn list(&self) {
        self.known.send_replace(self.replicas.iter().map(|replica| (replica.admin, replica.ingress)).collect());
    }

    /// Replaces every replica while pushes come; gives the ids that were sent, all of them acknowledged and none refused.
    async fn roll_under_load(&mut self, build: impl Fn(usize) -> GatewayBuilder) -> HashSet<String> {
        eventually("the balancer leads somewhere", async || (self.balancer.backends() == REPLICAS).then_some(())).await;
        let (until, ended) = watch::channel(false);
        let load = tokio::spawn(load(self.balancer.url(), ended));
        tokio::time::sleep(PAUSE).await;
        let begun = Instant::now();
        for index in 0..REPLICAS {
            // It stays listed while it drains, as an endpoint does whose readiness is off.
            self.replicas[index].terminate();
            assert!(self.replicas[index].ended().await.success());
            self.replicas[index] = begin(build(index), None).await;
            self.list();
            eventually("it is ready", async || (self.balancer.backends() == REPLICAS).then_some(())).await;
            tokio::time::sleep(PAUSE).await;
        }
        let took = begun.elapsed();
        until.send_replace(true);
        let sent = load.await.expect("the load ends");
        let unanswered: usize = sent.iter().map(|push| push.unanswered).sum();
        let mut latencies: Vec<f64> = sent.iter().map(|push| push.took.as_secs_f64() * 1e3).collect();
        latencies.sort_unstable_by(f64::total_cmp);
        let at = |percent: usize| latencies[(latencies.len() * percent / 100).min(latencies.len() - 1)];
        eprintln!(
            "{} pushes, {REPLICAS} replicas replaced within {took:?}: acknowledged in {:.1} ms (p50), {:.1} ms (p99), {:.1} ms at most; {unanswered} requests sent again",
            sent.len(),
            at(50),
            at(99),
            at(100)
        );
        sent.into_iter().map(|push| push.id).collect()
    }

    async fn stop(mut self) {
        self.probing.shutdown().await;
        for replica in self.replicas {
            replica.stop().await;
        }
    }
}

async fn begin(builder: GatewayBuilder, program: Option<&Path>) -> Gateway {
    builder.announce(ANNOUNCE).program(program).start().await
}

/// Leads the balancer to those that are ready, until it is stopped.
async fn probe(listed: watch::Receiver<Vec<(SocketAddr, SocketAddr)>>, balancer: Arc<Balancer>) {
    let client = reqwest::Client::builder().no_proxy().timeout(PROBE_TIMEOUT).build().expect("a client");
    loop {
        let known = listed.borrow().clone();
        let mut ready = Vec::new();
        for (admin, ingress) in known {
            let asked = client.get(format!("http://{admin}/readyz")).send().await;
            if asked.is_ok_and(|reply| reply.status().is_success()) {
                ready.push(ingress);
            }
        }
        balancer.lead_to(ready);
        tokio::time::sleep(PROBE_INTERVAL).await;
    }
}

struct Sent {
    id: String,
    took: Duration,
    /// Requests that got no reply.
    unanswered: usize,
}

/// Pushes at a fixed rate. Any refusal fails it.
async fn load(url: String, mut ended: watch::Receiver<bool>) -> Vec<Sent> {
    let rate = setting("TRUNKLINE_TEST_RATE", 200);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(rate).expect("a rate"));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let sender = Sender::new(&url);
    let mut flights = JoinSet::new();
    for number in 0.. {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = ended.changed() => break,
        }
        let sender = sender.clone();
        flights.spawn(async move {
            let (id, begun) = (format!("push-{number}"), Instant::now());
            let body = cdr(&format!("session-{}", number % SESSIONS), number);
            for unanswered in 0..ATTEMPTS {
                if let Some((status, reply)) = sender.once("cdr", &id, body.clone()).await {
                    assert_eq!(reply["ErrCode"], 0, "{id} was refused with {status}: {reply}");
                    return Sent { id, took: begun.elapsed(), unanswered };
                }
            }
            panic!("{id} failed");
        });
    }
    flights.join_all().await
}
