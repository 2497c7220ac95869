//! Health, status and metrics are honest and well-formed.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{GatewayBuilder, Outcome, Sender, cdr, eventually, folder, wait_for_events};

const PROMTOOL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/servers/usr/bin/promtool");

/// The families that DESIGN names and this version has.
const FAMILIES: [&str; 22] = [
    "trunkline_ingress_pushes_total",
    "trunkline_ingress_ack_seconds",
    "trunkline_ingress_connections",
    "trunkline_auth_failures_total",
    "trunkline_journal_append_seconds",
    "trunkline_journal_sync_seconds",
    "trunkline_journal_bytes",
    "trunkline_journal_entries",
    "trunkline_journal_errors_total",
    "trunkline_sink_delivered_total",
    "trunkline_sink_attempts_total",
    "trunkline_sink_delivery_seconds",
    "trunkline_sink_pending",
    "trunkline_sink_oldest_pending_seconds",
    "trunkline_sink_dead_letters",
    "trunkline_sink_breaker_open",
    "trunkline_normalise_warnings_total",
    "trunkline_tls_not_after_seconds",
    "trunkline_ingress_derived_ids_total",
    "trunkline_ingress_dead_letters",
    "trunkline_dedup_degraded",
    "trunkline_build_info",
];

#[tokio::test]
async fn every_series_is_there_from_the_start_and_promtool_finds_no_fault() {
    let dir = folder();
    let gateway = GatewayBuilder::new(dir.path()).start().await;
    let (status, metrics) = gateway.get("/metrics").await;
    assert_eq!(status, 200);
    let metrics = metrics.as_str().unwrap();
    for family in FAMILIES {
        assert!(metrics.lines().any(|line| line.starts_with(family)), "{family} is missing");
    }
    for series in [
        "trunkline_ingress_pushes_total{action=\"cdr\",outcome=\"accepted\",source=\"main\"} 0",
        "trunkline_ingress_pushes_total{action=\"other\",outcome=\"refused\",source=\"main\"} 0",
        "trunkline_sink_delivered_total{sink=\"events\"} 0",
        "trunkline_sink_attempts_total{outcome=\"rejected\",sink=\"events\"} 0",
        "trunkline_journal_errors_total{kind=\"sync\"} 0",
        "trunkline_dedup_degraded 0",
    ] {
        assert!(metrics.lines().any(|line| line == series), "{series} is missing");
    }
    assert!(Path::new(PROMTOOL).exists(), "promtool is missing; run tests/servers/install");
    let mut promtool =
        Command::new(PROMTOOL).args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let findings = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && findings.is_empty(), "{findings}");
    gateway.stop().await;
}

#[tokio::test]
async fn status_tells_what_was_taken_and_delivered() {
    let dir = folder();
    let gateway = GatewayBuilder::new(dir.path()).start().await;
    let sender = Sender::new(&gateway.url());
    for id in ["a", "b", "a"] {
        assert_eq!(sender.push("cdr", id, &cdr("s", 1)).await, Outcome::Acknowledged);
    }
    wait_for_events(&dir.path().join("events.ndjson"), 2).await;
    let status = eventually("the sink has settled", async || {
        let status = gateway.status().await;
        (status["sinks"]["events"]["pending"] == 0 && status["sinks"]["events"]["delivered"] == 2).then_some(status)
    })
    .await;
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["ready"], true);
    assert_eq!(status["journal"]["backend"], "disk");
    assert_eq!(status["journal"]["size_max"], 10_u64 << 30);
    assert_eq!(status["dedup"], serde_json::json!({"backend": "journal", "degraded": false}));
    assert_eq!(status["sources"]["main"], serde_json::json!({"accepted": 2, "duplicates": 1, "refused": 0}));
    let sink = &status["sinks"]["events"];
    assert_eq!(sink["type"], "file");
    assert_eq!(sink["state"], "running");
    assert_eq!(sink["oldest_pending_seconds"], 0.0);
    assert_eq!(sink["dead_letters"], 0);
    gateway.stop().await;
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let dir = folder();
    let gateway = GatewayBuilder::new(dir.path()).start().await;
    let (status, problem) = gateway.get("/api/v2").await;
    assert_eq!((status, problem["status"].as_u64()), (404, Some(404)));
    assert!(problem["detail"].as_str().unwrap().contains("/api/v1/status"));
    let response = reqwest::Client::new().post(format!("http://{}/livez", gateway.admin)).send().await.unwrap();
    assert_eq!(response.status(), 405);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    gateway.stop().await;
}

#[tokio::test]
async fn the_page_is_served_with_all_its_parts_and_may_load_nothing_else() {
    let dir = folder();
    let gateway = GatewayBuilder::new(dir.path()).start().await;
    let parts = [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")];
    for (path, kind) in parts {
        let (status, headers, _) = gateway.call("GET", path, None, "").await;
        assert_eq!(status, 200, "{path}");
        assert!(headers["content-type"].to_str().unwrap().starts_with(kind), "{headers:?}");
        assert!(headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"), "{headers:?}");
    }
    let (_, page) = gateway.get("/").await;
    let page = page.as_str().unwrap();
    for named in page.split(['"', ' ']).filter(|word| word.ends_with(".css") || word.ends_with(".js")) {
        assert!(parts.iter().any(|(path, _)| path[1..] == *named), "{named} is not served");
    }
    gateway.stop().await;
}
