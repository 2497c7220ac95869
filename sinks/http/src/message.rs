//! What is sent of an event: body and headers, by the HTTP protocol binding of CloudEvents 1.0.2 and its JSON batch format.

use aws_lc_rs::digest;
use bytes::{BufMut, Bytes, BytesMut};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use sink_api::event::DATA_CONTENT_TYPE;
use sink_api::{Event, Format};

use crate::settings::Mode;

/// HTTP protocol binding section 3.1.3.2: space, double quote, percent, and all that is not printable ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// How events are laid out: the mode and the format together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One event: attributes and data in one JSON object.
    Structured,
    /// One event: its payload in this format as the body, the attributes as headers.
    Binary(Format),
    /// One event: its payload in this format as the body, its id in `webhook-id` alone.
    Bare(Format),
    /// Any number of events in a JSON array.
    Batch,
}

/// One request, but for signature and credentials.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// What `webhook-id` says.
    pub id: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Shape {
    /// # Errors
    /// When the two exclude each other, why.
    pub(crate) fn of(mode: Option<Mode>, format: Format) -> Result<Self, String> {
        match (mode, format) {
            (None | Some(Mode::Structured), Format::CloudEvents) => Ok(Self::Structured),
            (Some(Mode::Batch), Format::CloudEvents) => Ok(Self::Batch),
            (None, bare) => Ok(Self::Bare(bare)),
            (Some(Mode::Binary), Format::CloudEvents) => Ok(Self::Binary(Format::Data)),
            (Some(Mode::Binary), format) => Ok(Self::Binary(format)),
            (Some(Mode::Structured | Mode::Batch), _) => {
                Err("carries whole events, so it needs format = \"cloudevents\"; leave it out, or write \"binary\""
                    .to_owned())
            }
        }
    }

    /// The request for one event.
    pub(crate) fn message(self, event: &Event) -> Message {
        let (content_type, format) = match self {
            Self::Structured => ("application/cloudevents+json", Format::CloudEvents),
            Self::Binary(format) | Self::Bare(format) => (DATA_CONTENT_TYPE, format),
            Self::Batch => return batch(&[event]),
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if matches!(self, Self::Binary(_)) {
            headers.extend(attributes(event));
        }
        Message { id: event.id.clone(), headers, body: event.payload(format) }
    }
}

/// The request for several events. Its id is the same for the same events in the same order.
pub(crate) fn batch(events: &[&Event]) -> Message {
    let mut body = BytesMut::new();
    let mut ids = digest::Context::new(&digest::SHA256);
    for event in events {
        body.put_u8(if body.is_empty() { b'[' } else { b',' });
        body.extend_from_slice(&event.payload(Format::CloudEvents));
        ids.update(event.id.as_bytes());
        ids.update(b"\n");
    }
    body.put_u8(b']');
    let hex: String = ids.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/cloudevents-batch+json"));
    Message { id: format!("batch-{hex}"), headers, body: body.freeze() }
}

/// `ce-<name>` for each attribute; the content type has a header of its own.
fn attributes(event: &Event) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let attributes = event.attributes().into_iter().filter(|(name, _)| *name != "datacontenttype");
    attributes.map(|(name, value)| {
        let name = HeaderName::from_bytes(format!("ce-{name}").as_bytes()).expect("attribute names are a-z and 0-9");
        let value = utf8_percent_encode(&value, ENCODED).to_string();
        (name, HeaderValue::from_str(&value).expect("what is not printable ASCII is encoded"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        let data = serde_json::value::RawValue::from_string("{\"n\":1}".to_owned()).unwrap();
        let time = "2026-08-17T21:59:02Z".parse().unwrap();
        Event {
            id: "p-1".into(),
            source: "/tccc/1400".into(),
            kind: "com.tencent.ccc.cdr.v1".into(),
            subject: Some("Euro € \"a b\" 100%\u{7f}".into()),
            time,
            dataschema: "urn:x".into(),
            recordedtime: time,
            partitionkey: "s-1".into(),
            pushsource: "main".into(),
            traceparent: None,
            action: "cdr".into(),
            data,
            raw: Bytes::from_static(b"{\n}"),
        }
    }

    #[test]
    fn binary_mode_percent_encodes_as_the_specification_says() {
        let message = Shape::Binary(Format::Data).message(&event());
        assert_eq!(message.headers["ce-subject"], "Euro%20%E2%82%AC%20%22a%20b%22%20100%25%7F");
        assert_eq!(message.headers["ce-type"], "com.tencent.ccc.cdr.v1");
        assert_eq!(message.headers["ce-specversion"], "1.0");
        assert_eq!(message.headers[CONTENT_TYPE], "application/json");
        assert!(!message.headers.contains_key("ce-datacontenttype"));
        assert_eq!(&message.body[..], b"{\"n\":1}");
    }

    #[test]
    fn without_a_mode_the_payload_stands_alone() {
        let message = Shape::Bare(Format::Raw).message(&event());
        assert_eq!((message.id.as_str(), &message.body[..]), ("p-1", &b"{\n}"[..]));
        assert_eq!(message.headers.len(), 1);
    }

    #[test]
    fn a_batch_is_an_array_whose_id_depends_on_its_events_alone() {
        let (one, other) = (event(), Event { id: "p-2".into(), ..event() });
        let message = batch(&[&one, &other]);
        let events: Vec<serde_json::Value> = serde_json::from_slice(&message.body).unwrap();
        assert_eq!((&events[0]["id"], &events[1]["id"]), (&"p-1".into(), &"p-2".into()));
        assert_eq!(message.id, batch(&[&one, &other]).id);
        assert_ne!(message.id, batch(&[&other, &one]).id);
        assert_ne!(message.id, batch(&[&one]).id);
        assert_eq!(message.id.len(), "batch-".len() + 64);
    }
}
