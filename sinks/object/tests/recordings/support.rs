//! Events that name recordings, recordings made of bytes, and a sink on a folder.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Value, json};
use sink_api::conformance::{batch, event};
use sink_api::{Context, DerivedPush, Event, Format, Outcome, Sink, SinkKind as _};
use sink_object::{Recordings, RecordingsSettings};
use tempfile::TempDir;
use test_servers::recorder::Recorder;

/// Stands in every URL that is fetched, and must not be seen anywhere.
pub const CANARY: &str = "canarysign";

pub struct Home {
    pub dir: TempDir,
    pub sink: Arc<dyn Sink>,
}

/// A sink that keeps recordings in a folder of its own and may fetch from loopback. `extra` are further settings.
pub fn home(extra: &str) -> Home {
    let dir = tempfile::tempdir().unwrap();
    let sink = sink_on(dir.path(), extra);
    Home { dir, sink }
}

pub fn sink_on(root: &Path, extra: &str) -> Arc<dyn Sink> {
    let place = format!("store = {{ provider = 'disk', root = '{}' }}", root.join("archive").display());
    sink(&format!("hosts = ['127.0.0.1', 'localhost', '10.0.0.1', '169.254.169.254', '[::1]']\n{extra}\n{place}"))
}

pub fn sink(text: &str) -> Arc<dyn Sink> {
    let text = if text.contains("allow_networks") {
        text.to_owned()
    } else {
        format!("allow_networks = ['127.0.0.1/32']\n{text}")
    };
    let settings: RecordingsSettings = toml::from_str(&text).unwrap();
    let context = Context { name: "home".into(), format: Format::CloudEvents };
    assert_eq!(Recordings::check(&settings, &context), []);
    Recordings::build(settings, context).unwrap()
}

/// An event of `action`, whose id is the recording's with `p-` in front.
pub fn named(action: &str, recording: &str, session: &str, urls: Value) -> Event {
    let mut data = json!({ "sdk_app_id": 1400, "session_id": session, "recording_id": recording });
    if action == "voicemail" {
        data["recording_id"] = Value::Null;
    }
    data.as_object_mut().unwrap().extend(urls.as_object().unwrap().clone());
    Event {
        action: action.to_owned(),
        data: RawValue::from_string(data.to_string()).unwrap(),
        ..event(&format!("p-{recording}"), session)
    }
}

/// A `record` event for what lies at `path`.
pub fn record(recorder: &Recorder, path: &str) -> Event {
    named("record", "r-1", "s-1", json!({ "url": recorder.url(&format!("{path}?sign={CANARY}")) }))
}

pub async fn deliver(sink: &Arc<dyn Sink>, event: Event) -> Outcome {
    let outcome = sink.deliver(&batch(0, 1, vec![event])).await.remove(0);
    assert!(!format!("{outcome:?}").contains(CANARY), "{outcome:?}");
    outcome
}

/// The push that follows a delivery, with its body.
pub async fn archived(sink: &Arc<dyn Sink>, event: Event) -> (DerivedPush, Value) {
    match deliver(sink, event).await {
        Outcome::Delivered { derived: Some(derived) } => {
            let body = serde_json::from_slice(&derived.body).unwrap();
            (*derived, body)
        }
        other => panic!("not archived: {other:?}"),
    }
}

/// What a refused or failed delivery says: whether it is tried again, its code and its reason.
pub async fn fault(sink: &Arc<dyn Sink>, event: Event) -> (&'static str, String, String) {
    let (kind, fault) = match deliver(sink, event).await {
        Outcome::Retry { fault, burns_attempt: true, .. } => ("retry", fault),
        Outcome::Retry { fault, burns_attempt: false, .. } => ("patience", fault),
        Outcome::Rejected { fault } => ("rejected", fault),
        Outcome::Unavailable { fault, .. } => ("away", fault),
        other => panic!("no fault: {other:?}"),
    };
    (kind, fault.code.to_string(), fault.reason)
}

impl Home {
    /// The bytes under a key.
    pub fn bytes(&self, key: &Value) -> Vec<u8> {
        std::fs::read(self.dir.path().join("archive").join(key.as_str().unwrap())).unwrap()
    }

    /// How many files there are in the archive, unfinished ones included.
    pub fn files(&self) -> usize {
        count(&self.dir.path().join("archive"))
    }
}

fn count(dir: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries.map(|entry| entry.unwrap().path()).map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
}

/// Bytes that look like an MP3 by their first ones and like nothing else further on; the same for the same seed.
pub fn noise(seed: &str, len: usize) -> Arc<Vec<u8>> {
    let mut state = seed
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let mut bytes = b"ID3\x04\x00\x00\x00\x00\x00\x00".to_vec();
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    Arc::new(bytes)
}

/// An MP3 of this many frames: MPEG-1 layer III, 32 kbit/s, 44.1 kHz.
pub fn mp3(frames: usize) -> Arc<Vec<u8>> {
    let mut frame = [0x55; 104];
    frame[..4].copy_from_slice(&[0xff, 0xfb, 0x10, 0xc0]);
    Arc::new(frame.repeat(frames))
}

/// As long as any request may take in these tests, where a server stalls.
pub const SHORT: Duration = Duration::from_millis(400);
