//! Kafka and RabbitMQ at once, with the real program and real brokers that are stopped and restarted in turn while the gateway is
//! killed: every acknowledged push is in both, in the order of its session, and what comes twice has one id.
//!
//! `TRUNKLINE_TEST_PUSHES` makes the load larger.

use std::time::{Duration, Instant};

use test_servers::kafka::Kafka;
use test_servers::rabbitmq::RabbitMq;
use tokio::task::block_in_place;

use crate::kafka::{kafka_sink, wait_for_all};
use crate::support::{
    Arrived, Gateway, GatewayBuilder, Run, SESSIONS, again, folder, in_order_by_session, number_of, setting,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_push_is_in_kafka_and_in_rabbitmq_whatever_is_restarted() {
    let (kafka, mut rabbit) = block_in_place(|| (Kafka::start(1), RabbitMq::start()));
    kafka.create_topic("plain.cdr", 4, 1, &[]);
    let dir = folder();
    let sinks = kafka_sink(&kafka.brokers(), "plain", "") + &amqp_sink(&rabbit.url());
    let start = || GatewayBuilder::new(dir.path()).sinks(&sinks).start();
    let mut run = Run::begin(start().await, setting("TRUNKLINE_TEST_PUSHES", 2_000), SESSIONS);

    run.until(15).await;
    kafka.kill(1);
    run.until(25).await;
    run.restart(start).await;
    kafka.restart(1);
    run.until(40).await;
    block_in_place(|| rabbit.stop_app());
    run.until(50).await;
    block_in_place(|| rabbit.start_app());
    run.until(60).await;
    kafka.stop(1);
    kafka.restart(1);
    run.until(70).await;
    rabbit.kill();
    run.restart(start).await;
    block_in_place(|| rabbit.start_node());
    let (gateway, acknowledged) = run.end().await;

    let in_kafka = wait_for_all(&kafka.reader(&["plain.cdr"], false), &acknowledged).await;
    settled(&gateway).await;
    gateway.stop().await;
    let in_rabbit = block_in_place(|| messages(&rabbit));
    for (broker, events) in [("Kafka", &in_kafka), ("RabbitMQ", &in_rabbit)] {
        let again = again(&acknowledged, events);
        in_order_by_session(events, number_of);
        let (acknowledged, events) = (acknowledged.len(), events.len());
        eprintln!("{broker}: {acknowledged} acknowledged, {events} events, {again} again under their ids");
    }
}

fn amqp_sink(url: &str) -> String {
    format!(
        "[sinks.queue]\ntype = \"amqp\"\nstart = \"oldest\"\nbatch.linger = \"5ms\"\nretry = {{ delay_min = \"50ms\", delay_max = \"1s\" }}\n\
         settings = {{ url = \"{url}\", exchange = \"calls\", declare = {{ queue = \"calls\" }}, timeout = \"3s\" }}\n"
    )
}

/// Waits until no sink has anything before it, as long as it becomes less.
async fn settled(gateway: &Gateway) {
    let (mut least, mut fell_at) = (u64::MAX, Instant::now());
    loop {
        let sinks = gateway.status().await["sinks"].clone();
        let pending = ["stream", "queue"].map(|sink| sinks[sink]["pending"].as_u64().expect("a number"));
        match pending.iter().sum::<u64>() {
            0 => return,
            pending if pending < least => (least, fell_at) = (pending, Instant::now()),
            _ => assert!(fell_at.elapsed() < Duration::from_secs(120), "it is never delivered: {sinks}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What the queue holds.
pub fn messages(rabbit: &RabbitMq) -> Vec<Arrived> {
    let messages = rabbit.reader().drain("calls");
    messages.iter().map(|message| Arrived::new(&message["id"], &message["headers"]["cloudEvents:subject"])).collect()
}
