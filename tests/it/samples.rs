//! Every sample push, sent as the sender sends it, arrives as an event that its published schema accepts.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{GatewayBuilder, Outcome, Sender, folder, wait_for_events};

const SAMPLES: [(&str, &str, &str); 9] = [
    ("cdr-inbound-transfer", "cdr", "cdr"),
    ("cdr-outbound", "CDR", "cdr"),
    ("cdr-quirks", "cdr", "cdr"),
    ("record", "record", "record"),
    ("record-agent", "record", "record"),
    ("voicemail", "voicemail", "voicemail"),
    ("imcdr", "imcdr", "imcdr"),
    ("videoCdr", "videoCdr", "videocdr"),
    ("future", "future", "other"),
];

#[tokio::test]
async fn every_sample_arrives_as_its_schema_says() {
    let root = env!("CARGO_MANIFEST_DIR");
    let dir = folder();
    let gateway = GatewayBuilder::new(dir.path()).start().await;
    let sender = Sender::new(&gateway.url());
    for (sample, action, _) in SAMPLES {
        let body = std::fs::read_to_string(format!("{root}/tests/samples/{sample}.json")).unwrap();
        assert_eq!(sender.push(action, sample, &body).await, Outcome::Acknowledged);
    }
    let events = wait_for_events(&dir.path().join("events.ndjson"), SAMPLES.len()).await;
    let events: BTreeMap<&str, &Value> = events.iter().map(|event| (event["id"].as_str().unwrap(), event)).collect();
    for (sample, _, schema) in SAMPLES {
        let text = std::fs::read_to_string(format!("{root}/deploy/schemas/{schema}.v1.json")).unwrap();
        let schema: Value = serde_json::from_str(&text).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let faults: Vec<_> = validator.iter_errors(events[sample]).map(|error| error.to_string()).collect();
        assert!(faults.is_empty(), "{sample}: {faults:#?}");
    }
    gateway.stop().await;
}
