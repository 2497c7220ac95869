//! What consumers would read us with: the reference library of Standard Webhooks, and the CloudEvents SDK, both from PyPI.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sink_api::conformance::{batch, event};
use sink_api::{Event, Format};

use crate::receiver::{Answer, Received, Receiver, sink_in, told};

const NEW: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OLD: &str = "whsec_b2xkIG9sZCBvbGQgb2xkIG9sZCBvbGQgb2xkIG9sZCE=";

fn python() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join("target/servers/python/bin/python");
    assert!(python.is_file(), "{} is missing; install it with tests/servers/install", python.display());
    python
}

/// Gives each request to `consumer.py`, which verifies it with `secret`; what it read as events.
fn read_by_libraries(secret: &str, requests: &[Received]) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/consumer.py");
    let mut child = Command::new(python())
        .arg(script)
        .arg(secret)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    let mut input = child.stdin.take().unwrap();
    for request in requests {
        let headers: serde_json::Map<String, Value> = request
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), Value::from(value.to_str().unwrap())))
            .collect();
        let line = json!({ "headers": headers, "body": BASE64_STANDARD.encode(&request.body) });
        writeln!(input, "{line}").unwrap();
    }
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the libraries do not take what was sent; see above");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn events() -> Vec<Event> {
    let plain = event("p-1", "s-1");
    let odd = Event {
        subject: Some("Euro € \"a b\" 100% 坐席".into()),
        partitionkey: "坐席 1".into(),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        ..event("p-2.with.stops~!", "s-2")
    };
    vec![plain, odd]
}

async fn sent(mode: &str, format: Format) -> Vec<Received> {
    let receiver = Receiver::start(|_| Answer::status(200)).await;
    let more = format!("signing_secret = [\"{NEW}\", \"{OLD}\"]\n{mode}");
    let outcomes = sink_in(format, &receiver.url(), &more).deliver(&batch(0, 1, events())).await;
    assert!(outcomes.iter().all(|outcome| told(outcome).0 == "delivered"), "{outcomes:?}");
    let mut posted = receiver.posted();
    posted.sort_by_key(|received| received.header("webhook-id").to_owned());
    posted
}

#[tokio::test]
async fn signatures_and_events_are_read_back_in_every_mode_and_with_either_secret() {
    for mode in ["", "mode = \"structured\"", "mode = \"binary\"", "mode = \"batch\""] {
        let requests = sent(mode, Format::CloudEvents).await;
        assert_eq!(requests.len(), if mode.contains("batch") { 1 } else { 2 });
        for secret in [NEW, OLD] {
            let read = read_by_libraries(secret, &requests);
            assert_eq!(read.len(), 2, "{mode}");
            for (event, read) in events().iter().zip(&read) {
                let expected: Value = serde_json::to_value(event).unwrap();
                assert_eq!(*read, expected, "{mode}");
            }
        }
    }
}

#[tokio::test]
async fn the_id_is_that_of_the_event() {
    for format in [Format::CloudEvents, Format::Data, Format::Raw] {
        let requests = sent("", format).await;
        let ids: Vec<_> = requests.iter().map(|request| request.header("webhook-id")).collect();
        assert_eq!(ids, ["p-1", "p-2.with.stops~!"]);
    }
}

#[tokio::test]
async fn what_was_tampered_with_or_signed_by_another_is_not_taken() {
    let script_takes =
        |secret: &str, requests: &[Received]| std::panic::catch_unwind(|| read_by_libraries(secret, requests)).is_ok();
    let requests = sent("", Format::CloudEvents).await;
    assert!(script_takes(NEW, &requests));
    assert!(!script_takes("whsec_c29tZWJvZHkgZWxzZSBzb21lYm9keSBlbHNl", &requests));
    for header in ["webhook-id", "webhook-timestamp"] {
        let mut tampered = requests.clone();
        let other = format!("{}1", tampered[0].header(header));
        tampered[0].headers.insert(header, other.parse().unwrap());
        assert!(!script_takes(NEW, &tampered), "{header}");
    }
    let mut tampered = requests.clone();
    tampered[0].body = [&tampered[0].body[..], b" "].concat().into();
    assert!(!script_takes(NEW, &tampered));
}
