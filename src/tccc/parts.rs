//! What more than one action has: the agent, the queue, keys pressed, and how they are read.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use super::end_state::EndState;
use super::fields::{Fields, Place};
use super::values::Time;

/// Which way a call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Inbound,
    Outbound,
}

/// What kind of call it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallType {
    Outbound,
    Inbound,
    VoipInbound,
    Predictive,
    Internal,
    /// A number that is not documented; it is under `extra`.
    Other,
}

/// The agent who served a session: the last one after a transfer. Vendor: `SeatUser`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Agent<'a> {
    /// Vendor: `Mail`.
    pub email: Option<Cow<'a, str>>,
    /// Vendor: `Name`.
    pub name: Option<Cow<'a, str>>,
    /// Vendor: `Nick`.
    pub nickname: Option<Cow<'a, str>>,
    /// Vendor: `Phone`.
    pub phone: Option<Cow<'a, str>>,
    /// Vendor: `UserId`.
    pub user_id: Option<Cow<'a, str>>,
    /// Vendor: `StaffNumber`.
    pub staff_number: Option<Cow<'a, str>>,
    /// The agent's skill groups by name. Vendor: `SkillGroupNameList`.
    pub skill_groups: Option<Vec<Option<Cow<'a, str>>>>,
}

/// The skill group that a session waited for. Vendor: `QueuedSkillGroupId`, `QueuedSkillGroupName`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Queue<'a> {
    /// Vendor: `QueuedSkillGroupId`.
    pub id: Option<Cow<'a, str>>,
    /// Vendor: `QueuedSkillGroupName`.
    pub name: Option<Cow<'a, str>>,
}

/// A key that the customer pressed, or a word that the customer said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct KeyPress<'a> {
    /// The key or the word. Vendor: `Key`.
    pub key: Option<Cow<'a, str>>,
    /// What it stands for in the menu. Vendor: `Label`.
    pub label: Option<Cow<'a, str>>,
    /// When it was pressed, with milliseconds. Vendor: `Timestamp`.
    pub pressed_at: Option<Time>,
    /// The menu's node. Vendor: `NodeLabel`.
    pub node: Option<Cow<'a, str>>,
    /// What the customer said, where it was recognised speech. Vendor: `OriginalContent`.
    pub original: Option<Cow<'a, str>>,
    /// What was played to the customer. Vendor: `TTSPrompt`.
    pub prompt: Option<Cow<'a, str>>,
}

/// Where a phone number belongs. Vendor: `TelLocation`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PhoneLocation<'a> {
    /// Vendor: `TelNumber`.
    pub number: Option<Cow<'a, str>>,
    /// Vendor: `Country`.
    pub country: Option<Cow<'a, str>>,
    /// Vendor: `Province`.
    pub province: Option<Cow<'a, str>>,
    /// Vendor: `City`.
    pub city: Option<Cow<'a, str>>,
    /// The carrier. Vendor: `Operator`.
    pub operator: Option<Cow<'a, str>>,
}

pub(super) fn direction(fields: &mut Fields<'_, '_>) -> Option<Direction> {
    let parse = |text: &str| match super::values::integer(text)? {
        0 => Some(Direction::Inbound),
        1 => Some(Direction::Outbound),
        _ => None,
    };
    fields.take("Direction")?.read(parse, "neither 0 (inbound) nor 1 (outbound)")
}

pub(super) fn call_type(fields: &mut Fields<'_, '_>) -> Option<CallType> {
    let parse = |text: &str| {
        Some(match super::values::integer(text)? {
            1 => CallType::Outbound,
            2 => CallType::Inbound,
            3 => CallType::VoipInbound,
            5 => CallType::Predictive,
            6 => CallType::Internal,
            _ => CallType::Other,
        })
    };
    fields.take("CallType")?.read_keeping(parse, "not a call type", |kind| *kind == CallType::Other)
}

pub(super) fn agent<'a>(fields: &mut Fields<'a, '_>) -> Option<Agent<'a>> {
    fields.object("SeatUser", |agent| Agent {
        email: agent.text("Mail"),
        name: agent.text("Name"),
        nickname: agent.text("Nick"),
        phone: agent.text("Phone"),
        user_id: agent.text("UserId"),
        staff_number: agent.text("StaffNumber"),
        skill_groups: agent.array("SkillGroupNameList", |group| group.text()),
    })
}

/// `None` where neither id nor name was sent.
pub(super) fn queue<'a>(fields: &mut Fields<'a, '_>) -> Option<Queue<'a>> {
    let queue = Queue { id: fields.text("QueuedSkillGroupId"), name: fields.text("QueuedSkillGroupName") };
    (queue.id.is_some() || queue.name.is_some()).then_some(queue)
}

pub(super) fn phone_location<'a>(fields: &mut Fields<'a, '_>) -> Option<PhoneLocation<'a>> {
    fields.object("TelLocation", |location| PhoneLocation {
        number: location.text("TelNumber"),
        country: location.text("Country"),
        province: location.text("Province"),
        city: location.text("City"),
        operator: location.text("Operator"),
    })
}

pub(super) fn end_state<'a>(fields: &mut Fields<'a, '_>) -> Option<EndState<'a>> {
    fields.text("EndStatusString").map(EndState::new)
}

/// `IVRKeyPressedEx`, and where that has no element `IVRKeyPressed`. Where both have elements and the plain keys differ from those of
/// the richer list, they stay under `extra`.
pub(super) fn ivr_keys<'a>(fields: &mut Fields<'a, '_>) -> Option<Vec<KeyPress<'a>>> {
    let rich = key_presses(fields, "IVRKeyPressedEx");
    if rich.as_ref().is_none_or(Vec::is_empty) {
        return key_presses(fields, "IVRKeyPressed").or(rich);
    }
    if let (Some(rich), Some(plain)) = (&rich, fields.take("IVRKeyPressed"))
        && !plain.is_array_of(rich.iter().map(|press| press.key.as_deref()))
    {
        plain.keep();
    }
    rich
}

/// A list of keys, each an object or a bare key.
pub(super) fn key_presses<'a>(fields: &mut Fields<'a, '_>, name: &str) -> Option<Vec<KeyPress<'a>>> {
    fields.array(name, key_press)
}

fn key_press<'a>(place: Place<'a, '_>) -> KeyPress<'a> {
    if !place.is_object() {
        return KeyPress { key: place.text(), ..KeyPress::default() };
    }
    let press = place.object(|press| KeyPress {
        key: press.text("Key"),
        label: press.text("Label"),
        pressed_at: press.milliseconds("Timestamp"),
        node: press.text("NodeLabel"),
        original: press.text("OriginalContent"),
        prompt: press.text("TTSPrompt"),
    });
    press.unwrap_or_default()
}
