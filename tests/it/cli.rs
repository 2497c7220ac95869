//! The commands that work without a running gateway, and the sender against one.

use serde_json::Value;

use crate::support::{GatewayBuilder, folder, trunkline, wait_for_events};

fn run(args: &[&str], dir: &std::path::Path) -> (Option<i32>, String, String) {
    let output = trunkline().args(args).current_dir(dir).output().expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn the_shipped_config_is_right_and_shown_with_its_defaults() {
    let (code, stdout, stderr) = run(&["check"], ROOT.as_ref());
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let effective: toml::Table = stdout.parse().expect("the effective config is TOML");
    assert_eq!(effective["ingress"]["listen"].as_str(), Some("127.0.0.1:8080"));
    assert_eq!(effective["sinks"]["events"]["settings"]["path"].as_str(), Some("data/events.ndjson"));
    assert_eq!(effective["sinks"]["events"]["retry"]["attempts_max"].as_integer(), Some(10));
}

#[test]
fn a_bad_config_is_told_as_a_whole_with_exit_code_64() {
    let dir = folder();
    std::fs::write(
        dir.path().join("gateway.toml"),
        "[ingress]\nlistn = \"127.0.0.1:1\"\nbody_timeout = 5\n[sources.main]\npath = \"push\"\n[sinks.a]\ntype = \"flie\"\n",
    )
    .unwrap();
    for command in ["check", "run"] {
        let (code, stdout, stderr) = run(&[command], dir.path());
        assert_eq!((code, stdout.as_str()), (Some(64), ""), "{command}: {stderr}");
        for part in ["ingress.listn", "`listen`", "ingress.body_timeout", "sources.main.path", "sinks.a.type", "file"] {
            assert!(stderr.contains(part), "{command}: {part} is not in:\n{stderr}");
        }
    }
}

#[test]
fn a_missing_config_says_what_to_do() {
    let dir = folder();
    let (code, _, stderr) = run(&["run"], dir.path());
    assert_eq!(code, Some(64));
    assert!(stderr.contains("gateway.toml"), "{stderr}");
}

#[test]
fn usage_errors_exit_with_2() {
    let dir = folder();
    for args in [&["no-such-command"][..], &["send"], &["journal"], &["schema", "no-such-action"]] {
        assert_eq!(run(args, dir.path()).0, Some(2), "{args:?}");
    }
    assert_eq!(run(&["help"], dir.path()).0, Some(0));
    let (code, stdout, _) = run(&["version"], dir.path());
    assert_eq!((code, stdout), (Some(0), format!("trunkline {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn schemas_are_listed_and_printed() {
    let dir = folder();
    let (code, stdout, _) = run(&["schema", "--json"], dir.path());
    assert_eq!(code, Some(0));
    assert!(stdout.contains("videoCdr"), "{stdout}");
    let (code, stdout, _) = run(&["schema", "CDR"], dir.path());
    assert_eq!(code, Some(0));
    let schema: Value = serde_json::from_str(&stdout).unwrap();
    assert!(schema["properties"]["data"].is_object(), "{schema}");
    let (code, stdout, _) = run(&["schema", "asyncapi"], dir.path());
    assert_eq!(code, Some(0));
    let document: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(document["channels"]["cdr"]["address"], "tccc.cdr");
}

#[test]
fn check_shows_what_each_sink_would_get() {
    let sample = format!("{ROOT}/tests/samples/cdr-outbound.json");
    let (code, stdout, stderr) = run(&["check", "--sample", &sample, "--action", "CDR"], ROOT.as_ref());
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("sink events"), "{stdout}");
    assert!(stdout.contains("\"type\":\"com.tencent.ccc.cdr.v1\""), "{stdout}");
}

#[test]
fn check_connect_says_which_sink_cannot_be_reached() {
    let dir = folder();
    std::fs::write(dir.path().join("blocked"), "").unwrap();
    let config = |path: &str| {
        format!("[sources.main]\npath = \"/push\"\n[sinks.a]\ntype = \"file\"\nsettings.path = {path:?}\n")
    };
    std::fs::write(dir.path().join("gateway.toml"), config("blocked/x")).unwrap();
    let (code, _, stderr) = run(&["check", "--connect"], dir.path());
    assert_eq!(code, Some(69), "{stderr}");
    assert!(stderr.contains("sink a: not reachable"), "{stderr}");
    std::fs::write(dir.path().join("gateway.toml"), config("out/x")).unwrap();
    let (code, _, stderr) = run(&["check", "--connect"], dir.path());
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!dir.path().join("out/x").exists(), "a check writes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn send_counts_what_was_acknowledged_and_the_journal_lists_it() {
    let dir = folder();
    let gateway = GatewayBuilder::new(dir.path()).start().await;
    let sample = format!("{ROOT}/tests/samples/cdr-inbound-transfer.json");
    let url = gateway.url();
    let args = ["send", "--action", "cdr", "--url", &url, "--count", "50", "--sessions", "5", "--json", &sample];
    let (code, stdout, stderr) = run(&args, dir.path());
    assert_eq!(code, Some(0), "{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (report["sent"].as_u64(), report["accepted"].as_u64(), report["failed"].as_u64()),
        (Some(50), Some(50), Some(0))
    );
    for percentile in ["p50", "p90", "p99", "p999", "max"] {
        assert!(report["latency_ms"][percentile].as_f64().unwrap() > 0.0);
    }
    let events = wait_for_events(&dir.path().join("events.ndjson"), 50).await;
    let sessions: std::collections::HashSet<_> = events.iter().map(|event| event["subject"].to_string()).collect();
    assert_eq!(sessions.len(), 5);

    let journal = format!("journal.disk.dir={}", dir.path().join("journal").display());
    let (code, stdout, stderr) = run(&["journal", "dump", "--json", "--set", &journal], dir.path());
    assert_eq!(code, Some(0), "{stderr}");
    let line: Value = serde_json::from_str(stdout.lines().next().unwrap()).unwrap();
    let mut keys: Vec<_> = line.as_object().unwrap().keys().cloned().collect();
    keys.sort();
    assert_eq!(keys, ["action", "offset", "push_id", "received_at", "session_id", "size_bytes", "source"]);
    assert_eq!(stdout.lines().count(), 50);
    let (code, stdout, stderr) = run(&["journal", "verify", "--set", &journal], dir.path());
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    gateway.stop().await;
}

#[test]
fn send_tells_when_nobody_answers() {
    let dir = folder();
    std::fs::write(dir.path().join("push.json"), "{}").unwrap();
    let args =
        ["send", "--action", "cdr", "--url", "http://127.0.0.1:1/push", "--retry-delay", "1ms", "--json", "push.json"];
    let (code, stdout, _) = run(&args, dir.path());
    assert_eq!(code, Some(69));
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((report["failed"].as_u64(), report["retries"].as_u64()), (Some(1), Some(3)));
}
