//! Dead letters: events that a sink rejected or that ran out of attempts, and pushes that the ingress refused but must not lose.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use super::Push;
use crate::names::{Offset, PushId, SessionId, SinkName, SourceName};

/// Identifies a dead letter: `<sink>-<number>`. The number rises in journal order, so letters of one session sort in their order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeadLetterId {
    pub sink: SinkName,
    /// For a sink: made of the entry's shard and offset, so that the same entry has the same id again. For the ingress: a counter,
    /// which [`super::Journal::keep_refused`] gives (it takes 0).
    pub number: u64,
}

/// Lower bits of a number, which hold the offset; the shard is above them.
const OFFSET_BITS: u32 = 48;

impl DeadLetterId {
    /// The id of an entry's letter. The same entry has the same id again; within a shard numbers rise with the offset, which stays
    /// below 2^48.
    pub fn of_entry(sink: SinkName, shard: u16, offset: Offset) -> Self {
        Self { sink, number: u64::from(shard) << OFFSET_BITS | offset.0 }
    }

    /// The shard of the entry; 0 for the ingress.
    pub fn shard(&self) -> u16 {
        u16::try_from(self.number >> OFFSET_BITS).expect("16 bits are left")
    }

    /// The offset of the entry in its shard; a counter for the ingress.
    pub fn offset(&self) -> u64 {
        self.number & ((1 << OFFSET_BITS) - 1)
    }
}

impl fmt::Display for DeadLetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.sink, self.number)
    }
}

/// The text is not `<sink>-<number>`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the id of a dead letter; ids look like \"events-42\"")]
pub struct DeadLetterIdError(String);

impl FromStr for DeadLetterId {
    type Err = DeadLetterIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.rsplit_once('-')
            .and_then(|(sink, number)| Some(Self { sink: SinkName::from(sink), number: number.parse().ok()? }))
            .ok_or_else(|| DeadLetterIdError(text.to_owned()))
    }
}

/// A dead letter, whole.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    pub id: DeadLetterId,
    pub push: Push,
    /// See [`sink_api::Fault::code`].
    pub code: String,
    pub reason: String,
    pub attempts: u32,
    pub first_attempt_at: Timestamp,
    pub last_attempt_at: Timestamp,
}

/// A dead letter without its payload: what lists show.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetterHead {
    pub id: DeadLetterId,
    pub push_id: PushId,
    pub action: String,
    pub source: SourceName,
    pub session: Option<SessionId>,
    pub code: String,
    pub reason: String,
    pub attempts: u32,
    pub first_attempt_at: Timestamp,
    pub last_attempt_at: Timestamp,
    pub received_at: Timestamp,
    /// Size of the payload.
    pub size_bytes: u64,
}

/// Which dead letters are meant; an absent part selects all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selection {
    pub sink: Option<SinkName>,
    /// Compared without case.
    pub action: Option<String>,
    pub code: Option<String>,
    /// `last_attempt_at` at or after this.
    pub since: Option<Timestamp>,
    /// `last_attempt_at` before this.
    pub until: Option<Timestamp>,
}

impl Selection {
    pub fn matches(&self, head: &DeadLetterHead) -> bool {
        self.sink.as_ref().is_none_or(|sink| *sink == head.id.sink)
            && self.action.as_ref().is_none_or(|action| action.eq_ignore_ascii_case(&head.action))
            && self.code.as_ref().is_none_or(|code| *code == head.code)
            && self.since.is_none_or(|since| head.last_attempt_at >= since)
            && self.until.is_none_or(|until| head.last_attempt_at < until)
    }
}

/// A stretch of a list of dead letters.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeadLetterPage {
    pub heads: Vec<DeadLetterHead>,
    /// The `after` of the next page, where there is one.
    pub next: Option<DeadLetterId>,
}

impl DeadLetter {
    pub fn head(&self) -> DeadLetterHead {
        DeadLetterHead {
            id: self.id.clone(),
            push_id: self.push.id.clone(),
            action: self.push.action.clone(),
            source: self.push.source.clone(),
            session: self.push.session.clone(),
            code: self.code.clone(),
            reason: self.reason.clone(),
            attempts: self.attempts,
            first_attempt_at: self.first_attempt_at,
            last_attempt_at: self.last_attempt_at,
            received_at: self.push.received_at,
            size_bytes: self.push.body.len() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_holds_shard_and_offset_and_reads_back() {
        let id = DeadLetterId::of_entry("my-sink".into(), 3, Offset(42));
        assert_eq!((id.number, id.shard(), id.offset()), ((3 << 48) + 42, 3, 42));
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["events", "events-", "events-x", ""] {
            assert!(text.parse::<DeadLetterId>().is_err(), "{text}");
        }
    }
}
