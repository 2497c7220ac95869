//! The conformance suite, in every mode and format.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::value::RawValue;
use sink_api::conformance::{self, Abilities, Harness, event};
use sink_api::{Event, Format, Sink};

use crate::receiver::{Answer, Received, Receiver, sink_in};

struct Hook {
    receiver: Receiver,
    mode: &'static str,
    format: Format,
}

/// Refuses what names the poison, wherever the mode puts an id.
fn script(received: &Received) -> Answer {
    let in_header =
        ["webhook-id", "ce-id"].iter().any(|name| received.headers.get(*name).is_some_and(|id| id == "poison"));
    let in_body = received.body.windows(15).any(|part| part == b"\"id\":\"poison\",\"");
    Answer::status(if in_header || in_body { 400 } else { 204 })
}

#[async_trait]
impl Harness for Hook {
    async fn fresh(&self) -> Arc<dyn Sink> {
        sink_in(self.format, &self.receiver.url(), self.mode)
    }

    async fn read_back(&self) -> Vec<conformance::Received> {
        let taken = self.receiver.posted().into_iter().filter(|received| received.status == 204);
        let of_one = |received: Received| {
            let content_type = received.header("content-type");
            if content_type == "application/cloudevents-batch+json" {
                let events: Vec<Box<RawValue>> = serde_json::from_slice(&received.body).unwrap();
                events.into_iter().map(|event| structured(event.get().as_bytes())).collect()
            } else if content_type == "application/cloudevents+json" {
                vec![structured(&received.body)]
            } else {
                let id = received.header("webhook-id").to_owned();
                vec![conformance::Received { id, payload: received.body }]
            }
        };
        taken.flat_map(of_one).collect()
    }

    async fn break_destination(&self) {
        self.receiver.stop().await;
    }

    async fn mend_destination(&self) {
        self.receiver.go_on().await;
    }

    fn abilities(&self) -> Abilities {
        Abilities::default()
    }

    fn poison_event(&self, id: &str, session: &str) -> Option<Event> {
        Some(event(id, session))
    }

    fn payload(&self, event: &Event) -> Bytes {
        let is_binary = self.mode.contains("binary") && self.format == Format::CloudEvents;
        event.payload(if is_binary { Format::Data } else { self.format })
    }

    async fn held(&self) -> Vec<String> {
        let open = self.receiver.still_open().await;
        (0..open).map(|n| format!("connection {n}")).collect()
    }
}

fn structured(text: &[u8]) -> conformance::Received {
    let event: serde_json::Value = serde_json::from_slice(text).unwrap();
    conformance::Received { id: event["id"].as_str().unwrap().to_owned(), payload: Bytes::copy_from_slice(text) }
}

async fn run(mode: &'static str, format: Format) {
    conformance::run(&Hook { receiver: Receiver::start(script).await, mode, format }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn structured_mode_keeps_the_contract() {
    run("", Format::CloudEvents).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_mode_keeps_the_contract() {
    run("mode = \"binary\"", Format::CloudEvents).await;
    run("mode = \"binary\"", Format::Raw).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_mode_keeps_the_contract() {
    run("mode = \"batch\"", Format::CloudEvents).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_alone_keep_the_contract() {
    run("", Format::Data).await;
    run("", Format::Raw).await;
}
