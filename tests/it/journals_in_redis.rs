//! The program with its journal in Redis: what a kill at any line leaves, and starts that are refused.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use test_servers::redis::{Program, Redis};

use crate::support::{GatewayBuilder, Outcome, Sender, cdr, folder, trunkline};

const SHARDS: usize = 8;

fn config(redis: &Redis, more: &str) -> String {
    format!("[journal]\nbackend = \"redis\"\n[journal.redis]\nurl = {:?}\n{more}", redis.url())
}

/// Entries in all shards. Without a sink nothing is given back.
fn entries(redis: &Redis) -> usize {
    let len = |shard| redis.command(&["XLEN", &format!("trunkline:{{p{shard}}}:log")]);
    (0..SHARDS).map(|shard| len(shard).parse::<usize>().expect("a number")).sum()
}

#[tokio::test]
async fn a_kill_between_the_write_and_the_reply_leaves_one_copy_and_the_resend_is_acknowledged() {
    for point in ["journal.before_write", "journal.after_sync"] {
        let redis = Redis::start_durable(Program::Redis);
        let dir = folder();
        let builder = || GatewayBuilder::new(dir.path()).config(&config(&redis, "")).sinks("").expect_errors();
        let mut gateway = builder().env("TRUNKLINE_CRASH_AT", &format!("{point}:12")).start().await;
        let sender = Sender::new(&gateway.url());
        let mut acknowledged = 0;
        while sender.push_once_or_nothing(&format!("p-{acknowledged}"), acknowledged).await {
            acknowledged += 1;
        }
        assert!(!gateway.ended().await.success());
        assert_eq!(acknowledged, 11, "{point}");
        assert_eq!(entries(&redis), if point == "journal.after_sync" { 12 } else { 11 }, "{point}");
        let gateway = builder().start().await;
        let sender = Sender::new(&gateway.url());
        for number in 0..=acknowledged {
            let body = cdr(&format!("s-{number}"), number);
            assert_eq!(sender.push("cdr", &format!("p-{number}"), &body).await, Outcome::Acknowledged);
        }
        assert_eq!(entries(&redis), 12, "{point}: none is missing, none is there twice");
        gateway.stop().await;
    }
}

impl Sender {
    /// Whether the push was acknowledged at the first attempt.
    async fn push_once_or_nothing(&self, id: &str, number: u64) -> bool {
        let answer = self.once("cdr", id, cdr(&format!("s-{number}"), number)).await;
        answer.is_some_and(|(_, reply)| reply["ErrCode"].as_i64() == Some(0))
    }
}

#[test]
fn a_redis_that_promises_too_little_is_refused_by_check_and_by_run() {
    let redis = Redis::start(Program::Redis, &["appendonly no"]);
    let dir = folder();
    let text = format!("{}\n[sources.main]\npath = \"/push\"\n", config(&redis, ""));
    std::fs::write(dir.path().join("gateway.toml"), text).unwrap();
    let run = |args: &[&str]| {
        let output = trunkline().args(args).current_dir(dir.path()).output().expect("the program starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for args in [&["check", "--connect"][..], &["run"][..]] {
        let (code, said) = run(args);
        assert_eq!(code, Some(64), "{args:?}: {said}");
        assert!(
            said.contains("appendfsync always") && said.contains("noeviction") | said.contains("maxmemory"),
            "{said}"
        );
    }
    drop(redis);
    let (code, said) = run(&["check", "--connect"]);
    assert_eq!(code, Some(69), "{said}");
}

#[tokio::test]
async fn its_entries_are_listed_and_verified_beside_the_gateway() {
    let redis = Redis::start_durable(Program::Redis);
    let dir = folder();
    let gateway = GatewayBuilder::new(dir.path()).config(&config(&redis, "")).sinks("").start().await;
    let sender = Sender::new(&gateway.url());
    for number in 0..20 {
        let body = cdr(&format!("s-{number}"), number);
        assert_eq!(sender.push("cdr", &format!("p-{number}"), &body).await, Outcome::Acknowledged);
    }
    let run = |args: &[&str]| {
        let output = trunkline().args(args).current_dir(dir.path()).output().expect("the program starts");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, listed) = run(&["journal", "dump", "--json"]);
    assert_eq!(code, Some(0));
    let lines: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let ids: BTreeSet<_> = lines.iter().map(|line| line["push_id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!((lines.len(), ids), (20, (0..20).map(|number| format!("p-{number}")).collect()));
    assert!(lines.iter().any(|line| line["shard"] != 0), "in several shards");
    let (code, report) = run(&["journal", "verify", "--json"]);
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!((code, &report["entries"], &report["problems"]), (Some(0), &json!(20), &json!([])));
    let (code, said) = run(&["journal", "verify"]);
    assert!(code == Some(0) && said.contains("20 entries in 8 shards"), "{said}");

    redis.command(&["XADD", "trunkline:{p3}:log", "4294967290-0", "m", "?", "d", "?", "b", "0"]);
    let (code, said) = run(&["journal", "verify"]);
    assert!(code == Some(1) && said.contains("4294967290") && said.contains("damaged"), "{said}");
    gateway.stop().await;
}
