//! kill -9 at any moment: nothing acknowledged is lost, nothing is journalled twice, sessions keep their order.
//!
//! `TRUNKLINE_TEST_PUSHES` and `TRUNKLINE_TEST_KILLS` make the load test larger.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use crate::support::{
    Arrived, GatewayBuilder, Outcome, Run, SESSIONS, Sender, again, by_id, cdr, events, folder, in_order_by_session,
    setting, trunkline, wait_for_events,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_with_resends_and_kills_loses_nothing() {
    let (pushes, kills) = (setting("TRUNKLINE_TEST_PUSHES", 3_000), setting("TRUNKLINE_TEST_KILLS", 4));
    let dir = folder();
    let start = || GatewayBuilder::new(dir.path()).start();
    let mut run = Run::begin(start().await, pushes, 2 * SESSIONS);
    for kill in 1..=kills {
        run.until(100 * kill / (kills + 1)).await;
        run.restart(start).await;
    }
    let (gateway, acknowledged) = run.end().await;
    let path = dir.path().join("events.ndjson");
    wait_for_events(&path, acknowledged.len()).await;
    gateway.stop().await;

    let places = journalled(dir.path());
    let events: Vec<_> = events(&path).iter().map(|event| Arrived::new(&event["id"], &event["subject"])).collect();
    let again = again(&acknowledged, &events);
    in_order_by_session(&events, |id| places.get(id).copied());
    eprintln!("{pushes} pushes, {kills} kills: {} events, {again} delivered again", events.len());
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

/// Where each push is in the journal. Fails where one is there twice.
pub fn journalled(dir: &Path) -> HashMap<String, u64> {
    let mut places = HashMap::new();
    for line in dump(dir) {
        let id = line["push_id"].as_str().unwrap().to_owned();
        let offset = line["offset"].as_u64().unwrap();
        if let Some(earlier) = places.insert(id.clone(), offset) {
            panic!("{id} is in the journal twice, at {earlier} and {offset}");
        }
    }
    places
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
    journalled(dir.path());
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
