//! Every sample becomes exactly the reviewed event, and that event is valid under the published schema.
//!
//! `UPDATE_EXPECTED=1 cargo test every_sample_becomes_its_reviewed_event` writes the expectations anew, for review.

use std::path::PathBuf;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use sink_api::Format;

use super::{normalise, read_head, schema};
use crate::journal::Push;
use crate::names::{PushId, SourceName};

const SAMPLES: [(&str, &str); 9] = [
    ("cdr-inbound-transfer", "cdr"),
    ("cdr-outbound", "cdr"),
    ("cdr-quirks", "cdr"),
    ("record", "record"),
    ("record-agent", "record"),
    ("voicemail", "voicemail"),
    ("imcdr", "imcdr"),
    ("videoCdr", "videoCdr"),
    ("future", "future"),
];

pub(super) fn push(action: &str, body: impl Into<Bytes>) -> Push {
    let body = body.into();
    Push {
        id: PushId::from("p-1"),
        source: SourceName::from("main"),
        action: action.to_owned(),
        version: None,
        session: read_head(&body).ok().and_then(|head| head.session),
        received_at: Timestamp::from_millisecond(1_787_100_000_021).unwrap(),
        traceparent: None,
        body,
    }
}

/// Fails where `event` is not valid under the schema of `action`.
pub(super) fn assert_valid(action: &str, event: &Value) {
    let schema = schema(action).unwrap_or_else(|| schema("other").unwrap());
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let errors: Vec<_> =
        validator.iter_errors(event).map(|error| format!("{}: {error}", error.instance_path)).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn every_sample_becomes_its_reviewed_event() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/samples");
    for (sample, action) in SAMPLES {
        let body = std::fs::read(dir.join(format!("{sample}.json"))).unwrap();
        let payload = normalise(&push(action, body)).event.payload(Format::CloudEvents);
        let event: Value = serde_json::from_slice(&payload).unwrap();
        assert_valid(action, &event);
        let path = dir.join(format!("expected/{sample}.json"));
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(&path, format!("{event:#}\n")).unwrap();
        }
        let expected: Value = serde_json::from_slice(&std::fs::read(&path).unwrap_or_default()).unwrap_or_default();
        assert_eq!(event, expected, "{sample}");
    }
}
