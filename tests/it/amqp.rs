//! Events go to RabbitMQ: whatever happens to connections, to the broker and to the gateway, every acknowledged push is in the queue,
//! in the order of its session, and a broker that blocks is waited for.
//!
//! `TRUNKLINE_TEST_PUSHES` makes the load larger.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use test_servers::rabbitmq::RabbitMq;
use tokio::sync::watch;
use tokio::task::block_in_place;

use crate::support::{Gateway, GatewayBuilder, Outcome, Sender, by_id, cdr, eventually, folder};
use crate::survives_crash::{Load, SENDERS, each_once_in_the_journal, in_order_by_session, setting};

fn builder(dir: &Path, broker: &RabbitMq) -> GatewayBuilder {
    let url = broker.url().replace("guest:guest", "canaryuser:canarysecret");
    GatewayBuilder::new(dir).sinks(&format!(
        "[sinks.queue]\ntype = \"amqp\"\nstart = \"oldest\"\nbatch.linger = \"5ms\"\nretry = {{ delay_min = \"50ms\", delay_max = \"1s\" }}\n\
         [sinks.queue.settings]\nurl = \"{url}\"\nexchange = \"calls\"\ndeclare = {{ queue = \"calls\" }}\ntimeout = \"3s\"\n"
    ))
}

/// Waits until nothing is pending; gives the sink's status. A broker takes its time to come back.
async fn settled(gateway: &Gateway) -> Value {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let queue = gateway.status().await["sinks"]["queue"].clone();
        if queue["pending"] == 0 && queue["state"] == "running" {
            return queue;
        }
        assert!(Instant::now() < deadline, "it is never delivered: {queue}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What the queue holds, as `{id, subject}`.
fn drained(broker: &RabbitMq) -> Vec<Value> {
    let messages = block_in_place(|| broker.reader().drain("calls"));
    let of = |message: Value| json!({ "id": message["id"], "subject": message["headers"]["cloudEvents:subject"] });
    messages.into_iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_while_connections_broker_and_gateway_fail_and_a_blocking_broker_is_waited_for() {
    let dir = folder();
    let mut broker = block_in_place(RabbitMq::start);
    broker.ctl(&["add_user", "canaryuser", "canarysecret"]);
    broker.ctl(&["set_permissions", "canaryuser", ".*", ".*", ".*"]);
    let gateway = load_with_faults(dir.path(), &mut broker).await;
    a_blocking_broker_is_waited_for(&broker, &gateway).await;
    assert!(!gateway.lines().concat().contains("canary"), "{:#?}", gateway.lines());
    gateway.stop().await;
}

async fn load_with_faults(dir: &Path, broker: &mut RabbitMq) -> Gateway {
    let pushes = setting("TRUNKLINE_TEST_PUSHES", 3_000);
    let mut gateway = builder(dir, broker).start().await;
    let (url, url_seen) = watch::channel(gateway.url());
    let load = Arc::new(Load { sent: 0.into(), pushes, acknowledged: Default::default() });
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        senders.spawn(Arc::clone(&load).send(sender, url_seen.clone()));
    }
    let sent = async |share: u64| {
        let due = pushes * share / 6;
        eventually("the load goes on", async || (load.sent.load(Ordering::Relaxed) >= due).then_some(())).await;
    };

    sent(1).await;
    block_in_place(|| broker.close_all_connections());
    sent(2).await;
    block_in_place(|| broker.stop_app());
    sent(3).await;
    gateway.kill();
    gateway = builder(dir, broker).start().await;
    url.send(gateway.url()).expect("senders listen");
    block_in_place(|| broker.start_app());
    sent(4).await;
    broker.kill();
    block_in_place(|| broker.start_node());
    sent(5).await;
    gateway.kill();
    gateway = builder(dir, broker).start().await;
    url.send(gateway.url()).expect("senders listen");
    while let Some(ended) = senders.join_next().await {
        ended.expect("no sender panics");
    }

    let acknowledged = load.acknowledged.lock().await.clone();
    assert!(acknowledged.len() as u64 > pushes * 9 / 10, "{} of {pushes} were acknowledged", acknowledged.len());
    let queue = settled(&gateway).await;
    assert_eq!(queue["dead_letters"], 0, "{queue}");
    let held = drained(broker);
    let counts: HashMap<String, usize> = by_id(&held);
    let missing: HashSet<&String> = acknowledged.iter().filter(|id| !counts.contains_key(*id)).collect();
    assert!(missing.is_empty(), "acknowledged, but not in the queue: {missing:?}");
    each_once_in_the_journal(dir);
    in_order_by_session(&held, dir);
    eprintln!(
        "{} acknowledged, {} messages, {} of them again",
        acknowledged.len(),
        held.len(),
        held.len() - counts.len()
    );
    gateway
}

async fn a_blocking_broker_is_waited_for(broker: &RabbitMq, gateway: &Gateway) {
    block_in_place(|| broker.block());
    let sender = Sender::new(&gateway.url());
    for number in 0..50 {
        let outcome = sender.push("cdr", &format!("blocked-{number}"), &cdr("s", number)).await;
        assert_eq!(outcome, Outcome::Acknowledged, "pushes are acknowledged all the same");
    }
    let queue = eventually("the sink pauses", async || {
        let queue = gateway.status().await["sinks"]["queue"].clone();
        (queue["state"] == "broken" && queue["last_error"]["code"] == "blocked").then_some(queue)
    })
    .await;
    assert_eq!((&queue["dead_letters"], &queue["pending"]), (&0.into(), &50.into()), "{queue}");
    block_in_place(|| broker.unblock());
    settled(gateway).await;
    let ids = by_id(&drained(broker));
    assert_eq!(ids.len(), 50);
}
