//! An operator sees how the gateway is and changes what it does; nobody else does.

use std::process::Output;

use crate::support::{GatewayBuilder, Outcome, Sender, cdr, events, eventually, folder, trunkline, wait_for_events};

async fn command(admin: std::net::SocketAddr, token: Option<&str>, args: &[&str]) -> Output {
    let mut command = trunkline();
    command.args(["--admin", &format!("http://{admin}")]).args(args);
    if let Some(token) = token {
        command.env("TRUNKLINE_ADMIN_TOKEN", token);
    }
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_pause_survives_a_restart() {
    let dir = folder();
    let out = dir.path().join("events.ndjson");
    let gateway = GatewayBuilder::new(dir.path()).start().await;
    let sender = Sender::new(&gateway.url());
    assert_eq!(sender.push("cdr", "p-1", &cdr("s", 1)).await, Outcome::Acknowledged);
    wait_for_events(&out, 1).await;
    let paused = command(gateway.admin, None, &["sinks", "pause", "events"]).await;
    assert!(paused.status.success(), "{paused:?}");
    assert_eq!(gateway.status().await["sinks"]["events"]["state"], "paused");
    assert_eq!(sender.push("cdr", "p-2", &cdr("s", 2)).await, Outcome::Acknowledged);
    gateway.kill();

    let gateway = GatewayBuilder::new(dir.path()).start().await;
    eventually("the sink waits", async || {
        let sink = gateway.status().await["sinks"]["events"].clone();
        (sink["state"] == "paused" && sink["pending"] == 1).then_some(())
    })
    .await;
    assert_eq!(events(&out).len(), 1);
    assert!(command(gateway.admin, None, &["sinks", "resume", "events"]).await.status.success());
    wait_for_events(&out, 2).await;
    gateway.stop().await;

    let gateway = GatewayBuilder::new(dir.path()).start().await;
    assert_eq!(gateway.status().await["sinks"]["events"]["state"], "running");
    gateway.stop().await;
}

#[tokio::test]
async fn only_the_right_token_changes_something_and_guessing_is_slow() {
    let dir = folder();
    let token = Some("right");
    let gateway = GatewayBuilder::new(dir.path())
        .config("admin.token = { env = \"THE_TOKEN\" }")
        .env("THE_TOKEN", "right")
        .start()
        .await;
    assert_eq!(gateway.get("/api/v1/status").await.0, 200, "status is open");
    let path = "/api/v1/sinks/events/pause";
    let (status, headers, problem) = gateway.call("POST", path, None, "").await;
    assert_eq!((status, problem["status"].as_u64()), (401, Some(401)));
    assert!(headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    for _ in 0..10 {
        assert_eq!(gateway.call("POST", path, Some("wrong"), "").await.0, 401);
    }
    let (status, headers, _) = gateway.call("POST", path, Some("wrong"), "").await;
    assert_eq!(status, 429);
    assert!(headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() <= 60);
    assert_eq!(gateway.status().await["sinks"]["events"]["state"], "running");
    assert_eq!(gateway.call("GET", "/api/v1/config", None, "").await.0, 401);

    assert_eq!(gateway.call("POST", path, token, "").await.0, 200);
    let (status, _, config) = gateway.call("GET", "/api/v1/config", token, "").await;
    assert_eq!((status, &config["admin"]["token"]), (200, &serde_json::json!({"env": "THE_TOKEN"})));
    let refused = command(gateway.admin, None, &["sinks", "resume", "events"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("TRUNKLINE_ADMIN_TOKEN"), "{refused:?}");
    assert!(command(gateway.admin, token, &["sinks", "resume", "events"]).await.status.success());
    assert_eq!(command(gateway.admin, token, &["sinks", "pause", "nobody"]).await.status.code(), Some(1));
    assert!(!gateway.lines().iter().any(|line| line.contains("right")), "a token was logged");
    gateway.stop().await;
}

#[tokio::test]
async fn without_a_token_an_open_listener_changes_nothing() {
    let dir = folder();
    let gateway = GatewayBuilder::new(dir.path()).admin_listen("0.0.0.0:0").start().await;
    let (status, _, problem) = gateway.call("POST", "/api/v1/reload", Some("any"), "").await;
    assert_eq!(status, 403);
    assert!(problem["detail"].as_str().unwrap().contains("admin.token"), "{problem}");
    gateway.stop().await;
}

#[tokio::test]
async fn the_log_filter_changes_while_it_runs() {
    let dir = folder();
    let gateway = GatewayBuilder::new(dir.path()).start().await;
    let set = async |body: &str| gateway.call("PUT", "/api/v1/log-level", None, body).await.0;
    assert_eq!(set("{\"filter\": \"info,trunkline=loud\"}").await, 400);
    assert_eq!(set("{\"level\": \"info\"}").await, 400);
    assert_eq!(set("{\"filter\": \"debug\"}").await, 200);
    let sender = Sender::new(&gateway.url()).without_resends();
    sender.once("specifiedSeat", "p-1", "{}").await.unwrap();
    let has_debug = || gateway.lines().iter().any(|line| line.contains("\"level\":\"DEBUG\""));
    eventually("debug lines come", async || has_debug().then_some(())).await;

    GatewayBuilder::new(dir.path()).config("log.filter = \"warn\"").write();
    assert_eq!(gateway.reload().await.0, 200);
    let is_told = |line: &String| line.contains("config reloaded");
    assert!(!gateway.lines().iter().any(is_told), "the filter of the config wins");
    gateway.stop().await;
}

#[tokio::test]
async fn status_is_what_the_admin_api_says_and_69_where_nobody_answers() {
    let dir = folder();
    let gateway = GatewayBuilder::new(dir.path()).start().await;
    let shown = command(gateway.admin, None, &["status", "--json"]).await;
    assert!(shown.status.success(), "{shown:?}");
    let status: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(status["sinks"]["events"]["type"], "file");
    let admin = gateway.admin;
    gateway.stop().await;
    assert_eq!(command(admin, None, &["status"]).await.status.code(), Some(69));
}
