//! The template of a recording's key, without its extension.
//!
//! It promises the same place for the same event, of safe characters alone (`A-Za-z0-9._=-` and `/`), and different places for
//! different recordings: where a value had to be changed to be safe, a part of its SHA-256 stands behind it.

use jiff::Timestamp;
use sink_api::template::{self, Part, TemplateError};

use crate::key::{ABSENT, CHARACTERS, date, hour, is_no_name, reduced};
use crate::store::hex;

/// A longer value is cut; names of files end at 255 bytes.
const VALUE_LEN_MAX: usize = 120;

/// What is appended to a changed value, in hex digits.
const DIGEST_LEN: usize = 16;

/// What a key can be made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'a> {
    pub(super) source: &'a str,
    pub(super) sdk_app_id: Option<&'a str>,
    pub(super) action: &'a str,
    /// When it was recorded.
    pub(super) time: Timestamp,
    pub(super) session_id: Option<&'a str>,
    /// Absent for a voicemail; the event's id stands for it.
    pub(super) recording_id: Option<&'a str>,
    pub(super) event_id: &'a str,
}

/// A template that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(template::Template<Field>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Source,
    SdkAppId,
    Action,
    Date,
    Hour,
    SessionId,
    RecordingId,
}

const FIELDS: [(&str, Field); 7] = [
    ("source", Field::Source),
    ("sdk_app_id", Field::SdkAppId),
    ("action", Field::Action),
    ("date", Field::Date),
    ("hour", Field::Hour),
    ("session_id", Field::SessionId),
    ("recording_id", Field::RecordingId),
];

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Wrong {
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error("lacks {{recording_id}}, without which recordings would take each other's place")]
    NoRecording,
    #[error("begins or ends with '/', or has a segment that is empty or made of dots")]
    Segment,
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        let template = template::Template::parse(text, &FIELDS, CHARACTERS)?;
        if text.split('/').any(is_no_name) {
            return Err(Wrong::Segment);
        }
        if !template.has(Field::RecordingId) {
            return Err(Wrong::NoRecording);
        }
        Ok(Self(template))
    }

    /// The folder that all keys are in; empty or with `/` at its end.
    pub(super) fn folder(&self) -> &str {
        match self.0.parts().first() {
            Some(Part::Text(text)) => text.rfind('/').map_or("", |end| &text[..=end]),
            _ => "",
        }
    }

    pub(super) fn render(&self, values: &Values<'_>) -> String {
        self.0.render(|field| field.value(values))
    }
}

impl Field {
    fn value(self, values: &Values<'_>) -> String {
        match self {
            Self::Source => safe(values.source),
            Self::SdkAppId => values.sdk_app_id.map_or_else(|| ABSENT.to_owned(), safe),
            Self::Action => safe(values.action),
            Self::Date => date(values.time),
            Self::Hour => hour(values.time),
            Self::SessionId => values.session_id.map_or_else(|| ABSENT.to_owned(), safe),
            Self::RecordingId => safe(values.recording_id.unwrap_or(values.event_id)),
        }
    }
}

/// `value`, or what is left of it with a part of its digest.
fn safe(value: &str) -> String {
    let mut safe = reduced(value, VALUE_LEN_MAX);
    if safe != value || is_no_name(&safe) {
        safe.push('-');
        safe.push_str(&sha256_hex(value.as_bytes())[..DIGEST_LEN]);
    }
    safe
}

fn sha256_hex(bytes: &[u8]) -> String {
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_ne, proptest};

    use super::*;
    use crate::key::is_safe;

    const DEFAULT: &str = "{source}/{sdk_app_id}/date={date}/{session_id}/{recording_id}";

    fn values<'a>(session_id: Option<&'a str>, recording_id: Option<&'a str>) -> Values<'a> {
        let time = Timestamp::from_second(1_787_003_942).unwrap();
        Values {
            source: "main",
            sdk_app_id: Some("1400"),
            action: "record",
            time,
            session_id,
            recording_id,
            event_id: "p-1",
        }
    }

    #[test]
    fn a_key_holds_what_the_template_names() {
        let template = Template::parse(DEFAULT).unwrap();
        assert_eq!(template.render(&values(Some("s-1"), Some("r-1"))), "main/1400/date=2026-08-17/s-1/r-1");
        assert_eq!(template.render(&values(None, None)), "main/1400/date=2026-08-17/none/p-1");
        assert_eq!(template.folder(), "");
        let template = Template::parse("a/{action}/{hour}-{recording_id}").unwrap();
        assert_eq!(template.folder(), "a/");
        assert_eq!(template.render(&values(None, Some("r"))), "a/record/21-r");
    }

    #[test]
    fn values_cannot_leave_their_folder_nor_take_anothers_place() {
        let template = Template::parse("{session_id}/{recording_id}").unwrap();
        let render = |id: &str| template.render(&values(Some(id), Some("r")));
        assert!(render("..").starts_with("..-"));
        assert!(render("../../etc").starts_with(".._.._etc-"));
        assert_ne!(render("a/b"), render("a_b"));
        assert_ne!(render(&"x".repeat(300)), render(&"x".repeat(301)));
        assert!(render("").starts_with('-'));
    }

    #[test]
    fn a_wrong_template_is_told() {
        for (text, wrong) in [
            ("{session_id}", Wrong::NoRecording),
            ("/{recording_id}", Wrong::Segment),
            ("a//{recording_id}", Wrong::Segment),
            ("../{recording_id}", Wrong::Segment),
            ("", Wrong::Segment),
        ] {
            assert_eq!(Template::parse(text), Err(wrong), "{text}");
        }
        for text in ["{nope}/{recording_id}", "{recording_id", "a b/{recording_id}"] {
            assert!(matches!(Template::parse(text), Err(Wrong::Template(_))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_ids_hold_keys_are_safe_and_differ(a in any::<String>(), b in any::<String>()) {
            let template = Template::parse(DEFAULT).unwrap();
            let (first, second) = (template.render(&values(Some(&a), Some("r"))), template.render(&values(Some(&b), Some("r"))));
            prop_assert!(first.chars().all(|c| is_safe(c) || c == '/'));
            prop_assert!(!first.split('/').any(|segment| matches!(segment, "" | "." | "..")));
            prop_assert!(first.split('/').count() == 5);
            if a != b {
                prop_assert_ne!(first, second);
            }
        }
    }
}
