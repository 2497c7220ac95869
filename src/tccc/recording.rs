//! `record` and `voicemail`: a recording exists (PROTOCOL.md §3, §6).

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use super::fields::Fields;
use super::notes::{Extra, Warning};
use super::values::Time;

/// A recording or a voicemail that can be fetched. Null: not sent or empty.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Recording<'a> {
    /// The contact-centre instance. Vendor: `SdkAppId`.
    pub sdk_app_id: Option<i64>,
    /// Vendor: `SessionId`.
    pub session_id: Option<Cow<'a, str>>,
    /// Null for a voicemail. Vendor: `RecordId`.
    pub recording_id: Option<Cow<'a, str>>,
    /// Vendor: `Timestamp`.
    pub recorded_at: Option<Time>,
    /// The customer's number or the agent's e-mail. Vendor: `EndpointUser`.
    pub endpoint: Option<Cow<'a, str>>,
    /// Where the recording lies. Vendor: `RecordURL`.
    pub url: Option<Cow<'a, str>>,
    /// Where the vendor's own transfer put it. Vendor: `CustomRecordURL`.
    pub custom_url: Option<Cow<'a, str>>,
    /// Fields that could not be read as documented; each is null, and its value is under `extra`.
    pub warnings: Vec<Warning>,
    /// Fields that are not documented, verbatim, under the vendor's names.
    pub extra: Extra,
}

pub(super) fn read<'a>(fields: &mut Fields<'a, '_>) -> Recording<'a> {
    Recording {
        sdk_app_id: fields.integer("SdkAppId"),
        session_id: fields.text("SessionId"),
        recording_id: fields.text("RecordId"),
        recorded_at: fields.seconds("Timestamp"),
        endpoint: fields.text("EndpointUser"),
        url: fields.text("RecordURL"),
        custom_url: fields.text("CustomRecordURL"),
        warnings: fields.warnings(),
        extra: fields.rest(),
    }
}
