//! The event around the normalised record: CloudEvents attributes from the push and from what its body says.
//!
//! `type` and `dataschema` stay legal whatever was sent: characters of an unknown action or version that do not belong into a type
//! are replaced or dropped, and a body that is no JSON object has the schema `other` under the type of its action. Control
//! characters, which an attribute must not hold, are U+FFFD in `subject` and `partitionkey` (never in `data.session_id`).

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use sink_api::Event;

use super::fields::Fields;
use super::json::{self, Member};
use super::notes::{ExtraParts, Warnings};
use super::values::Time;
use super::{Normalised, archived, cdr, chat, known_action, other, recording, schema, video};
use crate::journal::Push;

/// What the attributes need of a record.
struct Record {
    schema: &'static str,
    sdk_app_id: Option<i64>,
    session: Option<String>,
    happened_at: Option<Timestamp>,
    data: Box<RawValue>,
}

/// See [`super::normalise`].
pub(super) fn normalise(push: &Push) -> Normalised {
    let mut warnings = Warnings::default();
    let members = std::str::from_utf8(&push.body).ok().and_then(|text| json::members(text).ok());
    let record = match members {
        Some(members) => record(known_action(&push.action), members, &mut warnings),
        None => unreadable(&push.body, &mut warnings),
    };
    let session = record.session.or_else(|| push.session.as_ref().map(|session| session.as_str().to_owned()));
    let subject = session.map(legal_attribute);
    let event = Event {
        id: push.id.as_str().to_owned(),
        source: record.sdk_app_id.map_or_else(|| "/tccc".to_owned(), |id| format!("/tccc/{id}")),
        kind: kind(&push.action, push.version.as_deref()),
        partitionkey: subject.clone().unwrap_or_else(|| push.id.as_str().to_owned()),
        subject,
        time: record.happened_at.unwrap_or(push.received_at),
        dataschema: schema::data_uri(record.schema),
        recordedtime: push.received_at,
        pushsource: push.source.as_str().to_owned(),
        traceparent: push.traceparent.clone(),
        action: push.action.clone(),
        data: record.data,
        raw: push.body.clone(),
    };
    Normalised { event, warnings: warnings.total() }
}

fn record(action: Option<&'static str>, members: Vec<Member<'_>>, warnings: &mut Warnings) -> Record {
    let Some(action) = action else {
        let data = other::read(members, warnings);
        return Record::new(schema::OTHER, data.sdk_app_id, &data.session_id, None, &data);
    };
    let mut extra = ExtraParts::default();
    let fields = &mut Fields::new(members, warnings, &mut extra);
    match action {
        "cdr" => {
            let data = cdr::read(fields);
            Record::new(action, data.sdk_app_id, &data.session_id, data.ended_at, &data)
        }
        "imcdr" => {
            let data = chat::read(fields);
            Record::new(action, data.sdk_app_id, &data.session_id, data.ended_at, &data)
        }
        "videoCdr" => {
            let data = video::read(fields);
            Record::new(action, data.sdk_app_id, &data.session_id, data.ended_at, &data)
        }
        "recording.archived" => {
            let data = archived::read(fields);
            Record::new(action, data.sdk_app_id, &data.session_id, None, &data)
        }
        _ => {
            let data = recording::read(fields);
            Record::new(action, data.sdk_app_id, &data.session_id, data.recorded_at, &data)
        }
    }
}

fn unreadable(body: &[u8], warnings: &mut Warnings) -> Record {
    let literal = serde_json::to_string(&String::from_utf8_lossy(body)).expect("a string always serialises");
    let data = other::unreadable(&literal, warnings);
    Record::new(schema::OTHER, None, &None, None, &data)
}

impl Record {
    fn new(
        schema: &'static str,
        sdk_app_id: Option<i64>,
        session: &Option<Cow<'_, str>>,
        happened_at: Option<Time>,
        data: &impl Serialize,
    ) -> Self {
        Self {
            schema,
            sdk_app_id,
            session: session.as_deref().map(str::to_owned),
            happened_at: happened_at.map(|time| time.at),
            data: to_raw_value(data).expect("strings, numbers and checked JSON always serialise"),
        }
    }
}

/// `com.tencent.ccc.<action>.v<version>`, of `[a-z0-9._-]` alone.
fn kind(action: &str, version: Option<&str>) -> String {
    let legal = |letter: char| if matches!(letter, 'a'..='z' | '0'..='9' | '.' | '_' | '-') { letter } else { '_' };
    let action: String = action.to_ascii_lowercase().chars().map(legal).collect();
    let action = if action.is_empty() { "other" } else { &action };
    let version: String =
        version.unwrap_or("1").to_ascii_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    let version = if version.is_empty() { "1" } else { &version };
    format!("com.tencent.ccc.{action}.v{version}")
}

fn legal_attribute(text: String) -> String {
    if text.chars().any(char::is_control) { text.replace(char::is_control, "\u{fffd}") } else { text }
}
