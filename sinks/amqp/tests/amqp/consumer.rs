//! The consumer of the README, as it stands there.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use test_servers::process::installed;
use test_servers::rabbitmq::RabbitMq;
use tokio::task::block_in_place;

use crate::support::{deliver_alike, events, sink_at};

/// Everything comes twice; the consumer takes each event once.
pub async fn the_consumer_of_the_readme_takes_each_event_once(broker: &RabbitMq) {
    let sink = sink_at(&broker.url(), "exchange = \"calls\"\ndeclare = { queue = \"calls\" }");
    for _ in 0..2 {
        assert_eq!(deliver_alike(&sink, events("twice", 50)).await, "delivered");
    }
    assert_eq!(deliver_alike(&sink, events("last", 1)).await, "delivered");
    sink.close().await;
    let taken = block_in_place(|| run_consumer(&broker.url()));
    let mut expected: Vec<String> = (0..50).map(|n| format!("twice-{n}")).collect();
    let mut found: Vec<String> =
        taken.iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    assert!(taken.contains(&"twice-7 com.tencent.ccc.cdr.v1 twice-s7".to_owned()), "{taken:?}");
}

/// What it prints before it comes to the last event.
fn run_consumer(url: &str) -> Vec<String> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let code = readme.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut consumer = Command::new(installed("python/bin/python"))
        .args(["-c", code])
        .env("AMQP_URL", url)
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(consumer.stdout.take().unwrap()).lines().map(Result::unwrap);
    let taken = lines.take_while(|line| !line.starts_with("last-0 ")).collect();
    consumer.kill().unwrap();
    consumer.wait().unwrap();
    taken
}
