//! A record: topic, key, headers and payload of one event, by the Kafka protocol binding of CloudEvents 1.0.
//!
//! | mode | format | `content-type` | payload | attributes |
//! |---|---|---|---|---|
//! | binary | cloudevents, data | `application/json` | `data` | headers `ce_<name>` |
//! | binary | raw | `application/json` | the bytes received | headers `ce_<name>` |
//! | structured | cloudevents | `application/cloudevents+json; charset=UTF-8` | the whole event | in the payload |
//!
//! The key is `partitionkey`. A trace context that came with the push is handed on as the header `traceparent` too, where
//! tracing libraries look for it.

use std::borrow::Cow;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use sink_api::event::DATA_CONTENT_TYPE;
use sink_api::{BuildError, Context, Event, Format};

use crate::flight::Ticket;
use crate::settings::{Mode, Settings};
use crate::topic::Template;

const STRUCTURED_CONTENT_TYPE: &str = "application/cloudevents+json; charset=UTF-8";

/// What a record looks like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Shape {
    Structured,
    /// Attributes in headers; the payload in this format.
    Binary(Format),
}

impl Shape {
    pub(crate) fn of(mode: Option<Mode>, format: Format) -> Result<Self, String> {
        match (mode, format) {
            (Some(Mode::Structured), Format::CloudEvents) => Ok(Self::Structured),
            (Some(Mode::Structured), _) => {
                Err("structured needs format = \"cloudevents\"; set that, or mode = \"binary\"".to_owned())
            }
            (None | Some(Mode::Binary), Format::CloudEvents) => Ok(Self::Binary(Format::Data)),
            (None | Some(Mode::Binary), format) => Ok(Self::Binary(format)),
        }
    }

    fn payload<'e>(&self, event: &'e Event) -> Cow<'e, [u8]> {
        match self {
            Self::Structured => Cow::Owned(event.payload(Format::CloudEvents).into()),
            Self::Binary(Format::Raw) => Cow::Borrowed(&event.raw),
            Self::Binary(_) => Cow::Borrowed(event.data.get().as_bytes()),
        }
    }

    fn headers(&self, event: &Event) -> OwnedHeaders {
        let content_type = match self {
            Self::Structured => STRUCTURED_CONTENT_TYPE,
            Self::Binary(_) => DATA_CONTENT_TYPE,
        };
        let mut headers = with(OwnedHeaders::new_with_capacity(16), "content-type", content_type);
        if let Self::Binary(_) = self {
            for (name, value) in event.attributes() {
                // The binding puts this one into `content-type`.
                if name != "datacontenttype" {
                    headers = with(headers, &format!("ce_{name}"), &value);
                }
            }
        }
        match &event.traceparent {
            Some(traceparent) => with(headers, "traceparent", traceparent),
            None => headers,
        }
    }
}

fn with(headers: OwnedHeaders, key: &str, value: &str) -> OwnedHeaders {
    headers.insert(Header { key, value: Some(value) })
}

/// Makes records of events.
pub(crate) struct Writer {
    shape: Shape,
    topic: Template,
}

/// What a record borrows from.
pub(crate) struct Message<'e> {
    topic: String,
    payload: Cow<'e, [u8]>,
    headers: Option<OwnedHeaders>,
    key: &'e str,
}

pub(crate) type Record<'m> = BaseRecord<'m, str, [u8], Box<Ticket>>;

impl Writer {
    pub(crate) fn new(settings: &Settings, context: &Context) -> Result<Self, BuildError> {
        let shape =
            Shape::of(settings.mode, context.format).map_err(|message| BuildError(format!("mode: {message}")))?;
        let topic = Template::parse(&settings.topic).map_err(|wrong| BuildError(format!("topic: {wrong}")))?;
        Ok(Self { shape, topic })
    }

    pub(crate) fn template(&self) -> &Template {
        &self.topic
    }

    pub(crate) fn message<'e>(&self, event: &'e Event) -> Message<'e> {
        Message {
            topic: self.topic.render(event),
            payload: self.shape.payload(event),
            headers: Some(self.shape.headers(event)),
            key: &event.partitionkey,
        }
    }
}

impl Message<'_> {
    /// The record; takes the headers along, so it can be made once.
    pub(crate) fn record(&mut self, ticket: Ticket) -> Record<'_> {
        let headers = self.headers.take();
        let mut record =
            BaseRecord::with_opaque_to(&self.topic, Box::new(ticket)).key(self.key).payload(&*self.payload);
        record.headers = headers;
        record
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers as _;
    use sink_api::conformance::event;

    use super::*;

    fn headers(shape: Shape, event: &Event) -> Vec<(String, String)> {
        let headers = shape.headers(event);
        let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
        headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect()
    }

    #[test]
    fn binary_mode_has_the_attributes_as_headers() {
        let mut event = event("id-1", "s-1");
        event.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
        let found = headers(Shape::of(None, Format::CloudEvents).unwrap(), &event);
        let expected = [
            ("content-type", "application/json"),
            ("ce_specversion", "1.0"),
            ("ce_id", "id-1"),
            ("ce_source", "/tccc/1400000000"),
            ("ce_type", "com.tencent.ccc.cdr.v1"),
            ("ce_subject", "s-1"),
            ("ce_time", "1970-01-01T00:00:00Z"),
            ("ce_dataschema", "urn:example:cdr"),
            ("ce_recordedtime", "1970-01-01T00:00:00Z"),
            ("ce_partitionkey", "s-1"),
            ("ce_pushsource", "main"),
            ("ce_traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ];
        assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn structured_mode_has_everything_in_the_payload() {
        let event = event("id-1", "s-1");
        let shape = Shape::of(Some(Mode::Structured), Format::CloudEvents).unwrap();
        assert_eq!(headers(shape, &event), [("content-type".to_owned(), STRUCTURED_CONTENT_TYPE.to_owned())]);
        assert_eq!(&*shape.payload(&event), &event.payload(Format::CloudEvents)[..]);
    }

    #[test]
    fn the_payload_follows_the_format() {
        let event = event("id-1", "s-1");
        let payload = |format| Shape::of(Some(Mode::Binary), format).unwrap().payload(&event).to_vec();
        assert_eq!(payload(Format::CloudEvents), event.data.get().as_bytes());
        assert_eq!(payload(Format::Data), event.data.get().as_bytes());
        assert_eq!(payload(Format::Raw), event.raw);
        assert!(Shape::of(Some(Mode::Structured), Format::Raw).is_err());
        assert!(Shape::of(Some(Mode::Structured), Format::Data).is_err());
    }
}
