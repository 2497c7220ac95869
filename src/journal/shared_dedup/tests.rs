//! Replicas with a journal each, over a real Redis.

use std::time::Duration;

use bytes::Bytes;
use prometheus::IntGauge;
use tempfile::TempDir;
use test_servers::redis::{Cluster, Program, Redis};
use tokio::time::Instant;

use super::*;
use crate::journal::conformance::{self, WINDOW, push};
use crate::journal::disk::{self, DiskJournal};
use crate::journal::redis::connect::Servers;
use crate::journal::redis::{Mode, Place};
use crate::metrics::Metrics;

fn place(mode: Mode, urls: Vec<String>) -> Place {
    Place::new(mode, urls.into_iter().map(Into::into).collect())
}

/// A replica: a journal in a folder of its own, and push ids under `prefix`.
struct Replica {
    dir: TempDir,
    place: Place,
    prefix: String,
    journal: Arc<SharedDedup>,
    degraded: IntGauge,
}

async fn open(dir: &TempDir, place: &Place, prefix: &str, degraded: &IntGauge) -> Arc<SharedDedup> {
    let options = disk::Options {
        dir: dir.path().join("journal"),
        segment_size: 1 << 20,
        size_max: 64 << 20,
        reserve: 0,
        dedup_window: WINDOW,
    };
    let journal = tokio::task::spawn_blocking(|| DiskJournal::open(options, Metrics::new().journal)).await.unwrap();
    let servers = Servers::new(place.clone()).unwrap();
    let options = Options { servers, prefix: prefix.to_owned(), window: WINDOW };
    let (journal, (_, watch)) = SharedDedup::connect(journal.unwrap(), options, degraded.clone()).await;
    tokio::spawn(watch);
    Arc::new(journal)
}

impl Replica {
    async fn start(place: &Place, prefix: &str) -> Self {
        let (dir, degraded) = (tempfile::tempdir().unwrap(), IntGauge::new("degraded", "in a test").unwrap());
        let journal = open(&dir, place, prefix, &degraded).await;
        Self { dir, place: place.clone(), prefix: prefix.to_owned(), journal, degraded }
    }

    async fn at(redis: &Redis, prefix: &str) -> Self {
        Self::start(&place(Mode::Standalone, vec![redis.url()]), prefix).await
    }

    async fn accept(&self, id: &str) -> Accepted {
        self.journal.accept(push(id, "s", 0)).await.unwrap()
    }

    async fn is_shared_again(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.journal.dedup().degraded {
            assert!(Instant::now() < deadline, "push ids are not shared again");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn is_new(accepted: Accepted) -> bool {
    matches!(accepted, Accepted::New { .. })
}

/// How many scripts the server has run so far.
fn scripts_run(redis: &Redis) -> u64 {
    let stats = redis.command(&["INFO", "commandstats"]);
    let calls = |line: &str| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next()?.parse().ok();
    stats.lines().find_map(calls).unwrap_or(0)
}

struct Backend {
    redis: Redis,
    journals: usize,
    latest: Option<Replica>,
}

impl conformance::Factory for Backend {
    async fn fresh(&mut self) -> Arc<dyn Journal> {
        self.journals += 1;
        let replica = Replica::at(&self.redis, &format!("t{}", self.journals)).await;
        let journal = replica.journal.clone();
        self.latest = Some(replica);
        journal
    }

    async fn reopen(&mut self) -> Arc<dyn Journal> {
        let latest = self.latest.as_mut().unwrap();
        latest.journal = open(&latest.dir, &latest.place, &latest.prefix, &latest.degraded).await;
        latest.journal.clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_contract_of_a_journal() {
    for program in [Program::Redis, Program::Valkey] {
        let redis = Redis::start_durable(program);
        conformance::run(&mut Backend { redis, journals: 0, latest: None }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_one_replica_confirmed_is_a_duplicate_at_the_others() {
    let redis = Redis::start(Program::Redis, &[]);
    let (one, other) = (Replica::at(&redis, "t").await, Replica::at(&redis, "t").await);
    let Accepted::New { offset } = one.accept("a").await else { panic!("not new") };
    assert_eq!(other.accept("a").await, Accepted::Duplicate { offset, same_body: true });
    let changed = Push { body: Bytes::from_static(b"{}"), ..push("a", "s", 0) };
    assert_eq!(other.journal.accept(changed).await, Ok(Accepted::Duplicate { offset, same_body: false }));
    assert!(is_new(other.journal.accept(push("a", "s", 3601)).await.unwrap()), "the window is over");
    assert!(redis.command(&["KEYS", "t:*:claim:*"]).is_empty(), "no claim is left");
    assert_eq!(other.journal.health().entries, 1, "the duplicates were not written here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_push_that_comes_to_two_replicas_at_once_is_accepted_once() {
    let redis = Redis::start(Program::Redis, &[]);
    let replicas = [Replica::at(&redis, "t").await, Replica::at(&redis, "t").await];
    for round in 0..100 {
        let id = format!("p-{round}");
        let (one, other) = tokio::join!(replicas[0].accept(&id), replicas[1].accept(&id));
        assert!(is_new(one) != is_new(other), "{one:?} and {other:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_another_replica_claimed_and_never_confirmed_is_accepted_after_a_while() {
    let redis = Redis::start(Program::Redis, &[]);
    let (dead, alive) = (Replica::at(&redis, "t").await, Replica::at(&redis, "t").await);
    let marks = &dead.journal.shared.marks;
    let mark = marks.of(&push("a", "s", 0));
    assert_eq!(marks.claim(&mark, false).await, Claim::Ours);
    let begun = Instant::now();
    assert!(is_new(alive.accept("a").await));
    assert!(begun.elapsed() >= PATIENCE, "{:?}", begun.elapsed());
    // Whoever was believed dead confirms after all: the first confirmation stays.
    marks.confirm(&mark, Offset(999)).await;
    assert!(matches!(dead.accept("a").await, Accepted::Duplicate { offset: Offset(1), .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_was_not_accepted_leaves_no_claim() {
    let redis = Redis::start(Program::Redis, &[]);
    let (full, other) = (Replica::at(&redis, "t").await, Replica::at(&redis, "t").await);
    full.journal.shared.journal.close().await;
    assert!(full.journal.accept(push("a", "s", 0)).await.is_err());
    let marks = &other.journal.shared.marks;
    assert_eq!(marks.claim(&marks.of(&push("a", "s", 0)), false).await, Claim::Ours);
    assert!(is_new(other.accept("a").await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_goes_away_leaves_an_outcome_behind() {
    let redis = Redis::start(Program::Redis, &[]);
    let (one, other) = (Replica::at(&redis, "t").await, Replica::at(&redis, "t").await);
    let mut accepting = one.journal.accept(push("a", "s", 0));
    assert!(futures::poll!(&mut accepting).is_pending());
    drop(accepting);
    let deadline = Instant::now() + Duration::from_secs(10);
    while redis.command(&["KEYS", "t:*:claim:*"]).is_empty() && redis.command(&["KEYS", "t:*:seen:*"]).is_empty() {
        assert!(Instant::now() < deadline, "what was begun went on");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!is_new(other.accept("a").await), "the other replica waited for the outcome");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stalls_is_asked_by_the_first_push_and_by_no_other() {
    let redis = Redis::start(Program::Redis, &[]);
    let replica = Replica::at(&redis, "t").await;
    assert!(is_new(replica.accept("before").await));
    let asked = scripts_run(&redis);
    redis.pause();
    assert!(is_new(replica.accept("first").await));
    assert_eq!((replica.journal.dedup().degraded, replica.degraded.get()), (true, 1));
    for number in 0..50 {
        assert!(is_new(replica.accept(&format!("p-{number}")).await));
    }
    assert!(!is_new(replica.accept("p-7").await), "its own ids it knows");
    assert!(!is_new(replica.accept("before").await));
    redis.resume();
    replica.is_shared_again().await;
    // It runs what it was sent while it stalled, before it answers whoever looks whether it is back.
    assert_eq!(scripts_run(&redis), asked + 1);
    assert_eq!(replica.degraded.get(), 0);
    // A resend tells the others what came meanwhile.
    assert!(!is_new(replica.accept("p-7").await));
    let other = Replica::at(&redis, "t").await;
    assert!(!is_new(other.accept("p-7").await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_away_at_the_start_or_loses_its_marks_refuses_nothing() {
    let mut redis = Redis::start(Program::Valkey, &[]);
    redis.kill();
    let (one, other) = (Replica::at(&redis, "t").await, Replica::at(&redis, "t").await);
    assert!(one.journal.dedup().degraded);
    assert!(is_new(one.accept("a").await));
    redis.start_again();
    one.is_shared_again().await;
    other.is_shared_again().await;
    assert!(is_new(one.accept("b").await));
    assert!(!is_new(other.accept("b").await));
    redis.command(&["SCRIPT", "FLUSH"]);
    assert!(!is_new(other.accept("b").await), "the script is sent again");
    redis.command(&["FLUSHALL"]);
    assert!(!is_new(one.accept("b").await), "its own journal still knows");
    assert!(!is_new(other.accept("b").await), "and has told the others");
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(is_new(one.accept("c").await));
    assert!(one.journal.dedup().degraded, "a server that takes no writes is as good as away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_lost_a_part_shares_the_ids_of_the_others_again_once_it_is_whole() {
    let mut cluster = Cluster::start(Program::Redis, 3);
    let place = place(Mode::Cluster, cluster.urls());
    let (one, other) = (Replica::start(&place, "t").await, Replica::start(&place, "t").await);
    for number in 0..60 {
        let id = format!("p-{number}");
        assert!(is_new(one.accept(&id).await));
        assert!(!is_new(other.accept(&id).await));
    }
    cluster.nodes[1].kill();
    for number in 60..120 {
        assert!(is_new(one.accept(&format!("p-{number}")).await));
    }
    cluster.nodes[1].start_again();
    one.is_shared_again().await;
    other.is_shared_again().await;
    let again = async |id: &str| {
        assert!(is_new(one.accept(id).await));
        !is_new(other.accept(id).await)
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    for number in 0.. {
        if again(&format!("later-{number}")).await && number > 20 {
            break;
        }
        assert!(Instant::now() < deadline);
    }
}
