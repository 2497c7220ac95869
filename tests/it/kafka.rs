//! Transactions of the sink `kafka`, with the real program and a real broker: a gateway that is killed, and a consumer that is neither of
//! ours.
//!
//! `TRUNKLINE_TEST_PUSHES` makes the loads larger.

use std::collections::HashSet;

use serde_json::Value;
use test_servers::kafka::{Kafka, Reader};
use tokio::task::block_in_place;

use crate::support::{
    Arrived, GatewayBuilder, Run, SESSIONS, again, eventually, folder, in_order_by_session, number_of, setting,
};

/// A sink to `brokers`, with `more` settings.
pub fn kafka_sink(brokers: &str, topic: &str, more: &str) -> String {
    format!(
        "[sinks.stream]\ntype = \"kafka\"\nstart = \"oldest\"\nbatch.linger = \"5ms\"\nretry = {{ delay_min = \"50ms\", delay_max = \"1s\" }}\n\
         settings = {{ brokers = \"{brokers}\", topic = \"{topic}.{{action}}\", {more} properties = {{ \"message.timeout.ms\" = 10000 }} }}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_of_committed_records_sees_each_event_once_across_kills() {
    let kafka = block_in_place(|| Kafka::start(1));
    kafka.create_topic("exact.cdr", 4, 1, &[]);
    let dir = folder();
    let sink = kafka_sink(&kafka.brokers(), "exact", "transactional = true,");
    let start = || GatewayBuilder::new(dir.path()).sinks(&sink).start();
    let mut run = Run::begin(start().await, setting("TRUNKLINE_TEST_PUSHES", 2_000), SESSIONS);
    for percent in [15, 30, 50, 70, 90] {
        run.until(percent).await;
        run.restart(start).await;
    }
    let (gateway, acknowledged) = run.end().await;

    let events = wait_for_all(&kafka.reader(&["exact.cdr"], true), &acknowledged).await;
    gateway.stop().await;
    assert_eq!(again(&acknowledged, &events), 0, "an event was seen twice");
    in_order_by_session(&events, number_of);
    // Aborted transactions leave records that such a consumer passes over.
    let written = records(&kafka.reader(&["exact.cdr"], false));
    eprintln!("{} acknowledged, {} seen, {} written", acknowledged.len(), events.len(), written.len());
}

fn records(reader: &Reader) -> Vec<Arrived> {
    let arrived = |line: &String| {
        let record: Value = serde_json::from_str(line).unwrap();
        Arrived::new(&record["headers"]["ce_id"], &record["key"])
    };
    reader.read_new().iter().map(arrived).collect()
}

pub async fn wait_for_all(reader: &Reader, acknowledged: &HashSet<String>) -> Vec<Arrived> {
    let (mut seen, mut ids) = (Vec::new(), HashSet::new());
    while ids.len() < acknowledged.len() {
        let new = eventually("every acknowledged push is in Kafka", async || {
            let new = records(reader);
            (!new.is_empty()).then_some(new)
        })
        .await;
        ids.extend(new.iter().map(|one| one.id.clone()));
        seen.extend(new);
    }
    assert!(acknowledged.iter().all(|id| ids.contains(id)));
    seen
}
