//! What an event says of a recording, and what is said of it once it is archived.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sink_api::{Event, Fault, Outcome};

use super::keep;
use super::key::{Template, Values};

/// The actions that name a recording.
const ACTIONS: [&str; 2] = ["record", "voicemail"];

/// The parts of `data` that matter here. A mask may have changed each of them.
#[derive(Debug, Deserialize)]
pub(super) struct Named {
    #[serde(default, deserialize_with = "integer")]
    pub(super) sdk_app_id: Option<i64>,
    #[serde(default)]
    pub(super) session_id: Option<String>,
    #[serde(default)]
    pub(super) recording_id: Option<String>,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    custom_url: Option<String>,
}

/// The body of the push `recording.archived`. The same bytes for the same event.
#[derive(Serialize)]
pub(super) struct ArchivedBody<'a> {
    pub(super) sdk_app_id: Option<i64>,
    pub(super) session_id: Option<&'a str>,
    pub(super) recording_id: Option<&'a str>,
    pub(super) bucket: &'a str,
    pub(super) key: &'a str,
    pub(super) length_bytes: u64,
    pub(super) duration_seconds: Option<f64>,
    pub(super) sha256: &'a str,
    pub(super) content_type: &'a str,
    pub(super) event_id: &'a str,
}

/// Whether there is something to bring home.
pub(super) fn names_a_recording(event: &Event) -> bool {
    ACTIONS.iter().any(|action| event.action.eq_ignore_ascii_case(action))
}

impl Named {
    pub(super) fn in_event(event: &Event) -> Result<Self, Outcome> {
        let unreadable = |_| Outcome::rejected(Fault::new("bad-data", "the event's data is no record of a recording"));
        serde_json::from_str(event.data.get()).map_err(unreadable)
    }

    /// Those that are there, in the order in which they are tried.
    pub(super) fn urls(&self) -> impl Iterator<Item = &str> {
        [&self.url, &self.custom_url].into_iter().flatten().map(String::as_str)
    }

    /// The key without its extension.
    pub(super) fn place(&self, template: &Template, event: &Event) -> String {
        let sdk_app_id = self.sdk_app_id.map(|id| id.to_string());
        template.render(&Values {
            source: &event.pushsource,
            sdk_app_id: sdk_app_id.as_deref(),
            action: &event.action,
            time: event.time,
            session_id: self.session_id.as_deref(),
            recording_id: self.recording_id.as_deref(),
            event_id: &event.id,
        })
    }

    /// What the object says of where it comes from.
    pub(super) fn metadata(&self, event: &Event) -> Vec<(String, String)> {
        let named = [
            (keep::EVENT_ID, Some(&event.id)),
            (keep::SESSION_ID, self.session_id.as_ref()),
            (keep::RECORDING_ID, self.recording_id.as_ref()),
        ];
        let present = named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), keep::encoded(value?))));
        present.filter(|(_, value)| !value.is_empty()).collect()
    }
}

/// A number; anything else that a mask may have made of it is none.
fn integer<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Ok(Value::deserialize(deserializer)?.as_i64())
}
