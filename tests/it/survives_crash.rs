//! kill -9 at any moment: nothing acknowledged is lost, nothing is journalled twice, sessions keep their order.
//!
//! `TRUNKLINE_TEST_PUSHES` and `TRUNKLINE_TEST_KILLS` make the load test larger.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Mutex, watch};

use crate::support::{
    GatewayBuilder, Outcome, Sender, by_id, cdr, events, eventually, folder, trunkline, wait_for_events,
};

pub const SENDERS: u64 = 32;

pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_with_resends_and_kills_loses_nothing() {
    let (pushes, kills) = (setting("TRUNKLINE_TEST_PUSHES", 3_000), setting("TRUNKLINE_TEST_KILLS", 4));
    let dir = folder();
    let gateway = GatewayBuilder::new(dir.path()).start().await;
    let (url, url_seen) = watch::channel(gateway.url());
    let load = Arc::new(Load { sent: AtomicU64::new(0), pushes, acknowledged: Mutex::default() });
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        senders.spawn(Arc::clone(&load).send(sender, url_seen.clone()));
    }

    let mut gateway = Some(gateway);
    for kill in 1..=kills {
        let due = pushes * kill / (kills + 1);
        eventually("the load goes on", async || (load.sent.load(Ordering::Relaxed) >= due).then_some(())).await;
        gateway.take().expect("one is running").kill();
        let next = GatewayBuilder::new(dir.path()).start().await;
        url.send(next.url()).expect("senders listen");
        gateway = Some(next);
    }
    while let Some(ended) = senders.join_next().await {
        ended.expect("no sender panics");
    }

    let acknowledged = load.acknowledged.lock().await.clone();
    assert!(acknowledged.len() as u64 > pushes * 9 / 10, "{} of {pushes} were acknowledged", acknowledged.len());
    let path = dir.path().join("events.ndjson");
    wait_for_all(&path, &acknowledged).await;
    gateway.expect("one is running").stop().await;

    each_once_in_the_journal(dir.path());
    let events = events(&path);
    in_order_by_session(&events, dir.path());
    let again = events.len() - by_id(&events).len();
    eprintln!(
        "{pushes} pushes, {kills} kills: {} acknowledged, {} events, {again} delivered again",
        acknowledged.len(),
        events.len()
    );
}

pub struct Load {
    pub sent: AtomicU64,
    pub pushes: u64,
    pub acknowledged: Mutex<HashSet<String>>,
}

impl Load {
    /// Sends every `SENDERS`th push, each twice in a while, always to where the gateway is now.
    pub async fn send(self: Arc<Self>, first: u64, url: watch::Receiver<String>) {
        let sender = Sender::new("");
        for number in (first..self.pushes).step_by(SENDERS as usize) {
            let id = format!("push-{number}");
            let body = cdr(&format!("session-{}", number % 97), number);
            let copies = if number % 10 == 0 { 2 } else { 1 };
            for _ in 0..copies {
                // More patient than the vendor's sender, so that a restart costs resends and not pushes.
                for _ in 0..500 {
                    let here = sender.at(&Self::now(&url));
                    if here.push_once(&id, &body).await == Outcome::Acknowledged {
                        self.acknowledged.lock().await.insert(id.clone());
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Load {
    fn now(url: &watch::Receiver<String>) -> String {
        url.borrow().clone()
    }
}

impl Sender {
    async fn push_once(&self, id: &str, body: &str) -> Outcome {
        match self.once("cdr", id, body).await {
            Some((_, reply)) if reply["ErrCode"].as_i64() == Some(0) => Outcome::Acknowledged,
            Some((status, reply)) => Outcome::GivenUp { status: Some(status), err_code: reply["ErrCode"].as_i64() },
            None => Outcome::GivenUp { status: None, err_code: None },
        }
    }
}

async fn wait_for_all(path: &Path, acknowledged: &HashSet<String>) {
    eventually("every acknowledged push is in the sink", async || {
        let seen = by_id(&events(path));
        acknowledged.iter().all(|id| seen.contains_key(id)).then_some(())
    })
    .await;
}

/// The journal's entries as `trunkline journal dump --json` prints them.
fn dump(dir: &Path) -> Vec<Value> {
    let output = trunkline()
        .args(["journal", "dump", "--json", "--config"])
        .arg(dir.join("gateway.toml"))
        .arg("--set")
        .arg(format!("journal.disk.dir={}", dir.join("journal").display()))
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub fn each_once_in_the_journal(dir: &Path) {
    let mut offsets: HashMap<String, u64> = HashMap::new();
    for line in dump(dir) {
        let id = line["push_id"].as_str().unwrap().to_owned();
        let offset = line["offset"].as_u64().unwrap();
        if let Some(earlier) = offsets.insert(id.clone(), offset) {
            panic!("{id} is in the journal twice, at {earlier} and {offset}");
        }
    }
}

/// The first delivery of each event follows the journal's order within its session.
pub fn in_order_by_session(events: &[Value], dir: &Path) {
    let places: HashMap<String, u64> = dump(dir)
        .into_iter()
        .map(|line| (line["push_id"].as_str().unwrap().to_owned(), line["offset"].as_u64().unwrap()))
        .collect();
    let mut seen = HashSet::new();
    let mut last: HashMap<&str, u64> = HashMap::new();
    for event in events {
        let id = event["id"].as_str().unwrap();
        let Some(offset) = places.get(id) else { continue };
        if !seen.insert(id) {
            continue;
        }
        let session = event["subject"].as_str().unwrap();
        if let Some(before) = last.insert(session, *offset) {
            assert!(before < *offset, "session {session}: offset {offset} came after {before}");
        }
    }
}

/// Reached only with a sink that rejects events; the journal's own tests crash there.
const NEEDS_A_REJECTING_SINK: [&str; 1] = ["journal.dead_letter_before_checkpoint"];

/// Reached only with push ids in Redis; `shared_dedup` crashes there.
const NEEDS_SHARED_IDS: &str = "dedup.";

#[tokio::test]
async fn a_kill_at_every_crash_point_loses_nothing() {
    for point in trunkline::crash::ALL.iter().filter(|point| !point.starts_with(NEEDS_SHARED_IDS)) {
        let mut crashes = 0;
        for nth in [1, 3] {
            crashes += u32::from(crash_once(point, nth).await);
        }
        assert!(crashes > 0 || NEEDS_A_REJECTING_SINK.contains(point), "{point} was never reached");
    }
}

/// Kills a gateway in the middle of its work, lets the next one die at the `nth` passing of `point`, and looks at what a third one
/// knows. Says whether the point was reached.
async fn crash_once(point: &str, nth: u32) -> bool {
    let dir = folder();
    // Small segments and few dead letters, so that sealing, trimming and compacting happen soon.
    let builder = || {
        GatewayBuilder::new(dir.path())
            .config("journal = { size_max = \"64MiB\", disk.segment_size = \"128KiB\" }")
            .config("ingress = { body_size_max = \"64KiB\", dead_letters_max = 10 }")
            .expect_errors()
    };
    let mut acknowledged = Vec::new();
    let gateway = builder().start().await;
    push_until_crash(&gateway.url(), 50, &mut acknowledged).await;
    gateway.kill();

    let at = format!("{point}:{nth}");
    let crashed = match builder().env("TRUNKLINE_CRASH_AT", &at).try_start().await {
        Err(_) => true,
        Ok(mut gateway) => {
            push_until_crash(&gateway.url(), 500, &mut acknowledged).await;
            if acknowledged.len() < 550 {
                assert!(!gateway.ended().await.success(), "{at}");
            }
            gateway.terminate();
            !gateway.ended().await.success()
        }
    };

    let gateway = builder().start().await;
    push_until_crash(&gateway.url(), 1, &mut acknowledged).await;
    let events = wait_for_events(&dir.path().join("events.ndjson"), acknowledged.len()).await;
    let seen = by_id(&events);
    for id in &acknowledged {
        assert!(seen.contains_key(id), "{at}: {id} was acknowledged and is gone");
    }
    gateway.stop().await;
    each_once_in_the_journal(dir.path());
    eprintln!("{at}: {} acknowledged, crashed: {crashed}", acknowledged.len());
    crashed
}

/// Sends `count` pushes, and every tenth time one that is refused and kept; ends early when nobody answers.
async fn push_until_crash(url: &str, count: usize, acknowledged: &mut Vec<String>) {
    let sender = Sender::new(url);
    for number in 0..count {
        let id = format!("push-{}", acknowledged.len());
        let outcome = sender.push_once(&id, &cdr("s", number as u64)).await;
        if outcome != Outcome::Acknowledged {
            break;
        }
        if number % 10 == 0 {
            // Large, so that the log of refused pushes is compacted soon.
            sender.push_once(&format!("bad-{id}"), &"not json ".repeat(5_000)).await;
        }
        acknowledged.push(id);
    }
}
