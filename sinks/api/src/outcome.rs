//! What became of an event that was handed to a sink.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

/// The answer for one event of a batch.
///
/// The type says what the pipeline does next:
///
/// | outcome | meaning | what follows |
/// |---|---|---|
/// | `Delivered` | the destination confirmed that it holds the event | settled |
/// | `Retry` | this event failed, another try may help | tried again after a delay, in order with its session; a dead letter once its attempts are used up |
/// | `Rejected` | this event can never be delivered | a dead letter at once |
/// | `Unavailable` | the sink as a whole cannot deliver; says nothing of the event | the breaker opens; tried again without burning an attempt |
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Delivered {
        /// A push that follows from this delivery. It is accepted into the journal before the event is settled.
        derived: Option<Box<DerivedPush>>,
    },
    Retry {
        fault: Fault,
        /// Not before this long from now, where the destination said so.
        after: Option<Duration>,
        /// Whether this try counts toward `retry.attempts_max`. A destination that only asks for patience burns none.
        burns_attempt: bool,
    },
    Rejected {
        fault: Fault,
    },
    Unavailable {
        fault: Fault,
        /// Not before this long from now, where the destination said so.
        after: Option<Duration>,
    },
}

impl Outcome {
    pub const fn delivered() -> Self {
        Self::Delivered { derived: None }
    }

    pub const fn retry(fault: Fault) -> Self {
        Self::Retry { fault, after: None, burns_attempt: true }
    }

    pub const fn rejected(fault: Fault) -> Self {
        Self::Rejected { fault }
    }

    pub const fn unavailable(fault: Fault) -> Self {
        Self::Unavailable { fault, after: None }
    }
}

/// The code of an `Unavailable` by which a sink that [remembers positions](crate::Needs::resumes_positions) says that another
/// process has taken over the shard at the destination. The pipeline asks the journal whether the shard is still its own, and if so
/// begins anew with [`crate::Sink::resume`].
pub const FENCED: &str = "fenced";

/// Why something failed.
///
/// It is shown to operators and kept in dead letters. It MUST NOT hold a secret, a phone number, an e-mail address or the query of
/// a URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Fault {
    /// A short stable word to select by: `http-503`, `disk-full`, `timeout`. ASCII letters, digits and `-`.
    pub code: Cow<'static, str>,
    /// One sentence for a person, lower case, no full stop: what is wrong, where, and what to do if that is known.
    pub reason: String,
}

impl Fault {
    pub fn new(code: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Self {
        Self { code: code.into(), reason: reason.into() }
    }
}

/// A push made by a sink from what it delivered, such as "this recording has been archived". Its push id is derived from the
/// event's, so that a repeated delivery makes the same push again and the journal recognises it.
#[derive(Debug, Clone, PartialEq)]
pub struct DerivedPush {
    /// Appended to the event's id, as in `<event id>/archived`: 1–32 visible ASCII characters.
    pub id_suffix: String,
    pub action: String,
    pub session_id: Option<String>,
    /// A JSON object.
    pub body: Bytes,
}
