//! How both backends write a push down, its body apart: numbers little-endian, strings with their length (u32; all ones = absent).

use aws_lc_rs::digest;
use bytes::Bytes;
use jiff::Timestamp;

use super::Push;
use crate::names::{PushId, SessionId, SourceName};

const ABSENT: u32 = u32::MAX;

/// Identifies a push: the first 16 bytes of SHA-256 over the source's length, the source and the push id. All zero never occurs
/// and stands for "no mark".
pub(super) type Key = [u8; 16];
pub(super) const NO_KEY: Key = [0; 16];

/// The key of a push of `source`.
pub(super) fn key_of(source: &SourceName, id: &PushId) -> Key {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&(source.as_str().len() as u32).to_le_bytes());
    context.update(source.as_str().as_bytes());
    context.update(id.as_str().as_bytes());
    let mut key = NO_KEY;
    key.copy_from_slice(&context.finish().as_ref()[..16]);
    key
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Writes the strings of a push: everything but its body and the time, which the header holds.
pub(super) fn put_push(into: &mut Vec<u8>, push: &Push) {
    put_text(into, Some(push.id.as_str()));
    put_text(into, Some(push.source.as_str()));
    put_text(into, Some(&push.action));
    put_text(into, push.version.as_deref());
    put_text(into, push.session.as_ref().map(SessionId::as_str));
    put_text(into, push.traceparent.as_deref());
}

pub(super) fn put_text(into: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => {
            into.extend_from_slice(&(text.len() as u32).to_le_bytes());
            into.extend_from_slice(text.as_bytes());
        }
        None => into.extend_from_slice(&ABSENT.to_le_bytes()),
    }
}

/// Reads the meta of a frame from front to back. Everything is `None` once something did not fit.
pub(super) struct Meta<'a>(pub &'a [u8]);

impl<'a> Meta<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        Some(u32_at(self.take(4)?, 0))
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        Some(u64_at(self.take(8)?, 0) as i64)
    }

    /// A string that may be absent.
    pub(super) fn optional_text(&mut self) -> Option<Option<&'a str>> {
        match self.u32()? {
            ABSENT => Some(None),
            len => Some(Some(std::str::from_utf8(self.take(len as usize)?).ok()?)),
        }
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        self.optional_text()?
    }

    /// What [`put_push`] wrote, joined with the time and the body.
    pub(super) fn push(&mut self, received_ms: i64, body: Bytes) -> Option<Push> {
        Some(Push {
            id: PushId::new(self.text()?),
            source: SourceName::new(self.text()?),
            action: self.text()?.to_owned(),
            version: self.optional_text()?.map(str::to_owned),
            session: self.optional_text()?.map(SessionId::from),
            traceparent: self.optional_text()?.map(str::to_owned),
            received_at: timestamp(received_ms),
            body,
        })
    }
}

/// Out-of-range times, which no push has, become the nearest that can be said.
pub(super) fn timestamp(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(if millis < 0 { Timestamp::MIN } else { Timestamp::MAX })
}
