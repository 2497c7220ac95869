//! How an event is laid out in a message: the AMQP protocol binding of CloudEvents, on the properties of AMQP 0-9-1.
//!
//! ```text
//!                binary                              structured
//! content_type   application/json                    application/cloudevents+json
//! headers        cloudEvents:id, cloudEvents:type, … –
//! body           data, or the bytes received         the whole event
//! both           message_id = id · type = the event's type · delivery_mode 2 · timestamp = time, in seconds · header traceparent
//! ```

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use sink_api::event::DATA_CONTENT_TYPE;
use sink_api::{BuildError, Event, Format};

use crate::settings::{Mode, Settings};
use crate::template::Template;

/// What every message of a sink has in common.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    mode: Mode,
    format: Format,
    exchange: Template,
    routing_key: Template,
}

#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub exchange: ShortString,
    pub routing_key: ShortString,
    pub properties: BasicProperties,
    pub body: Bytes,
}

const PERSISTENT: u8 = 2;

impl Shape {
    pub(crate) fn new(settings: &Settings, format: Format) -> Result<Self, BuildError> {
        let template =
            |key: &str, text: &str| Template::parse(text).map_err(|wrong| BuildError(format!("{key}: {wrong}")));
        Ok(Self {
            mode: settings.mode,
            format,
            exchange: template("exchange", &settings.exchange)?,
            routing_key: template("routing_key", &settings.routing_key)?,
        })
    }

    pub(crate) fn message(&self, event: &Event) -> Message {
        let mut headers = FieldTable::default();
        let (content_type, body) = match self.mode {
            Mode::Structured => ("application/cloudevents+json", event.payload(Format::CloudEvents)),
            Mode::Binary => {
                // The binding gives the content type its own property.
                let attributes = event.attributes().into_iter().filter(|(name, _)| *name != "datacontenttype");
                for (name, value) in attributes {
                    headers.insert(short(&format!("cloudEvents:{name}")), text(value));
                }
                let body = if self.format == Format::Raw { Format::Raw } else { Format::Data };
                (DATA_CONTENT_TYPE, event.payload(body))
            }
        };
        if let Some(traceparent) = &event.traceparent {
            headers.insert(short("traceparent"), text(traceparent.clone()));
        }
        let properties = BasicProperties::default()
            .with_content_type(short(content_type))
            .with_delivery_mode(PERSISTENT)
            .with_message_id(short(&event.id))
            .with_type(short(&event.kind))
            .with_timestamp(u64::try_from(event.time.as_second()).unwrap_or_default())
            .with_headers(headers);
        Message {
            exchange: short(&self.exchange.render(event)),
            routing_key: short(&self.routing_key.render(event)),
            properties,
            body,
        }
    }
}

/// A short string holds 255 bytes. Ids and names are shorter; a type that is not is cut, and whole in the event.
fn short(text: &str) -> ShortString {
    let end = text.floor_char_boundary(Template::LEN_MAX);
    ShortString::from(&text[..end])
}

fn text(value: String) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value.into_bytes()))
}

#[cfg(test)]
mod tests {
    use sink_api::conformance::event;

    use super::*;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn message(toml: &str, format: Format) -> Message {
        let settings = toml::from_str(&format!("url = \"amqp://h\"\nexchange = \"calls.{{source}}\"\n{toml}")).unwrap();
        let event = Event { traceparent: Some(TRACE.into()), ..event("p-1", "坐席 1") };
        Shape::new(&settings, format).unwrap().message(&event)
    }

    fn header(message: &Message, name: &str) -> Option<String> {
        let value = message.properties.headers().as_ref()?.inner().get(name)?.clone();
        let AMQPValue::LongString(text) = value else { panic!("{value:?}") };
        Some(String::from_utf8(text.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn binary_mode_has_the_attributes_in_headers() {
        let message = message("", Format::CloudEvents);
        assert_eq!((message.exchange.as_str(), message.routing_key.as_str()), ("calls.main", "tccc.cdr"));
        assert_eq!(message.body, event("p-1", "坐席 1").payload(Format::Data));
        assert_eq!(header(&message, "cloudEvents:id").as_deref(), Some("p-1"));
        assert_eq!(header(&message, "cloudEvents:subject").as_deref(), Some("坐席 1"));
        assert_eq!(header(&message, "cloudEvents:specversion").as_deref(), Some("1.0"));
        assert_eq!(header(&message, "cloudEvents:datacontenttype"), None);
        assert_eq!(header(&message, "traceparent").as_deref(), Some(TRACE));
        let properties = &message.properties;
        assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
        assert_eq!(properties.message_id().as_ref().unwrap().as_str(), "p-1");
        assert_eq!(properties.kind().as_ref().unwrap().as_str(), "com.tencent.ccc.cdr.v1");
        assert_eq!((*properties.delivery_mode(), *properties.timestamp()), (Some(2), Some(0)));
    }

    #[test]
    fn structured_mode_has_the_whole_event_in_the_body() {
        let message = message("mode = \"structured\"", Format::CloudEvents);
        assert!(message.body.starts_with(b"{\"specversion\":\"1.0\",\"id\":\"p-1\""), "{:?}", message.body);
        assert_eq!(message.properties.content_type().as_ref().unwrap().as_str(), "application/cloudevents+json");
        assert_eq!(header(&message, "cloudEvents:id"), None);
        assert_eq!(header(&message, "traceparent").as_deref(), Some(TRACE));
    }

    #[test]
    fn the_bytes_received_can_go_beside_the_attributes() {
        let message = message("", Format::Raw);
        assert_eq!(message.body, event("p-1", "坐席 1").raw);
        assert_eq!(header(&message, "cloudEvents:id").as_deref(), Some("p-1"));
    }

    #[test]
    fn what_does_not_fit_a_short_string_is_cut_between_characters() {
        assert_eq!(short(&"é".repeat(200)).as_str(), "é".repeat(127));
    }
}
