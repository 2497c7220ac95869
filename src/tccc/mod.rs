//! The sender's protocol (Tencent Cloud Contact Center, Data Push): what its actions are called, what their bodies mean, and the
//! event that follows from them.
//!
//! Pure functions over bytes. The exact bytes received are the record of truth: decoding is lenient, what is not known is kept
//! verbatim, and what cannot be read is said in the event's `warnings`, never fatal. Nothing here recurses on the depth of a body.
//!
//! In reading order: what the ingress asks of a body ([`head`]), how an object is read ([`json`], [`notes`], [`fields`],
//! [`values`]), one module per shape of `data` ([`parts`], [`cdr`], [`chat`], [`video`], [`recording`], [`archived`],
//! [`other`]), the event around it ([`event`]), the published schemas ([`schema`]), the channels that consumers read ([`asyncapi`]), and which
//! fields there are ([`known`]).

mod head;
pub(crate) mod json;
mod notes;
mod fields;
mod values;
mod end_state;
mod parts;
mod cdr;
mod chat;
mod video;
mod recording;
mod archived;
mod other;
mod event;
mod schema;
mod asyncapi;
mod known;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod quirks;
#[cfg(test)]
mod properties;

use sink_api::Event;

use crate::journal::Push;
use crate::names::SessionId;

pub use archived::RecordingArchived;
pub use asyncapi::asyncapi;
pub use cdr::{Cdr, Participant, SkillGroup};
pub use chat::{Chat, Satisfaction};
pub use end_state::{EndState, EndStateClass};
pub use known::known_fields;
pub use notes::{Extra, Warning};
pub use other::Other;
pub use parts::{Agent, CallType, Direction, KeyPress, PhoneLocation, Queue};
pub use recording::Recording;
pub use schema::{schema, schemas};
pub use values::Time;
pub use video::Video;

/// The actions that the sender's documentation names and that are pushes, as the config spells them, plus our own.
pub const KNOWN_ACTIONS: [&str; 6] = ["cdr", "record", "voicemail", "imcdr", "videoCdr", "recording.archived"];

/// Documented by the sender, but a routing query and not a push: always refused.
pub const SPECIFIED_SEAT: &str = "specifiedSeat";

/// Whether pushes of `action` name a recording that can be fetched.
pub fn names_a_recording(action: &str) -> bool {
    ["record", "voicemail"].iter().any(|named| named.eq_ignore_ascii_case(action))
}

/// What the ingress needs to know of a body before it can be accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    pub session: Option<SessionId>,
}

/// A body that the gateway does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Says where and what, without quoting the body.
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    #[error("the body is JSON but not an object")]
    NotAnObject,
}

/// An event, and how many of its fields could not be read as documented.
#[derive(Debug, Clone)]
pub struct Normalised {
    pub event: Event,
    pub warnings: usize,
}

/// The spelling of a known action, whatever the case of `action`.
pub fn known_action(action: &str) -> Option<&'static str> {
    KNOWN_ACTIONS.into_iter().find(|known| known.eq_ignore_ascii_case(action))
}

/// Checks that `body` is one JSON object (RFC 8259, UTF-8, any depth) and finds its session id.
///
/// The session id is the member `SessionId`, its name compared without case, the last one where there are several (PROTOCOL.md §4),
/// a string or a number; anything else, an empty string and a string that is not Unicode are no session id. Its length and its
/// characters are not judged: it is bounded by the body, and an odd key orders events as well as a fine one.
pub fn read_head(body: &[u8]) -> Result<Head, BodyError> {
    head::read(body)
}

/// The event of a push. Total: any body gives an event; one that is not a JSON object is kept as a string under `extra`.
pub fn normalise(push: &Push) -> Normalised {
    event::normalise(push)
}
