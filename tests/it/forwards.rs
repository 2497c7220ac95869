//! Events go out over HTTP: what a receiver refuses is a dead letter, what it cannot take now is tried again in order, and while it
//! is away nothing is lost.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use serde_json::Value;

use crate::support::{Delivered, Gateway, GatewayBuilder, Outcome, Receiver, Sender, cdr, eventually, folder};

const SESSIONS: u64 = 10;

fn number(event: &Value) -> u64 {
    event["data"]["duration_seconds"].as_u64().expect("the number of the push")
}

async fn push(gateway: &Gateway, numbers: std::ops::Range<u64>) {
    let sender = Sender::new(&gateway.url());
    for number in numbers {
        let body = cdr(&format!("s-{}", number % SESSIONS), number);
        assert_eq!(sender.push("cdr", &format!("push-{number}"), &body).await, Outcome::Acknowledged);
    }
}

/// Waits until nothing is pending at the sink `hook`; gives its status.
async fn settled(gateway: &Gateway) -> Value {
    eventually("everything is delivered or a dead letter", async || {
        let status = gateway.status().await;
        let hook = &status["sinks"]["hook"];
        (hook["pending"] == 0 && hook["state"] == "running").then(|| hook.clone())
    })
    .await
}

/// The numbers that were taken, session by session, each where it came first.
fn taken(deliveries: &[Delivered]) -> BTreeMap<String, Vec<u64>> {
    let mut sessions: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for delivered in deliveries.iter().filter(|delivered| delivered.status < 300) {
        let session = delivered.event["subject"].as_str().expect("a session").to_owned();
        let numbers = sessions.entry(session).or_default();
        if !numbers.contains(&number(&delivered.event)) {
            numbers.push(number(&delivered.event));
        }
    }
    sessions
}

fn assert_order(sessions: &BTreeMap<String, Vec<u64>>) {
    for (session, numbers) in sessions {
        assert!(numbers.is_sorted(), "session {session} is out of order: {numbers:?}");
    }
}

#[tokio::test]
async fn refused_events_are_dead_letters_and_failing_sessions_are_tried_again_in_order() {
    let dir = folder();
    let tries: Mutex<HashMap<u64, u32>> = Mutex::default();
    let receiver = Receiver::start(move |event| {
        let number = number(event);
        let mut tries = tries.lock().unwrap();
        let tries = tries.entry(number).or_default();
        *tries += 1;
        match number {
            _ if number % 50 == 7 => 400,
            // A session that fails three times for each of its events, and one that is asked for patience.
            _ if number % SESSIONS == 3 && *tries <= 3 => 500,
            _ if number % SESSIONS == 4 && *tries <= 2 => 429,
            _ => 200,
        }
    })
    .await;
    let gateway = GatewayBuilder::new(dir.path()).sinks(&receiver.sink("hook")).start().await;
    push(&gateway, 0..200).await;
    let hook = settled(&gateway).await;
    assert_eq!((&hook["dead_letters"], &hook["delivered"]), (&4.into(), &196.into()), "{hook}");
    gateway.stop().await;

    let deliveries = receiver.deliveries();
    let sessions = taken(&deliveries);
    assert_order(&sessions);
    assert_eq!(sessions.values().map(Vec::len).sum::<usize>(), 196);
    let answered = |status| deliveries.iter().filter(|delivered| delivered.status == status).count();
    assert_eq!((answered(200), answered(400), answered(500), answered(429)), (196, 4, 60, 40));
}

#[tokio::test]
async fn while_the_receiver_is_down_everything_waits_and_nothing_is_lost() {
    let dir = folder();
    let mut receiver = Receiver::start(|_| 204).await;
    let builder = || GatewayBuilder::new(dir.path()).sinks(&receiver.sink("hook"));
    let gateway = builder().start().await;
    push(&gateway, 0..50).await;
    settled(&gateway).await;

    let sink = builder();
    receiver.stop().await;
    push(&gateway, 50..100).await;
    let hook = eventually("the breaker opens", async || {
        let hook = gateway.status().await["sinks"]["hook"].clone();
        (hook["state"] == "broken" && hook["pending"] == 50).then_some(hook)
    })
    .await;
    assert_eq!((&hook["dead_letters"], &hook["last_error"]["code"]), (&0.into(), &"connect".into()), "{hook}");
    assert!(!gateway.lines().concat().contains("canarytoken"));
    gateway.kill();

    let gateway = sink.start().await;
    push(&gateway, 100..150).await;
    receiver.go_on().await;
    let hook = settled(&gateway).await;
    assert_eq!((&hook["dead_letters"], &hook["delivered"]), (&0.into(), &100.into()), "{hook}");
    gateway.stop().await;

    let sessions = taken(&receiver.deliveries());
    assert_order(&sessions);
    assert_eq!(sessions.values().map(Vec::len).sum::<usize>(), 150);
}
