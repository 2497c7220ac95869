//! `videoCdr`: the record of a video session that has ended (PROTOCOL.md §3).

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use super::end_state::EndState;
use super::fields::Fields;
use super::notes::{Extra, Warning};
use super::parts::{self, Agent, Queue};
use super::values::Time;

/// The record of a video session that has ended. Null: not sent, empty, or did not happen.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Video<'a> {
    /// The contact-centre instance. Vendor: `SdkAppId`.
    pub sdk_app_id: Option<i64>,
    /// Vendor: `SessionId`.
    pub session_id: Option<Cow<'a, str>>,
    /// Vendor: `StartTimestamp`.
    pub started_at: Option<Time>,
    /// Vendor: `AcceptTimestamp`.
    pub accepted_at: Option<Time>,
    /// Vendor: `EndedTimestamp`.
    pub ended_at: Option<Time>,
    /// The skill group that the session waited for. Vendor: `QueuedSkillGroupId`, `QueuedSkillGroupName`.
    pub queue: Option<Queue<'a>>,
    /// Seconds, as sent. Vendor: `Duration`.
    pub duration_seconds: Option<i64>,
    /// Vendor: `EndStatusString`.
    pub end_state: Option<EndState<'a>>,
    /// The visitor. Vendor: `UserId`.
    pub user_id: Option<Cow<'a, str>>,
    /// Vendor: `UserNickName`.
    pub user_nickname: Option<Cow<'a, str>>,
    /// The last agent who served. Vendor: `SeatUser`.
    pub agent: Option<Agent<'a>>,
    /// Vendor: `UserRemark`.
    pub remark: Option<Cow<'a, str>>,
    /// What the customer's page handed over, base64 as sent. Vendor: `ClientData`.
    pub client_data: Option<Cow<'a, str>>,
    /// Fields that could not be read as documented; each is null, and its value is under `extra`.
    pub warnings: Vec<Warning>,
    /// Fields that are not documented, verbatim, under the vendor's names.
    pub extra: Extra,
}

pub(super) fn read<'a>(fields: &mut Fields<'a, '_>) -> Video<'a> {
    Video {
        sdk_app_id: fields.integer("SdkAppId"),
        session_id: fields.text("SessionId"),
        started_at: fields.seconds("StartTimestamp"),
        accepted_at: fields.seconds("AcceptTimestamp"),
        ended_at: fields.seconds("EndedTimestamp"),
        queue: parts::queue(fields),
        duration_seconds: fields.integer("Duration"),
        end_state: parts::end_state(fields),
        user_id: fields.text("UserId"),
        user_nickname: fields.text("UserNickName"),
        agent: parts::agent(fields),
        remark: fields.text("UserRemark"),
        client_data: fields.text("ClientData"),
        warnings: fields.warnings(),
        extra: fields.rest(),
    }
}
