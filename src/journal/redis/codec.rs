//! What lies in Redis, byte by byte. Pure.
//!
//! ```text
//! entry   m  CRC32C of the rest (4) · CRC32C of the body (4) · received ms (8) · strings of the push
//!         d  body      b  bytes that were accepted before this entry, as text
//! letter  h  CRC32C of the rest (4) · CRC32C of the body (4) · received ms (8) · body's length (4) · attempts (4) · first, last ms (16)
//!            · code, reason · strings of the push
//!         b  body
//! ```

use bytes::Bytes;

use crate::journal::codec::{Meta, put_push, put_text, timestamp, u32_at};
use crate::journal::{DeadLetter, DeadLetterHead, DeadLetterId, Entry, Item, Push};
use crate::names::Offset;

/// What an entry takes beyond its meta and body: its mark, the stream's overhead.
const ENTRY_OVERHEAD: usize = 120;

/// Bytes that an entry is counted as.
pub(super) fn entry_size(meta: &[u8], body: &[u8]) -> usize {
    meta.len() + body.len() + ENTRY_OVERHEAD
}

pub(super) fn entry_meta(push: &Push, body_crc: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend_from_slice(&body_crc.to_le_bytes());
    bytes.extend_from_slice(&push.received_at.as_millisecond().to_le_bytes());
    put_push(&mut bytes, push);
    seal(bytes)
}

fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The meta behind its checksum, where it verifies.
fn unseal(bytes: &[u8]) -> Option<Meta<'_>> {
    let rest = bytes.get(4..)?;
    (crc32c::crc32c(rest) == u32_at(bytes, 0)).then_some(Meta(rest))
}

/// An entry as it was read. One whose meta is damaged has no name any more; it gets one, so that it can become a dead letter.
pub(super) fn item(offset: Offset, meta: &[u8], body: Bytes) -> Item {
    let read = |body: Bytes| {
        let mut meta = unseal(meta)?;
        Some((meta.u32()?, meta.i64().and_then(|received| meta.push(received, body))?))
    };
    match read(body.clone()) {
        Some((crc, push)) if crc32c::crc32c(&push.body) == crc => Item::Entry(Entry { offset, push }),
        Some((_, push)) => {
            let detail = "the body does not match its checksum".to_owned();
            Item::Corrupt { entry: Entry { offset, push }, detail }
        }
        None => {
            let push = Push {
                id: format!("damaged-{offset}").as_str().into(),
                source: "unknown".into(),
                action: "unknown".to_owned(),
                version: None,
                session: None,
                received_at: timestamp(0),
                traceparent: None,
                body,
            };
            Item::Corrupt { entry: Entry { offset, push }, detail: "what describes the push is damaged".to_owned() }
        }
    }
}

/// The offset that a mark leads to: its last six bytes.
pub(super) fn marked_offset(mark: &[u8]) -> Option<Offset> {
    let offset = mark.get(10..16)?;
    Some(Offset(offset.iter().fold(0, |offset, byte| offset << 8 | u64::from(*byte))))
}

pub(super) fn letter_head(letter: &DeadLetter) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend_from_slice(&crc32c::crc32c(&letter.push.body).to_le_bytes());
    bytes.extend_from_slice(&letter.push.received_at.as_millisecond().to_le_bytes());
    bytes.extend_from_slice(&(letter.push.body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&letter.attempts.to_le_bytes());
    bytes.extend_from_slice(&letter.first_attempt_at.as_millisecond().to_le_bytes());
    bytes.extend_from_slice(&letter.last_attempt_at.as_millisecond().to_le_bytes());
    put_text(&mut bytes, Some(&letter.code));
    put_text(&mut bytes, Some(&letter.reason));
    put_push(&mut bytes, &letter.push);
    seal(bytes)
}

/// A letter, and whether its body matches its checksum. `None` where its head is damaged.
pub(super) fn letter(id: DeadLetterId, head: &[u8], body: Bytes) -> Option<(DeadLetter, bool)> {
    let is_whole = u32_at(head.get(4..8)?, 0) == crc32c::crc32c(&body);
    Some((letter_and_length(id, head, body)?.0, is_whole))
}

/// A letter and the length of the body that it was kept with.
fn letter_and_length(id: DeadLetterId, head: &[u8], body: Bytes) -> Option<(DeadLetter, u32)> {
    let mut meta = unseal(head)?;
    let _body_crc = meta.u32()?;
    let received = meta.i64()?;
    let body_len = meta.u32()?;
    let attempts = meta.u32()?;
    let (first, last) = (meta.i64()?, meta.i64()?);
    let (code, reason) = (meta.text()?.to_owned(), meta.text()?.to_owned());
    let push = meta.push(received, body)?;
    let (first_attempt_at, last_attempt_at) = (timestamp(first), timestamp(last));
    Some((DeadLetter { id, push, code, reason, attempts, first_attempt_at, last_attempt_at }, body_len))
}

/// What lists show of a letter.
pub(super) fn shown(id: DeadLetterId, head: &[u8]) -> Option<DeadLetterHead> {
    let (letter, body_len) = letter_and_length(id, head, Bytes::new())?;
    Some(DeadLetterHead { size_bytes: u64::from(body_len), ..letter.head() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journal::conformance;

    #[test]
    fn an_entry_reads_back_and_every_flipped_bit_is_seen() {
        let push = conformance::push("a", "s", 1);
        let meta = entry_meta(&push, crc32c::crc32c(&push.body));
        let whole = Item::Entry(Entry { offset: Offset(7), push: push.clone() });
        assert_eq!(item(Offset(7), &meta, push.body.clone()), whole);
        for bit in 0..meta.len() * 8 {
            let mut meta = meta.clone();
            meta[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(item(Offset(7), &meta, push.body.clone()), Item::Corrupt { .. }), "bit {bit}");
        }
        assert!(matches!(item(Offset(7), &meta, Bytes::from_static(b"other")), Item::Corrupt { .. }));
    }

    #[test]
    fn a_letter_reads_back() {
        let push = conformance::push("a", "s", 1);
        let whole = conformance::letter(&"s".into(), 3, Offset(9), &push);
        let head = letter_head(&whole);
        assert_eq!(letter(whole.id.clone(), &head, push.body.clone()), Some((whole.clone(), true)));
        let cut = letter(whole.id.clone(), &head, Bytes::new()).unwrap();
        assert!(!cut.1, "the body is another one");
        assert_eq!(shown(whole.id.clone(), &head), Some(whole.head()));
    }

    proptest! {
        #[test]
        fn any_bytes_at_all_are_read_without_panic(bytes: Vec<u8>) {
            item(Offset(1), &bytes, Bytes::new());
            shown(DeadLetterId { sink: "s".into(), number: 1 }, &bytes);
        }
    }
}
