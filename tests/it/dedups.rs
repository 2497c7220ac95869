//! A resend is recognised, whenever and wherever it comes.

use crate::support::{GatewayBuilder, Outcome, Sender, by_id, cdr, folder, wait_for_events};

#[tokio::test]
async fn resends_side_by_side_give_one_event() {
    let dir = folder();
    let gateway = GatewayBuilder::new(dir.path()).start().await;
    let sender = Sender::new(&gateway.url());

    let mut tries = tokio::task::JoinSet::new();
    for number in 0..200 {
        let sender = sender.clone();
        let (id, body) = (format!("push-{}", number % 20), cdr("s", number % 20));
        tries.spawn(async move { sender.push("cdr", &id, &body).await });
    }
    assert!(tries.join_all().await.into_iter().all(|outcome| outcome == Outcome::Acknowledged));

    let path = dir.path().join("events.ndjson");
    wait_for_events(&path, 20).await;
    gateway.stop().await;
    let events = crate::support::events(&path);
    assert!(by_id(&events).values().all(|count| *count == 1), "{:?}", by_id(&events));
    assert_eq!(events.len(), 20);
}

#[tokio::test]
async fn a_resend_after_a_restart_is_recognised() {
    let dir = folder();
    for round in 0..3 {
        let gateway = GatewayBuilder::new(dir.path()).start().await;
        let sender = Sender::new(&gateway.url());
        assert_eq!(sender.push("cdr", "same", &cdr("s", 1)).await, Outcome::Acknowledged);
        assert_eq!(sender.push("cdr", &format!("other-{round}"), &cdr("s", 1)).await, Outcome::Acknowledged);
        wait_for_events(&dir.path().join("events.ndjson"), 2 + round).await;
        if round == 1 { gateway.kill() } else { gateway.stop().await }
    }
    let events = crate::support::events(&dir.path().join("events.ndjson"));
    let ids: Vec<_> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(ids.iter().filter(|id| **id == "same").count(), 1, "{ids:?}");
}

#[tokio::test]
async fn a_push_without_an_id_is_recognised_by_its_content() {
    let dir = folder();
    let gateway = GatewayBuilder::new(dir.path()).start().await;
    let sender = Sender::new(&gateway.url());
    let body = cdr("s", 1);
    assert_eq!(sender.push("cdr", "", &body).await, Outcome::Acknowledged);
    assert_eq!(sender.push("cdr", "", &body).await, Outcome::Acknowledged);
    assert_eq!(sender.push("cdr", "", &cdr("s", 2)).await, Outcome::Acknowledged);
    let events = wait_for_events(&dir.path().join("events.ndjson"), 2).await;
    assert!(events.iter().all(|event| event["id"].as_str().unwrap().starts_with("sha256-")));
    let status = gateway.status().await;
    assert_eq!(status["sources"]["main"]["accepted"], 2);
    assert_eq!(status["sources"]["main"]["duplicates"], 1);
    gateway.stop().await;
}

#[tokio::test]
async fn the_same_id_with_another_body_is_a_duplicate_whose_bytes_are_kept() {
    let dir = folder();
    let gateway = GatewayBuilder::new(dir.path()).start().await;
    let sender = Sender::new(&gateway.url());
    assert_eq!(sender.push("cdr", "same", &cdr("s", 1)).await, Outcome::Acknowledged);
    assert_eq!(sender.push("cdr", "same", &cdr("s", 2)).await, Outcome::Acknowledged);
    let (_, metrics) = gateway.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("trunkline_ingress_dead_letters 1\n"));
    assert!(
        metrics.contains("trunkline_ingress_pushes_total{action=\"cdr\",outcome=\"conflict\",source=\"main\"} 1\n")
    );
    let events = wait_for_events(&dir.path().join("events.ndjson"), 1).await;
    assert_eq!(events[0]["data"]["duration_seconds"], 1);
    gateway.stop().await;
}
