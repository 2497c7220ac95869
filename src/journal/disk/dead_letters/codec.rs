//! How a dead letter lies in a frame. The meta is: code, reason, attempts (u32), first and last attempt (ms, i64 each), then the
//! push's strings as in an entry.

use bytes::Bytes;

use super::super::frame::{self, Head, Kind, Meta, key_of};
use crate::journal::{DeadLetter, DeadLetterHead, DeadLetterId};
use crate::names::SinkName;

/// Appends a letter under `number`; gives the frame's fixed part.
pub(super) fn put(into: &mut Vec<u8>, seed: u32, number: u64, letter: &DeadLetter) -> Head {
    let mut head = Head {
        kind: Kind::Letter,
        number,
        received_ms: letter.push.received_at.as_millisecond(),
        key: key_of(&letter.push.source, &letter.push.id),
        body_crc: crc32c::crc32c(&letter.push.body),
        meta_len: 0,
        body_len: letter.push.body.len() as u32,
    };
    let start = into.len();
    frame::encode(into, seed, head, &letter.push.body, |into| {
        frame::put_text(into, Some(&letter.code));
        frame::put_text(into, Some(&letter.reason));
        into.extend_from_slice(&letter.attempts.to_le_bytes());
        into.extend_from_slice(&letter.first_attempt_at.as_millisecond().to_le_bytes());
        into.extend_from_slice(&letter.last_attempt_at.as_millisecond().to_le_bytes());
        frame::put_push(into, &letter.push);
    });
    head.meta_len = (into.len() - start - frame::HEADER_LEN) as u32 - head.body_len;
    head
}

/// Appends a record that has a number and nothing else.
pub(super) fn put_mark(into: &mut Vec<u8>, seed: u32, kind: Kind, number: u64) {
    let body_crc = crc32c::crc32c(&[]);
    let head = Head { kind, number, received_ms: 0, key: frame::NO_KEY, body_crc, meta_len: 0, body_len: 0 };
    frame::encode(into, seed, head, &[], |_| {});
}

/// A letter from its meta and body.
pub(in super::super) fn letter(sink: &SinkName, head: &Head, meta: &[u8], body: Bytes) -> Option<DeadLetter> {
    let mut meta = Meta(meta);
    Some(DeadLetter {
        id: DeadLetterId { sink: sink.clone(), number: head.number },
        code: meta.text()?.to_owned(),
        reason: meta.text()?.to_owned(),
        attempts: meta.u32()?,
        first_attempt_at: frame::timestamp(meta.i64()?),
        last_attempt_at: frame::timestamp(meta.i64()?),
        push: meta.push(head.received_ms, body)?,
    })
}

/// What lists show of a letter, from its meta alone.
pub(super) fn head(sink: &SinkName, head: &Head, meta: &[u8]) -> Option<DeadLetterHead> {
    let mut shown = letter(sink, head, meta, Bytes::new())?.head();
    shown.size_bytes = u64::from(head.body_len);
    Some(shown)
}
