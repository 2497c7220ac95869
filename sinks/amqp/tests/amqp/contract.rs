//! The conformance suite, in both modes.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use sink_api::conformance::{self, Abilities, Harness, Received, event_of_size};
use sink_api::{Event, Format, Sink};
use test_servers::rabbitmq::{RabbitMq, Reader};
use tokio::task::block_in_place;

use crate::support::sink_at;

/// A quorum queue; what was read of it is gone from the broker and kept here.
struct Queue<'a> {
    broker: &'a RabbitMq,
    mode: &'static str,
    reader: Mutex<Reader>,
    held: Mutex<Vec<Received>>,
}

#[async_trait]
impl Harness for Queue<'_> {
    async fn fresh(&self) -> Arc<dyn Sink> {
        let mode = self.mode;
        let toml = format!(
            "mode = \"{mode}\"\nexchange = \"x-{mode}\"\ntimeout = \"5s\"\nunconfirmed_max = 100\n\
             declare = {{ queue = \"q-{mode}\" }}"
        );
        sink_at(&self.broker.url(), &toml)
    }

    async fn read_back(&self) -> Vec<Received> {
        let messages = block_in_place(|| self.reader.lock().unwrap().drain(&format!("q-{}", self.mode)));
        let mut held = self.held.lock().unwrap();
        held.extend(messages.iter().map(|message| received(self.mode, message)));
        held.clone()
    }

    async fn break_destination(&self) {
        block_in_place(|| self.broker.stop_app());
    }

    async fn mend_destination(&self) {
        block_in_place(|| self.broker.start_app());
    }

    fn abilities(&self) -> Abilities {
        Abilities::default()
    }

    fn poison_event(&self, id: &str, session: &str) -> Option<Event> {
        Some(event_of_size(id, session, 3 << 20))
    }

    fn payload(&self, event: &Event) -> Bytes {
        event.payload(if self.mode == "binary" { Format::Data } else { Format::CloudEvents })
    }

    async fn fingerprint(&self) -> String {
        let held = self.read_back().await;
        let script = "{rabbit_exchange:list_names(), rabbit_amqqueue:list_names()}.";
        let there = block_in_place(|| self.broker.ctl(&["eval", script]));
        format!("{held:?} {there}")
    }

    async fn held(&self) -> Vec<String> {
        block_in_place(|| self.broker.connections())
    }
}

/// As a consumer takes it: the id is the same wherever it stands.
fn received(mode: &str, message: &Value) -> Received {
    let body = message["body"].as_str().unwrap();
    let id = message["id"].as_str().unwrap();
    assert_eq!(message["delivery_mode"], 2);
    assert_eq!(message["routing_key"], "tccc.cdr");
    if mode == "binary" {
        assert_eq!(
            (&message["headers"]["cloudEvents:id"], &message["content_type"]),
            (&id.into(), &"application/json".into())
        );
    } else {
        let event: Value = serde_json::from_str(body).unwrap();
        assert_eq!((&event["id"], &message["content_type"]), (&id.into(), &"application/cloudevents+json".into()));
    }
    Received { id: id.to_owned(), payload: Bytes::copy_from_slice(body.as_bytes()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_modes_keep_the_contract() {
    let broker = RabbitMq::start_with("max_message_size = 2097152", None);
    for mode in ["binary", "structured"] {
        let reader = Mutex::new(broker.reader());
        conformance::run(&Queue { broker: &broker, mode, reader, held: Mutex::default() }).await;
    }
}
