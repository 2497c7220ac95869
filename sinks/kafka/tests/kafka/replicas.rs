//! Leaders that go away under a load. Run with the cluster of the contract's test, since three nodes take long to start.

use std::collections::{HashMap, HashSet};

use sink_api::conformance::{batch, event};
use test_servers::kafka::Kafka;

use crate::harness::{deliver_at_last, new_records, sink};

const BATCHES: usize = 40;
const EVENTS: usize = 50;
const SESSIONS: usize = 17;

/// Kills the leader of a partition, and later stops another, while batches go out: every event arrives, in order within its session.
pub async fn leaders_change_under_a_load(kafka: &Kafka) {
    kafka.create_topic("leaders.cdr", 3, 3, &["min.insync.replicas=2"]);
    let sink = sink(&kafka.brokers(), "topic = \"leaders.cdr\"");
    let event = |n: usize| event(&format!("e-{n}"), &format!("s-{}", n % SESSIONS));
    for number in 0..BATCHES {
        let first = number * EVENTS;
        match number {
            10 => kafka.kill(2),
            20 => kafka.restart(2),
            25 => kafka.stop(3),
            35 => kafka.restart(3),
            _ => {}
        }
        deliver_at_last(&*sink, batch(0, first as u64 + 1, (first..first + EVENTS).map(event).collect())).await;
    }
    sink.close().await;

    let records = new_records(&kafka.reader(&["leaders.cdr"], false));
    let mut seen = HashSet::new();
    let mut last: HashMap<String, usize> = HashMap::new();
    let mut partition_of: HashMap<String, i32> = HashMap::new();
    for record in &records {
        let partition = *partition_of.entry(record.key.clone()).or_insert(record.partition);
        assert_eq!(partition, record.partition, "session {} changed its partition", record.key);
        let id = record.id();
        if !seen.insert(id.clone()) {
            continue;
        }
        let number: usize = id.strip_prefix("e-").unwrap().parse().unwrap();
        if let Some(before) = last.insert(record.key.clone(), number) {
            assert!(before < number, "session {}: {number} came after {before}", record.key);
        }
    }
    assert_eq!(seen.len(), BATCHES * EVENTS);
}
