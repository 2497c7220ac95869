//! What is delivered: one push after normalisation, as a CloudEvents 1.0 event.
//!
//! The event's attributes are plain fields, so that a sink can put them where its transport wants them (Kafka headers, AMQP
//! properties, HTTP headers); `data` is JSON text that is ready to be sent; `raw` is exactly what the sender sent.

use bytes::Bytes;
use jiff::Timestamp;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

/// The media type of [`Event::data`] and of [`Event::raw`].
pub const DATA_CONTENT_TYPE: &str = "application/json";

/// A CloudEvents 1.0 event. Attribute names are those of the specification and of the gateway's extensions.
#[derive(Debug, Clone)]
pub struct Event {
    /// `id`: the push id. The same on every delivery of the same push, so that a consumer can de-duplicate.
    pub id: String,
    /// `source`: `/tccc/<SdkAppId>`, or `/tccc` where the push names none.
    pub source: String,
    /// `type`: `com.tencent.ccc.<action>.v<version>`, in lower case.
    pub kind: String,
    /// `subject`: the session id, where there is one.
    pub subject: Option<String>,
    /// `time`: when it happened (the end of a call, the time of a recording), else when it was received.
    pub time: Timestamp,
    /// `dataschema`: URI of the JSON Schema of `data`.
    pub dataschema: String,
    /// `recordedtime`: when the gateway received the push.
    pub recordedtime: Timestamp,
    /// `partitionkey`: the session id, else the push id. Events with the same key keep their order.
    pub partitionkey: String,
    /// `pushsource`: the name of the configured source that the push came to.
    pub pushsource: String,
    /// `traceparent`: the W3C trace context that came with the push.
    pub traceparent: Option<String>,
    /// The push's action as the config spells it (`cdr`, `videoCdr`, …); not an attribute on the wire.
    pub action: String,
    /// `data`: the normalised record, one line of JSON.
    pub data: Box<RawValue>,
    /// The body of the push, byte for byte; `{}` where the config masks something of the event.
    pub raw: Bytes,
}

/// In which shape a sink writes an event's payload: `format` in the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The whole CloudEvent in structured mode: attributes and `data` in one JSON object.
    #[default]
    CloudEvents,
    /// `data` alone.
    Data,
    /// The bytes received.
    Raw,
}

impl Event {
    /// The attributes that are present, as `(name, value)`, in a fixed order; timestamps as RFC 3339 UTC.
    /// `specversion` and `datacontenttype` are included, `data` is not.
    pub fn attributes(&self) -> Vec<(&'static str, String)> {
        let mut attributes = vec![
            ("specversion", "1.0".to_owned()),
            ("id", self.id.clone()),
            ("source", self.source.clone()),
            ("type", self.kind.clone()),
        ];
        if let Some(subject) = &self.subject {
            attributes.push(("subject", subject.clone()));
        }
        attributes.push(("time", self.time.to_string()));
        attributes.push(("datacontenttype", DATA_CONTENT_TYPE.to_owned()));
        attributes.push(("dataschema", self.dataschema.clone()));
        attributes.push(("recordedtime", self.recordedtime.to_string()));
        attributes.push(("partitionkey", self.partitionkey.clone()));
        attributes.push(("pushsource", self.pushsource.clone()));
        if let Some(traceparent) = &self.traceparent {
            attributes.push(("traceparent", traceparent.clone()));
        }
        attributes
    }

    /// The event's payload in `format`. `CloudEvents` and `Data` are one line of JSON; `Raw` is whatever was received, which may
    /// span lines.
    pub fn payload(&self, format: Format) -> Bytes {
        match format {
            Format::CloudEvents => Bytes::from(self.to_structured_json()),
            Format::Data => Bytes::copy_from_slice(self.data.get().as_bytes()),
            Format::Raw => self.raw.clone(),
        }
    }

    fn to_structured_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, timestamps and checked JSON always serialise")
    }
}

impl Serialize for Event {
    /// CloudEvents JSON format, structured mode.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.attributes() {
            map.serialize_entry(name, &value)?;
        }
        map.serialize_entry("data", &self.data)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            id: "p-1".into(),
            source: "/tccc/1400".into(),
            kind: "com.tencent.ccc.cdr.v1".into(),
            subject: Some("s-1".into()),
            time: Timestamp::from_second(1_787_003_942).unwrap(),
            dataschema: "urn:x".into(),
            recordedtime: Timestamp::from_millisecond(1_787_003_943_021).unwrap(),
            partitionkey: "s-1".into(),
            pushsource: "main".into(),
            traceparent: None,
            action: "cdr".into(),
            data: RawValue::from_string(r#"{"n":9007199254740993123}"#.into()).unwrap(),
            raw: Bytes::from_static(b"{\n}"),
        }
    }

    #[test]
    fn structured_mode_holds_attributes_and_data_in_one_line() {
        let payload = event().payload(Format::CloudEvents);
        let text = std::str::from_utf8(&payload).unwrap();
        assert!(!text.contains('\n'));
        assert_eq!(
            text,
            r#"{"specversion":"1.0","id":"p-1","source":"/tccc/1400","type":"com.tencent.ccc.cdr.v1","subject":"s-1","time":"2026-08-17T21:59:02Z","datacontenttype":"application/json","dataschema":"urn:x","recordedtime":"2026-08-17T21:59:03.021Z","partitionkey":"s-1","pushsource":"main","data":{"n":9007199254740993123}}"#
        );
    }

    #[test]
    fn data_and_raw_are_what_they_say() {
        assert_eq!(&event().payload(Format::Data)[..], br#"{"n":9007199254740993123}"#);
        assert_eq!(&event().payload(Format::Raw)[..], b"{\n}");
    }
}
