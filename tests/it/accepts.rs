//! Acknowledged means durable, and what is acknowledged arrives.

use serde_json::json;

use crate::support::{GatewayBuilder, Outcome, Sender, cdr, events, folder, wait_for_events};

#[tokio::test]
async fn a_push_travels_from_socket_to_sink() {
    let dir = folder();
    let gateway = GatewayBuilder::new(dir.path()).start().await;
    let sender = Sender::new(&gateway.url());

    let (status, reply) = sender.once("cdr", "push-1", cdr("session-1", 7)).await.unwrap();
    assert_eq!((status, reply), (200, json!({"ErrCode": 0, "ErrMsg": "ok"})));

    let events = wait_for_events(&dir.path().join("events.ndjson"), 1).await;
    let event = &events[0];
    assert_eq!(event["id"], "push-1");
    assert_eq!(event["type"], "com.tencent.ccc.cdr.v1");
    assert_eq!(event["source"], "/tccc/1400880011");
    assert_eq!(event["subject"], "session-1");
    assert_eq!(event["pushsource"], "main");
    assert_eq!(event["data"]["duration_seconds"], 7);
    gateway.stop().await;
}

#[tokio::test]
async fn every_refusal_says_why_and_leaves_nothing_behind() {
    let dir = folder();
    let gateway = GatewayBuilder::new(dir.path()).start().await;
    let sender = Sender::new(&gateway.url());

    for (action, body, status, code) in [
        ("cdr", "not json", 400, 4002),
        ("cdr", "[1]", 400, 4002),
        ("", "{}", 400, 4005),
        ("specifiedSeat", "{}", 400, 4006),
        ("SPECIFIEDSEAT", "{}", 400, 4006),
    ] {
        let (got, reply) = sender.once(action, "refused", body).await.unwrap();
        assert_eq!((got, reply["ErrCode"].as_i64()), (status, Some(code)), "{action} {body}");
        assert!(!reply["ErrMsg"].as_str().unwrap().is_empty());
    }
    // Something accepted afterwards shows that the sink had its chance.
    assert_eq!(sender.push("cdr", "accepted", &cdr("s", 1)).await, Outcome::Acknowledged);
    wait_for_events(&dir.path().join("events.ndjson"), 1).await;
    assert_eq!(events(&dir.path().join("events.ndjson")).len(), 1);

    let status = gateway.status().await;
    assert_eq!(status["sources"]["main"], json!({"accepted": 1, "duplicates": 0, "refused": 5}));
    let (_, metrics) = gateway.get("/metrics").await;
    assert!(metrics.as_str().unwrap().contains("trunkline_ingress_dead_letters 2\n"), "not-JSON pushes are kept");
    gateway.stop().await;
}

#[tokio::test]
async fn a_full_journal_refuses_and_goes_on_once_there_is_room() {
    let dir = folder();
    let blocked = dir.path().join("blocked");
    std::fs::write(&blocked, "a file where the sink needs a folder").unwrap();
    let out = blocked.join("events.ndjson");
    let gateway = GatewayBuilder::new(dir.path())
        .config("journal = { size_max = \"4MiB\", disk.segment_size = \"2MiB\" }\ningress.body_size_max = \"256KiB\"")
        .sinks(&crate::support::file_sink("events", &out))
        .expect_errors()
        .start()
        .await;
    let sender = Sender::new(&gateway.url()).without_resends();

    let large = cdr("s", 1).replace("Padding\":\"", &format!("Padding\":\"{}", "y".repeat(100_000)));
    let mut accepted = Vec::new();
    let refusal = loop {
        let id = format!("push-{}", accepted.len());
        match sender.push("cdr", &id, &large).await {
            Outcome::Acknowledged => accepted.push(id),
            refusal => break refusal,
        }
        assert!(accepted.len() < 100, "4 MiB cannot hold 100 pushes of 100 kB");
    };
    assert_eq!(refusal, Outcome::GivenUp { status: Some(503), err_code: Some(5030) });
    assert!(accepted.len() > 20, "{} pushes were taken before the journal was full", accepted.len());
    let (ready, reasons) = gateway.get("/readyz").await;
    assert_eq!(ready, 503, "{reasons}");
    // What is known is still answered as known.
    assert_eq!(sender.push("cdr", "push-0", &large).await, Outcome::Acknowledged);

    std::fs::remove_file(&blocked).unwrap();
    wait_for_events(&out, accepted.len()).await;
    crate::support::eventually("the journal takes pushes again", async || {
        (sender.push("cdr", "late", &large).await == Outcome::Acknowledged).then_some(())
    })
    .await;
    wait_for_events(&out, accepted.len() + 1).await;
    gateway.stop().await;
}
