//! A gateway process to test against, a sender that resends as the vendor's does, and readers of what arrived.

mod balancer;
mod gateway;
mod load;
mod receiver;
mod sender;

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

pub use self::balancer::Balancer;
pub use self::gateway::{Gateway, GatewayBuilder, file_sink, folder, trunkline};
pub use self::load::{Arrived, Load, Run, SESSIONS, Seen, again, in_order_by_session, number_of, setting};
pub use self::receiver::{Delivered, Receiver};
pub use self::sender::{Outcome, Sender};

/// How long anything that should happen soon may take, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until `condition` gives something; panics with `what` after [`PATIENCE`].
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "this did not happen within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The events of an NDJSON file; none where there is no file. A last line without its end is not read.
pub fn events(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).expect("each line is one JSON object")).collect()
}

/// Waits until the file holds at least `count` different event ids; gives all its events.
pub async fn wait_for_events(path: &Path, count: usize) -> Vec<Value> {
    eventually(&format!("{count} events in {}", path.display()), async || {
        let events = events(path);
        (by_id(&events).len() >= count).then_some(events)
    })
    .await
}

/// How often each event id occurs.
pub fn by_id(events: &[Value]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for event in events {
        *counts.entry(event["id"].as_str().expect("an id").to_owned()).or_default() += 1;
    }
    counts
}

/// A call record with `number` in a field that reaches the event unchanged.
pub fn cdr(session: &str, number: u64) -> String {
    format!(
        r#"{{"SdkAppId":1400880011,"SessionId":"{session}","Caller":"0086138","Callee":"0086755","Direction":0,"Duration":{number},"StartTimestamp":1787003600,"EndedTimestamp":1787003942,"EndStatusString":"ok","Padding":"{}"}}"#,
        "x".repeat(900)
    )
}
