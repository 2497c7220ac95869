//! Events go to RabbitMQ: whatever happens to connections, to the broker and to the gateway, every acknowledged push is in the queue,
//! in the order of its session, and a broker that blocks is waited for.
//!
//! `TRUNKLINE_TEST_PUSHES` makes the load larger.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use test_servers::rabbitmq::RabbitMq;
use tokio::task::block_in_place;

use crate::brokers::messages;
use crate::support::{
    Gateway, GatewayBuilder, Outcome, Run, SESSIONS, Sender, again, cdr, eventually, folder, in_order_by_session,
    setting,
};
use crate::survives_crash::journalled;

fn builder(dir: &Path, broker_url: &str) -> GatewayBuilder {
    let url = broker_url.replace("guest:guest", "canaryuser:canarysecret");
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
    let url = broker.url();
    let start = || builder(dir, &url).start();
    let mut run = Run::begin(start().await, pushes, SESSIONS);
    run.until(15).await;
    block_in_place(|| broker.close_all_connections());
    run.until(30).await;
    block_in_place(|| broker.stop_app());
    run.until(45).await;
    run.restart(start).await;
    block_in_place(|| broker.start_app());
    run.until(60).await;
    broker.kill();
    block_in_place(|| broker.start_node());
    run.until(75).await;
    run.restart(start).await;
    let (gateway, acknowledged) = run.end().await;
    let queue = settled(&gateway).await;
    assert_eq!(queue["dead_letters"], 0, "{queue}");
    let held = block_in_place(|| messages(broker));
    let again = again(&acknowledged, &held);
    let places = journalled(dir);
    in_order_by_session(&held, |id| places.get(id).copied());
    eprintln!("{} acknowledged, {} messages, {again} of them again", acknowledged.len(), held.len());
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
    let held = block_in_place(|| messages(broker));
    let expected: HashSet<String> = (0..50).map(|number| format!("blocked-{number}")).collect();
    again(&expected, &held);
}
