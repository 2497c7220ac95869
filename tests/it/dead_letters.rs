//! What is stuck can be seen and put right: dead letters of the ingress and of a sink, over the admin API and the command line.
//!
//! Letters of a sink are made of entries whose bodies no longer match their checksums: a digit of each is changed on disk while the
//! gateway is stopped, so that they are still JSON and can be delivered.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{
    Gateway, GatewayBuilder, Sender, by_id, cdr, events, eventually, file_sink, folder, trunkline, wait_for_events,
};

const MARK: &str = "77001";

/// Runs `trunkline dead-letters …` against the gateway; exit code, standard output and standard error.
async fn letters(gateway: &Gateway, args: &[&str]) -> (i32, String, String) {
    let mut command = trunkline();
    command.arg("dead-letters").args(args).args(["--admin", &format!("http://{}", gateway.admin)]).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().expect("the program starts")).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("each line is one JSON object")).collect()
}

async fn post(gateway: &Gateway, path: &str, body: Value) -> (u16, Value) {
    let url = format!("http://{}{path}", gateway.admin);
    let response = reqwest::Client::new().post(url).body(body.to_string()).send().await.unwrap();
    let status = response.status().as_u16();
    if status >= 400 {
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }
    (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap())
}

/// Until no replay runs; then what was counted for a sink.
async fn replayed(gateway: &Gateway, sink: &str) -> (u64, u64) {
    eventually("the replay ends", async || {
        let (_, progress) = gateway.get("/api/v1/dead-letters/replay").await;
        let item = progress["items"].as_array().unwrap().iter().find(|item| item["sink"] == sink).unwrap().clone();
        let counted = (item["delivered"].as_u64().unwrap(), item["failed"].as_u64().unwrap());
        (item["running"] == 0).then_some(counted)
    })
    .await
}

/// Changes the first digit of `MARK` wherever it stands below `dir`.
fn damage(dir: &Path) -> usize {
    let mut damaged = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            damaged += damage(&path);
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        let places: Vec<_> = bytes.windows(MARK.len()).enumerate().filter(|(_, at)| *at == MARK.as_bytes()).collect();
        let places: Vec<_> = places.into_iter().map(|(at, _)| at).collect();
        for at in &places {
            bytes[*at] = b'8';
        }
        if !places.is_empty() {
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(&bytes).unwrap();
        }
        damaged += places.len();
    }
    damaged
}

fn sink(dir: &Path, letters_max: usize) -> String {
    file_sink("events", &dir.join("out/events.ndjson"))
        .replace("batch.linger", &format!("dead_letters_max = {letters_max}\nbatch.linger"))
}

/// A gateway whose sink has `count` damaged entries before it, and a whole one `last` (without which they would count as an unfinished
/// write), and keeps `letters_max` dead letters.
async fn with_damaged(dir: &Path, count: usize, letters_max: usize) -> Gateway {
    std::fs::write(dir.join("out"), "").unwrap();
    let builder = || GatewayBuilder::new(dir).sinks(&sink(dir, letters_max)).expect_errors();
    let gateway = builder().start().await;
    let sender = Sender::new(&gateway.url());
    for number in 0..count {
        let body = cdr(&format!("s{}", number % 2), 77_001);
        assert_eq!(sender.once("cdr", &format!("p{number}"), body).await.unwrap().0, 200);
    }
    assert_eq!(sender.once("cdr", "last", cdr("last", 1)).await.unwrap().0, 200);
    gateway.kill();
    assert_eq!(damage(&dir.join("journal")), count);
    std::fs::remove_file(dir.join("out")).unwrap();
    builder().start().await
}

async fn kept(gateway: &Gateway, count: usize) {
    eventually(&format!("{count} dead letters"), async || {
        (gateway.status().await["sinks"]["events"]["dead_letters"] == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_the_ingress_could_not_take_is_listed_shown_and_exported() {
    let dir = folder();
    let gateway = GatewayBuilder::new(dir.path()).start().await;
    let sender = Sender::new(&gateway.url());
    assert_eq!(sender.once("cdr", "a", "{not json").await.unwrap().0, 400);
    assert_eq!(sender.once("record", "b", &b"{\"x\":\"\xff\"}"[..]).await.unwrap().0, 400);
    assert_eq!(sender.once("cdr", "c", "[]").await.unwrap().0, 400);

    let (_, page) = gateway.get("/api/v1/dead-letters?sink=ingress&action=&limit=2").await;
    let first = &page["items"][0];
    let mut keys: Vec<_> = first.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let mut expected = vec![
        "id",
        "sink",
        "event_id",
        "action",
        "source",
        "session_id",
        "code",
        "reason",
        "attempts",
        "first_attempt_at",
        "last_attempt_at",
        "received_at",
        "size_bytes",
    ];
    expected.sort_unstable();
    assert_eq!(keys, expected);
    assert_eq!(
        (&first["sink"], &first["event_id"], &first["code"]),
        (&json!("ingress"), &json!("a"), &json!("not-json"))
    );
    assert_eq!(page["next"], page["items"][1]["id"]);
    let (_, rest) = gateway.get(&format!("/api/v1/dead-letters?after={}", page["next"].as_str().unwrap())).await;
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next"]), (1, &Value::Null));

    let (code, listed, _) = letters(&gateway, &["list", "--code", "not-json", "--since", "1h"]).await;
    let ids: Vec<_> = lines(&listed).iter().map(|item| item["event_id"].clone()).collect();
    assert_eq!((code, ids), (0, vec![json!("a"), json!("b")]));
    let (_, listed, _) = letters(&gateway, &["list", "--until", "1h"]).await;
    assert_eq!(listed, "");

    let (_, shown, _) = letters(&gateway, &["show", first["id"].as_str().unwrap()]).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["payload"], &shown["event"]["id"]), (&json!("{not json"), &json!("a")));
    let (code, exported, _) = letters(&gateway, &["export", "--sink", "ingress"]).await;
    let exported = lines(&exported);
    assert_eq!((code, exported.len()), (0, 3));
    assert_eq!((&exported[1]["payload_base64"], &exported[1]["payload"]), (&json!("eyJ4Ijoi/yJ9"), &Value::Null));
    gateway.stop().await;
}

#[tokio::test]
async fn a_refused_push_stays_refused_when_replayed_and_a_conflict_says_why() {
    let dir = folder();
    let gateway = GatewayBuilder::new(dir.path()).start().await;
    let sender = Sender::new(&gateway.url());
    assert_eq!(sender.once("cdr", "a", "{not json").await.unwrap().0, 400);
    for number in [1, 2] {
        assert_eq!(sender.once("cdr", "b", cdr("s", number)).await.unwrap().0, 200);
    }
    let (code, said, _) = letters(&gateway, &["replay", "--sink", "ingress", "--all", "--yes"]).await;
    assert_eq!((code, said.trim()), (0, r#"{"selected":2}"#));
    assert_eq!(replayed(&gateway, "ingress").await, (0, 2));
    let (_, listed, _) = letters(&gateway, &["list", "--sink", "ingress"]).await;
    let listed = lines(&listed);
    let codes: Vec<_> = listed.iter().map(|item| (item["code"].clone(), item["attempts"].clone())).collect();
    assert_eq!(codes, [(json!("not-json"), json!(1)), (json!("conflict"), json!(1))]);
    assert!(listed[1]["reason"].as_str().unwrap().contains("cannot be accepted"), "{listed:?}");
    let (_, said, _) = letters(&gateway, &["purge", "--sink", "ingress", "--code", "conflict", "--yes"]).await;
    assert_eq!(said.trim(), r#"{"selected":1}"#);
    let (_, listed, _) = letters(&gateway, &["list"]).await;
    assert_eq!(lines(&listed).len(), 1);
    gateway.stop().await;
}

#[tokio::test]
async fn dead_letters_of_a_sink_are_replayed_in_order_under_the_same_ids_and_removed() {
    let dir = folder();
    let gateway = with_damaged(dir.path(), 5, 100).await;
    kept(&gateway, 5).await;
    let out = dir.path().join("out/events.ndjson");
    wait_for_events(&out, 1).await;
    let (_, said, _) = letters(&gateway, &["replay", "--sink", "events", "--dry-run"]).await;
    assert_eq!(said.trim(), r#"{"selected":5}"#);
    let (code, _, stderr) = letters(&gateway, &["replay", "--sink", "events"]).await;
    assert_eq!((code, stderr.contains("--yes")), (2, true), "{stderr}");
    kept(&gateway, 5).await;
    let (code, said, stderr) = letters(&gateway, &["replay", "--code", "corrupt", "--yes"]).await;
    assert_eq!((code, said.trim()), (0, r#"{"selected":5}"#), "{stderr}");
    assert_eq!(replayed(&gateway, "events").await, (5, 0));
    kept(&gateway, 0).await;
    let ids: Vec<_> = events(&out).iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, ["last", "p0", "p1", "p2", "p3", "p4"]);
    gateway.stop().await;
}

#[tokio::test]
async fn a_replay_that_a_crash_cuts_off_loses_nothing() {
    let dir = folder();
    let gateway = with_damaged(dir.path(), 5, 100).await;
    kept(&gateway, 5).await;
    let ask = json!({"sink": "events", "all": true, "rate": 4.0});
    assert_eq!(post(&gateway, "/api/v1/dead-letters/replay", ask).await, (200, json!({"selected": 5})));
    let out = dir.path().join("out/events.ndjson");
    wait_for_events(&out, 2).await;
    gateway.kill();
    let gateway = GatewayBuilder::new(dir.path()).sinks(&sink(dir.path(), 100)).expect_errors().start().await;
    let left = gateway.status().await["sinks"]["events"]["dead_letters"].as_u64().unwrap() as usize;
    assert!(left > 0 && left + events(&out).len() >= 6);
    letters(&gateway, &["replay", "--all", "--yes"]).await;
    replayed(&gateway, "events").await;
    kept(&gateway, 0).await;
    assert_eq!(by_id(&events(&out)).len(), 6);
    gateway.stop().await;
}

#[tokio::test]
async fn a_full_store_pauses_its_sink_and_drops_nothing() {
    let dir = folder();
    let gateway = with_damaged(dir.path(), 3, 1).await;
    let sender = Sender::new(&gateway.url());
    assert_eq!(sender.once("cdr", "good", cdr("other", 1)).await.unwrap().0, 200);
    let state = async |state: &str| {
        eventually(&format!("the sink is {state}"), async || {
            (gateway.status().await["sinks"]["events"]["state"] == state).then_some(())
        })
        .await;
    };
    state("paused").await;
    kept(&gateway, 1).await;
    let out = dir.path().join("out/events.ndjson");
    for left in [2, 1] {
        let (_, listed, _) = letters(&gateway, &["list", "--sink", "events"]).await;
        let id = lines(&listed)[0]["id"].as_str().unwrap().to_owned();
        assert_eq!(letters(&gateway, &["purge", &id, "--yes"]).await.0, 0);
        eventually(&format!("the next letter of {left} is kept"), async || {
            let (_, page) = gateway.get("/api/v1/dead-letters?sink=events").await;
            page["items"].as_array().unwrap().first().is_some_and(|item| item["id"] != id.as_str()).then_some(())
        })
        .await;
    }
    letters(&gateway, &["replay", "--sink", "events", "--yes"]).await;
    wait_for_events(&out, 3).await;
    kept(&gateway, 0).await;
    state("running").await;
    gateway.stop().await;
}

#[tokio::test]
async fn mistakes_are_told_as_problems_and_change_nothing() {
    let dir = folder();
    let gateway = GatewayBuilder::new(dir.path()).start().await;
    assert_eq!(Sender::new(&gateway.url()).once("cdr", "a", "{").await.unwrap().0, 400);
    for (path, expected) in [
        ("?sink=nobody", 404),
        ("?since=yesterday", 400),
        ("?limit=0", 400),
        ("?limit=x", 400),
        ("?after=nonsense", 400),
        ("?colour=red", 400),
        ("/nonsense", 400),
        ("/ingress-99", 404),
    ] {
        let (status, problem) = gateway.get(&format!("/api/v1/dead-letters{path}")).await;
        assert_eq!((status, problem["status"].as_u64()), (expected, Some(u64::from(expected))), "{path}: {problem}");
    }
    for (ask, expected) in [
        (json!({}), 400),
        (json!({"sink": "ingress"}), 400),
        (json!({"sink": "ingress", "filter": {}}), 400),
        (json!({"sink": "ingress", "ids": []}), 400),
        (json!({"ids": ["ingress-1"], "all": true}), 400),
        (json!({"ids": ["x"]}), 400),
        (json!({"sink": "events", "ids": ["ingress-1"]}), 400),
        (json!({"sink": "nobody", "all": true}), 404),
        (json!({"filter": {"since": "now"}}), 400),
        (json!({"filter": {"colour": "red"}}), 400),
        (json!({"all": true, "every": true}), 400),
        (json!([1]), 400),
    ] {
        for action in ["replay", "purge"] {
            let (status, problem) = post(&gateway, &format!("/api/v1/dead-letters/{action}"), ask.clone()).await;
            assert_eq!(status, expected, "{action} {ask}: {problem}");
        }
    }
    for rate in [json!(0), json!(-1), json!(1e9), json!("fast")] {
        let (status, _) = post(&gateway, "/api/v1/dead-letters/replay", json!({"all": true, "rate": rate})).await;
        assert_eq!(status, 400, "{rate}");
    }
    assert_eq!(letters(&gateway, &["replay", "--yes"]).await.0, 2);
    assert_eq!(letters(&gateway, &["list", "--sink", "nobody"]).await.0, 1);
    let (_, listed, _) = letters(&gateway, &["list"]).await;
    assert_eq!((lines(&listed).len(), lines(&listed)[0]["attempts"].clone()), (1, json!(0)));
    gateway.stop().await;
}

#[test]
fn a_gateway_that_is_not_there_is_exit_code_69() {
    let output = trunkline().args(["dead-letters", "list", "--admin", "http://127.0.0.1:1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
}
