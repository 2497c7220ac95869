//! `cdr`: the record of a phone session that has ended (PROTOCOL.md §3).

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use super::end_state::EndState;
use super::fields::{Fields, Place};
use super::notes::{Extra, Warning};
use super::parts::{self, Agent, CallType, Direction, KeyPress, PhoneLocation, Queue};
use super::values::Time;

/// The record of a phone session that has ended. Null: not sent, empty, or did not happen.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Cdr<'a> {
    /// The contact-centre instance. Vendor: `SdkAppId`.
    pub sdk_app_id: Option<i64>,
    /// Vendor: `SessionId`.
    pub session_id: Option<Cow<'a, str>>,
    /// A number with a country prefix such as `0086`, masked, or an alias. Vendor: `Caller`.
    pub caller: Option<Cow<'a, str>>,
    /// As `caller`. Vendor: `Callee`.
    pub callee: Option<Cow<'a, str>>,
    /// Vendor: `Direction`.
    pub direction: Option<Direction>,
    /// Vendor: `CallType`.
    pub call_type: Option<CallType>,
    /// Seconds, as sent: documented as end less acceptance, and wrong when a step did not happen. Vendor: `Duration`.
    pub duration_seconds: Option<i64>,
    /// Seconds in the menu, as sent. Vendor: `IVRDuration`.
    pub ivr_duration_seconds: Option<i64>,
    /// Vendor: `StartTimestamp`.
    pub started_at: Option<Time>,
    /// Vendor: `QueuedTimestamp`.
    pub queued_at: Option<Time>,
    /// The agent's phone rang (inbound) or the customer's (outbound). Vendor: `RingTimestamp`.
    pub ringing_at: Option<Time>,
    /// The agent accepted (inbound) or the customer (outbound). Vendor: `AcceptTimestamp`.
    pub accepted_at: Option<Time>,
    /// Vendor: `EndedTimestamp`.
    pub ended_at: Option<Time>,
    /// The last agent who served the call. Vendor: `SeatUser`.
    pub agent: Option<Agent<'a>>,
    /// Vendor: `CallerLocation`.
    pub caller_location: Option<Cow<'a, str>>,
    /// Vendor: `UserRemark`.
    pub remark: Option<Cow<'a, str>>,
    /// The customer's own key, handed over at click-to-call: joins the call to a CRM record. Vendor: `Uui`.
    pub uui: Option<Cow<'a, str>>,
    /// Keys pressed in the menu, in order. Vendor: `IVRKeyPressedEx`, else `IVRKeyPressed`.
    pub ivr_keys: Option<Vec<KeyPress<'a>>>,
    /// The caller's rating after the call. Vendor: `PostIVRKeyPressed`.
    pub rating_keys: Option<Vec<KeyPress<'a>>>,
    /// `user`, `seat`, `system`, or a new word. Vendor: `HungUpSide`.
    pub hung_up_by: Option<Cow<'a, str>>,
    /// May disagree with the participants'. Vendor: `EndStatusString`.
    pub end_state: Option<EndState<'a>>,
    /// The skill group that the call waited for. Vendor: `QueuedSkillGroupId`, `QueuedSkillGroupName`.
    pub queue: Option<Queue<'a>>,
    /// The recording of the customer's side. Vendor: `RecordId`.
    pub recording_id: Option<Cow<'a, str>>,
    /// Vendor: `TelLocation`.
    pub phone_location: Option<PhoneLocation<'a>>,
    /// The agents and their phones that took part. Vendor: `ServeParticipants`.
    pub participants: Option<Vec<Participant<'a>>>,
    /// Fields that could not be read as documented; each is null, and its value is under `extra`.
    pub warnings: Vec<Warning>,
    /// Fields that are not documented, verbatim, under the vendor's names.
    pub extra: Extra,
}

/// One agent's part in a phone session. Its times may precede the session's. Vendor: an element of `ServeParticipants`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Participant<'a> {
    /// Vendor: `Mail`.
    pub email: Option<Cow<'a, str>>,
    /// Vendor: `Phone`.
    pub phone: Option<Cow<'a, str>>,
    /// `staffSeat`, `outboundSeat`, `staffPhoneSeat`, `miniProgramSeat`, `staffExtensionSeat`, or a new word. Vendor: `Type`.
    #[serde(rename = "type")]
    pub kind: Option<Cow<'a, str>>,
    /// The order of service, from 0. Vendor: `Sequence`.
    pub sequence: Option<i64>,
    /// The recording of the agent's side. Vendor: `RecordId`.
    pub recording_id: Option<Cow<'a, str>>,
    /// Vendor: `StartTimestamp`.
    pub started_at: Option<Time>,
    /// Vendor: `RingTimestamp`.
    pub ringing_at: Option<Time>,
    /// Vendor: `AcceptTimestamp`.
    pub accepted_at: Option<Time>,
    /// Vendor: `EndedTimestamp`.
    pub ended_at: Option<Time>,
    /// Who handed the call over. Vendor: `TransferFrom`.
    pub transfer_from: Option<Cow<'a, str>>,
    /// Vendor: `TransferFromType`.
    pub transfer_from_type: Option<Cow<'a, str>>,
    /// To whom the call was handed over. Vendor: `TransferTo`.
    pub transfer_to: Option<Cow<'a, str>>,
    /// Vendor: `TransferToType`.
    pub transfer_to_type: Option<Cow<'a, str>>,
    /// Vendor: `SkillGroupId`, `SkillGroupName`, `SkillGroupPriority`.
    pub skill_group: Option<SkillGroup<'a>>,
    /// May disagree with the session's. Vendor: `EndStatusString`.
    pub end_state: Option<EndState<'a>>,
    /// Fields of this participant that are not documented or could not be read, verbatim, under the vendor's names.
    pub extra: Extra,
}

/// The skill group in which a participant served.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SkillGroup<'a> {
    /// Vendor: `SkillGroupId`.
    pub id: Option<Cow<'a, str>>,
    /// Vendor: `SkillGroupName`.
    pub name: Option<Cow<'a, str>>,
    /// Vendor: `SkillGroupPriority`.
    pub priority: Option<i64>,
}

pub(super) fn read<'a>(fields: &mut Fields<'a, '_>) -> Cdr<'a> {
    Cdr {
        sdk_app_id: fields.integer("SdkAppId"),
        session_id: fields.text("SessionId"),
        caller: fields.text("Caller"),
        callee: fields.text("Callee"),
        direction: parts::direction(fields),
        call_type: parts::call_type(fields),
        duration_seconds: fields.integer("Duration"),
        ivr_duration_seconds: fields.integer("IVRDuration"),
        started_at: fields.seconds("StartTimestamp"),
        queued_at: fields.seconds("QueuedTimestamp"),
        ringing_at: fields.seconds("RingTimestamp"),
        accepted_at: fields.seconds("AcceptTimestamp"),
        ended_at: fields.seconds("EndedTimestamp"),
        agent: parts::agent(fields),
        caller_location: fields.text("CallerLocation"),
        remark: fields.text("UserRemark"),
        uui: fields.text("Uui"),
        ivr_keys: parts::ivr_keys(fields),
        rating_keys: parts::key_presses(fields, "PostIVRKeyPressed"),
        hung_up_by: fields.text("HungUpSide"),
        end_state: parts::end_state(fields),
        queue: parts::queue(fields),
        recording_id: fields.text("RecordId"),
        phone_location: parts::phone_location(fields),
        participants: fields.array("ServeParticipants", participant),
        warnings: fields.warnings(),
        extra: fields.rest(),
    }
}

/// An element that is no object is a participant of whom nothing is known.
fn participant<'a>(place: Place<'a, '_>) -> Participant<'a> {
    let participant = if place.is_null() { None } else { place.object_with_extra(read_participant) };
    participant.unwrap_or_else(|| Participant {
        email: None,
        phone: None,
        kind: None,
        sequence: None,
        recording_id: None,
        started_at: None,
        ringing_at: None,
        accepted_at: None,
        ended_at: None,
        transfer_from: None,
        transfer_from_type: None,
        transfer_to: None,
        transfer_to_type: None,
        skill_group: None,
        end_state: None,
        extra: Extra::none(),
    })
}

fn read_participant<'a>(fields: &mut Fields<'a, '_>) -> Participant<'a> {
    Participant {
        email: fields.text("Mail"),
        phone: fields.text("Phone"),
        kind: fields.text("Type"),
        sequence: fields.integer("Sequence"),
        recording_id: fields.text("RecordId"),
        started_at: fields.seconds("StartTimestamp"),
        ringing_at: fields.seconds("RingTimestamp"),
        accepted_at: fields.seconds("AcceptTimestamp"),
        ended_at: fields.seconds("EndedTimestamp"),
        transfer_from: fields.text("TransferFrom"),
        transfer_from_type: fields.text("TransferFromType"),
        transfer_to: fields.text("TransferTo"),
        transfer_to_type: fields.text("TransferToType"),
        skill_group: skill_group(fields),
        end_state: parts::end_state(fields),
        extra: fields.rest(),
    }
}

/// `None` where nothing of it was sent.
fn skill_group<'a>(fields: &mut Fields<'a, '_>) -> Option<SkillGroup<'a>> {
    let group = SkillGroup {
        id: fields.text("SkillGroupId"),
        name: fields.text("SkillGroupName"),
        priority: fields.integer("SkillGroupPriority"),
    };
    (group.id.is_some() || group.name.is_some() || group.priority.is_some()).then_some(group)
}
