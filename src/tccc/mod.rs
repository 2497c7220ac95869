//! The sender's protocol (Tencent Cloud Contact Center, Data Push): what its actions are called, what their bodies mean, and the
//! event that follows from them.
//!
//! Pure functions over bytes. The exact bytes received are the record of truth: decoding is lenient, what is not known is kept
//! verbatim, and what cannot be read is said in the event's `warnings`, never fatal.

use bytes::Bytes;
use sink_api::Event;

use crate::journal::Push;
use crate::names::SessionId;

/// The actions that the sender's documentation names and that are pushes, as the config spells them, plus our own.
pub const KNOWN_ACTIONS: [&str; 6] = ["cdr", "record", "voicemail", "imcdr", "videoCdr", "recording.archived"];

/// Documented by the sender, but a routing query and not a push: always refused.
pub const SPECIFIED_SEAT: &str = "specifiedSeat";

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
pub fn read_head(body: &[u8]) -> Result<Head, BodyError> {
    #[derive(serde::Deserialize)]
    struct Session<'a> {
        #[serde(rename = "SessionId", borrow)]
        session: Option<std::borrow::Cow<'a, str>>,
    }
    let whole: &serde_json::value::RawValue =
        serde_json::from_slice(body).map_err(|error| BodyError::NotJson(error.to_string()))?;
    if !whole.get().starts_with('{') {
        return Err(BodyError::NotAnObject);
    }
    let session = serde_json::from_str::<Session<'_>>(whole.get()).ok().and_then(|head| head.session);
    Ok(Head { session: session.map(|text| SessionId::from(&*text)) })
}

/// The event of a push. Total: any body gives an event; one that is not a JSON object is kept as a string under `extra`.
pub fn normalise(_push: &Push) -> Normalised {
    let _ = Bytes::new();
    unimplemented!("written in its own change")
}
