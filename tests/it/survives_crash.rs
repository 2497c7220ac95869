//! kill -9 at any moment: nothing acknowledged is lost, nothing is journalled twice, sessions keep their order.
//!
//! `TRUNKLINE_TEST_PUSHES` and `TRUNKLINE_TEST_KILLS` make the load test larger.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use tokio::sync::{Mutex, watch};

use crate::support::{GatewayBuilder, Outcome, Sender, by_id, cdr, eventually, events, folder, trunkline, wait_for_events};

const SENDERS: u64 = 32;

fn setting(name: &str, default: u64) -> u64 {
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
    eprintln!("{pushes} pushes, {kills} kills: {} acknowledged, {} events, {again} delivered again", acknowledged.len(), events.len());
}

struct Load {
    sent: AtomicU64,
    pushes: u64,
    acknowledged: Mutex<HashSet<String>>,
}

impl Load {
    /// Sends every `SENDERS`th push, each twice in a while, always to where the gateway is now.
    async fn send(self: Arc<Self>, first: u64, url: watch::Receiver<String>) {
        let sender = Sender { resends_max: 20, ..Sender::new("") };
        for number in (first..self.pushes).step_by(SENDERS as usize) {
            let id = format!("push-{number}");
            let body = cdr(&format!("session-{}", number % 97), number);
            let copies = if number % 10 == 0 { 2 } else { 1 };
            for _ in 0..copies {
                let here = sender.at(&url.borrow().clone());
                let mut outcome = here.push_once(&id, &body).await;
                for _ in 0..200 {
                    if outcome == Outcome::Acknowledged {
                        break;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    outcome = sender.at(&url.borrow().clone()).push_once(&id, &body).await;
                }
                if outcome == Outcome::Acknowledged {
                    self.acknowledged.lock().await.insert(id.clone());
                }
            }
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
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

fn each_once_in_the_journal(dir: &Path) {
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
fn in_order_by_session(events: &[Value], dir: &Path) {
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

#[tokio::test]
async fn a_kill_at_every_crash_point_loses_nothing() {
    for point in trunkline::crash::ALL {
        let dir = folder();
        let path = dir.path().join("events.ndjson");
        // Small segments, so that sealing and trimming happen soon.
        let builder = || {
            GatewayBuilder::new(dir.path())
                .config("journal = { size_max = \"64MiB\", disk.segment_size = \"1MiB\" }\ningress.body_size_max = \"64KiB\"")
                .expect_errors()
        };
        let mut gateway = builder().env("TRUNKLINE_CRASH_AT", point).start().await;
        let sender = Sender::new(&gateway.url());
        let mut acknowledged = Vec::new();
        for number in 0..1_500 {
            let id = format!("push-{number}");
            match sender.push_once(&id, &cdr("s", number)).await {
                Outcome::Acknowledged => acknowledged.push(id),
                Outcome::GivenUp { .. } => break,
            }
        }
        let crashed = acknowledged.len() < 1_500;
        if crashed {
            let status = gateway.ended().await;
            assert!(!status.success(), "{point}");
        }
        drop(gateway);

        let gateway = builder().start().await;
        let sender = sender.at(&gateway.url());
        let next = format!("push-{}", acknowledged.len());
        assert_eq!(sender.push("cdr", &next, &cdr("s", acknowledged.len() as u64)).await, Outcome::Acknowledged, "{point}");
        let events = wait_for_events(&path, acknowledged.len() + 1).await;
        let seen = by_id(&events);
        for id in &acknowledged {
            assert!(seen.contains_key(id), "{point}: {id} was acknowledged and is gone");
        }
        gateway.stop().await;
        each_once_in_the_journal(dir.path());
        eprintln!("{point}: {} acknowledged, crashed: {crashed}", acknowledged.len());
    }
}
