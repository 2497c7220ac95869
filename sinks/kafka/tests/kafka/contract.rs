//! The conformance suite, in every mode, on brokers that are killed, hang, or lack replicas.

use test_servers::kafka::Kafka;

use crate::harness::{Destination, Outage};

const QUICK: &str = "properties = { \"message.timeout.ms\" = 5000 }\n";

#[tokio::test(flavor = "multi_thread")]
async fn one_node_that_is_killed_and_hangs() {
    let kafka = Kafka::start(1);
    for topic in ["binary.cdr", "structured.cdr"] {
        kafka.create_topic(topic, 3, 1, &[]);
    }
    // Brokers refuse the request that it is in.
    let mut binary = Destination::new(&kafka, "binary", QUICK, Outage::Killed);
    binary.poison = Some(2 << 20);
    sink_api::conformance::run(&binary).await;

    // librdkafka refuses it.
    let structured = format!("mode = \"structured\"\n{QUICK}");
    let mut structured = Destination::new(&kafka, "structured", &structured, Outage::Frozen);
    structured.poison = Some(9 << 20);
    sink_api::conformance::run(&structured).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_and_transactions() {
    let kafka = Kafka::start(1);
    kafka.create_topic("exact.cdr", 3, 1, &[]);
    let mut exact = Destination::new(&kafka, "exact", &format!("transactional = true\n{QUICK}"), Outage::Killed);
    exact.poison = Some(2 << 20);
    sink_api::conformance::run(&exact).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_of_which_two_go() {
    let kafka = Kafka::start(3);
    kafka.create_topic("plain.cdr", 3, 3, &["min.insync.replicas=2"]);
    let mut plain = Destination::new(&kafka, "plain", QUICK, Outage::TooFewReplicas);
    plain.poison = Some(2 << 20);
    sink_api::conformance::run(&plain).await;
    crate::replicas::leaders_change_under_a_load(&kafka).await;
}
