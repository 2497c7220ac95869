//! Events and batches to test sinks with.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;
use serde_json::value::RawValue;

use crate::{Batch, BatchEvent, Event};

/// An event of the action `cdr` with this id, of this session. Its `raw` body spans lines, as a body may.
pub fn event(id: &str, session: &str) -> Event {
    event_of_size(id, session, 0)
}

/// As [`event`], with `padding_bytes` of text in both `data` and `raw`.
pub fn event_of_size(id: &str, session: &str, padding_bytes: usize) -> Event {
    let data = json!({ "session_id": session, "id": id, "remark": "x".repeat(padding_bytes), "big": u64::MAX });
    let data = data.to_string();
    Event {
        id: id.to_owned(),
        source: "/tccc/1400000000".to_owned(),
        kind: "com.tencent.ccc.cdr.v1".to_owned(),
        subject: Some(session.to_owned()),
        time: Timestamp::UNIX_EPOCH,
        dataschema: "urn:example:cdr".to_owned(),
        recordedtime: Timestamp::UNIX_EPOCH,
        partitionkey: session.to_owned(),
        pushsource: "main".to_owned(),
        traceparent: None,
        action: "cdr".to_owned(),
        raw: Bytes::from(data.replacen(',', ",\r\n  ", 1)),
        data: RawValue::from_string(data).expect("what serde_json wrote is JSON"),
    }
}

/// A first attempt at `events`, which lie one after the other in `shard` from `first_offset` on.
pub fn batch(shard: u16, first_offset: u64, events: Vec<Event>) -> Batch {
    let events = (first_offset..)
        .zip(events)
        .map(|(offset, event)| BatchEvent { offset, attempt: 1, event: Arc::new(event) })
        .collect();
    Batch { shard, events }
}

/// Polls `future` to its end, but drops it at its `polls_max`-th "not yet": a call that is given up half-way.
pub async fn poll_at_most<F: Future>(polls_max: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut polls_left = polls_max;
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => {
            polls_left = polls_left.saturating_sub(1);
            if polls_left == 0 { Poll::Ready(None) } else { Poll::Pending }
        }
    })
    .await
}
