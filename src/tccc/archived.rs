//! `recording.archived`: our own action, made by a `recordings` sink; its body is in the shape of `data` already.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use super::fields::Fields;
use super::notes::{Extra, Warning};

/// A recording lies in our own store, its length and checksum verified.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RecordingArchived<'a> {
    /// The contact-centre instance.
    pub sdk_app_id: Option<i64>,
    /// The session that was recorded.
    pub session_id: Option<Cow<'a, str>>,
    /// The recording; null for a voicemail.
    pub recording_id: Option<Cow<'a, str>>,
    /// The bucket that holds it.
    pub bucket: Option<Cow<'a, str>>,
    /// Its key in the bucket.
    pub key: Option<Cow<'a, str>>,
    /// Its size.
    pub length_bytes: Option<i64>,
    /// How long it plays, in seconds, where that is known.
    pub duration_seconds: Option<f64>,
    /// Its SHA-256 in hex.
    pub sha256: Option<Cow<'a, str>>,
    /// Its media type.
    pub content_type: Option<Cow<'a, str>>,
    /// The id of the event that named it.
    pub event_id: Option<Cow<'a, str>>,
    /// Fields that could not be read as documented; each is null, and its value is under `extra`.
    pub warnings: Vec<Warning>,
    /// Fields that are not documented, verbatim, under the vendor's names.
    pub extra: Extra,
}

pub(super) fn read<'a>(fields: &mut Fields<'a, '_>) -> RecordingArchived<'a> {
    RecordingArchived {
        sdk_app_id: fields.integer("sdk_app_id"),
        session_id: fields.text("session_id"),
        recording_id: fields.text("recording_id"),
        bucket: fields.text("bucket"),
        key: fields.text("key"),
        length_bytes: fields.integer("length_bytes"),
        duration_seconds: fields.decimal("duration_seconds"),
        sha256: fields.text("sha256"),
        content_type: fields.text("content_type"),
        event_id: fields.text("event_id"),
        warnings: fields.warnings(),
        extra: fields.rest(),
    }
}
