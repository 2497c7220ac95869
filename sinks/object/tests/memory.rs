//! However large a batch is, it streams: the process grows by parts and row groups, not by the batch. In a process of its own, since
//! it is this one's memory that is looked at.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;

use sink_api::conformance::event_of_size;
use sink_api::{Batch, BatchEvent, Context, Format, Outcome, SinkKind};
use sink_object::Object;
use test_servers::s3::{ACCESS_KEY_ID, S3, SECRET_ACCESS_KEY};

const EVENTS: u64 = 20_000;
const EVENT_SIZE: usize = 2_000;
const GROWTH_MAX_BYTES: u64 = 24 << 20;

/// The most memory that this process has ever held, in bytes.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn a_batch_larger_than_the_memory_it_may_take_streams() {
    let server = S3::start(&["archive"]);
    // The batch itself is small: its events are the same few.
    let events: Vec<_> =
        (0..16).map(|n| Arc::new(event_of_size(&format!("p-{n}"), &format!("s-{n}"), EVENT_SIZE))).collect();
    let entry = |n: u64| BatchEvent { offset: n, attempt: 1, event: Arc::clone(&events[n as usize % events.len()]) };
    let batch = Batch { shard: 0, events: (0..EVENTS).map(entry).collect() };
    for (number, more) in ["file_format = 'ndjson'", "file_format = 'parquet'"].iter().enumerate() {
        let settings = format!(
            "provider = 's3'\nbucket = 'archive'\nendpoint = '{}'\nregion = 'us-east-1'\npath_style = true\naccess_key_id = '{ACCESS_KEY_ID}'\n\
             secret_access_key = '{SECRET_ACCESS_KEY}'\ncompression = 'none'\nkey = 'run-{number}/{{action}}-{{shard}}-{{first}}-{{last}}'\n{more}",
            server.endpoint()
        );
        let context = Context { name: "archive".to_owned(), format: Format::CloudEvents };
        let sink = Object::build(toml::from_str(&settings).unwrap(), context).unwrap();
        sink.probe().await.unwrap();
        let before = peak_bytes();
        let outcomes = sink.deliver(&batch).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::delivered()), "{:?}", outcomes.first());
        let growth = peak_bytes() - before;
        eprintln!("{more}: {} MB of events, {} MB more memory", (EVENTS as usize * EVENT_SIZE) >> 20, growth >> 20);
        assert!(growth < GROWTH_MAX_BYTES, "{more}: {growth} bytes more");
    }
}
