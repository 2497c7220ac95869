//! The frame: how one accepted push, or one dead letter, lies in a file. Pure.
//!
//! ```text
//!  at  size
//!   0     4  magic "TKF1"
//!   4     4  CRC32C of the rest of the header and of the meta, begun with the file's seed
//!   8     4  CRC32C of the body
//!  12     4  length of the body
//!  16     4  length of the meta
//!  20     4  kind: 1 entry · 2 dead letter · 3 dead letter removed · 4 next number of a dead letter
//!  24     8  number: the entry's offset, or the dead letter's number
//!  32     8  received at, in milliseconds since 1970
//!  40    16  key: the first half of SHA-256 over source and push id
//!  56     …  meta: strings, each with its length (u32; all ones = absent)
//!   …     …  body, exactly as received
//! ```
//!
//! Numbers are little-endian. The header's checksum covers everything but the body, so a frame with a broken body is still known:
//! whose it is, how long it is, where the next one begins. The seed is made of the file's generation, a random number that its
//! header holds: what a file held in an earlier life, and bytes inside a body that pretend to be a frame, do not verify.

pub(super) use crate::journal::codec::{Key, Meta, NO_KEY, key_of, put_push, put_text, timestamp, u32_at, u64_at};

use crate::journal::Push;

pub(super) const HEADER_LEN: usize = 56;
pub(super) const MAGIC: [u8; 4] = *b"TKF1";
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Entry = 1,
    Letter = 2,
    LetterRemoved = 3,
    NextNumber = 4,
}

impl Kind {
    fn from_code(code: u32) -> Option<Self> {
        [Self::Entry, Self::Letter, Self::LetterRemoved, Self::NextNumber].into_iter().find(|kind| *kind as u32 == code)
    }
}

/// The fixed part of a frame, without its lengths and checksums of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub kind: Kind,
    pub number: u64,
    pub received_ms: i64,
    pub key: Key,
    pub body_crc: u32,
    pub meta_len: u32,
    pub body_len: u32,
}

impl Head {
    /// Bytes of the whole frame.
    pub(super) fn frame_len(&self) -> u64 {
        HEADER_LEN as u64 + u64::from(self.meta_len) + u64::from(self.body_len)
    }

    pub(super) fn meta_end(&self) -> usize {
        HEADER_LEN + self.meta_len as usize
    }
}

/// The seed of the header checksums in a file of `generation`.
pub(super) fn seed_of(generation: u64) -> u32 {
    crc32c::crc32c(&generation.to_le_bytes())
}

/// Appends a frame. `meta` writes its part; `head.meta_len` and `head.body_len` are set here.
pub(super) fn encode(into: &mut Vec<u8>, seed: u32, head: Head, body: &[u8], meta: impl FnOnce(&mut Vec<u8>)) {
    let start = into.len();
    into.extend_from_slice(&MAGIC);
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(&head.body_crc.to_le_bytes());
    into.extend_from_slice(&(body.len() as u32).to_le_bytes());
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(&(head.kind as u32).to_le_bytes());
    into.extend_from_slice(&head.number.to_le_bytes());
    into.extend_from_slice(&head.received_ms.to_le_bytes());
    into.extend_from_slice(&head.key);
    meta(into);
    let meta_len = (into.len() - start - HEADER_LEN) as u32;
    into[start + 16..start + 20].copy_from_slice(&meta_len.to_le_bytes());
    let header_crc = crc32c::crc32c_append(seed, &into[start + 8..]);
    into[start + 4..start + 8].copy_from_slice(&header_crc.to_le_bytes());
    into.extend_from_slice(body);
}

/// What the bytes at a place are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decoded {
    /// A frame whose header and meta verify. Its body has not been looked at.
    Head(Head),
    /// This many bytes from the start of the frame are needed to tell.
    More(usize),
    /// No frame of this file.
    Nothing,
}

/// Looks at the start of `bytes`.
pub(super) fn decode(bytes: &[u8], seed: u32) -> Decoded {
    if bytes.len() < HEADER_LEN {
        return Decoded::More(HEADER_LEN);
    }
    if bytes[..4] != MAGIC {
        return Decoded::Nothing;
    }
    let meta_len = u32_at(bytes, 16);
    let meta_end = HEADER_LEN.saturating_add(meta_len as usize);
    if bytes.len() < meta_end {
        return Decoded::More(meta_end);
    }
    if crc32c::crc32c_append(seed, &bytes[8..meta_end]) != u32_at(bytes, 4) {
        return Decoded::Nothing;
    }
    let Some(kind) = Kind::from_code(u32_at(bytes, 20)) else { return Decoded::Nothing };
    let mut key = NO_KEY;
    key.copy_from_slice(&bytes[40..56]);
    Decoded::Head(Head {
        kind,
        number: u64_at(bytes, 24),
        received_ms: u64_at(bytes, 32) as i64,
        key,
        body_crc: u32_at(bytes, 8),
        meta_len,
        body_len: u32_at(bytes, 12),
    })
}

/// The number that the bytes at a place claim, whether or not they verify. To tell the beginning of a frame that was not finished
/// from what a file held in an earlier life.
pub(super) fn claimed_number(bytes: &[u8]) -> Option<u64> {
    (bytes.len() >= HEADER_LEN && bytes[..4] == MAGIC).then(|| u64_at(bytes, 24))
}

/// Upper bound of what [`encode`] with [`put_push`] appends.
pub(super) fn push_frame_len(push: &Push) -> u64 {
    let texts = [
        push.id.as_str().len(),
        push.source.as_str().len(),
        push.action.len(),
        push.version.as_deref().map_or(0, str::len),
        push.session.as_ref().map_or(0, |session| session.as_str().len()),
        push.traceparent.as_deref().map_or(0, str::len),
    ];
    (HEADER_LEN + texts.len() * 4 + texts.iter().sum::<usize>() + push.body.len()) as u64
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn push(body: &[u8]) -> Push {
        Push {
            id: "p-1".into(),
            source: "main".into(),
            action: "cdr".into(),
            version: None,
            session: Some("s-1".into()),
            received_at: timestamp(1_787_003_942_021),
            traceparent: Some("00-1".into()),
            body: Bytes::copy_from_slice(body),
        }
    }

    fn frame(push: &Push, seed: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let head = Head {
            kind: Kind::Entry,
            number: 7,
            received_ms: push.received_at.as_millisecond(),
            key: key_of(&push.source, &push.id),
            body_crc: crc32c::crc32c(&push.body),
            meta_len: 0,
            body_len: 0,
        };
        encode(&mut bytes, seed, head, &push.body, |into| put_push(into, push));
        bytes
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let push = push(b"{}");
        let bytes = frame(&push, 3);
        assert_eq!(bytes.len() as u64, push_frame_len(&push));
        let Decoded::Head(head) = decode(&bytes, 3) else { panic!("no frame") };
        assert_eq!((head.number, head.frame_len()), (7, bytes.len() as u64));
        let body = Bytes::copy_from_slice(&bytes[head.meta_end()..]);
        assert_eq!(Meta(&bytes[HEADER_LEN..head.meta_end()]).push(head.received_ms, body), Some(push));
    }

    #[test]
    fn a_frame_of_another_generation_is_nothing() {
        assert_eq!(decode(&frame(&push(b"{}"), 3), 4), Decoded::Nothing);
    }

    #[test]
    fn every_flipped_bit_before_the_body_is_seen() {
        let push = push(b"{}");
        let bytes = frame(&push, 3);
        let header = bytes.len() - push.body.len();
        for bit in 0..header * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let decoded = decode(&bytes, 3);
            // The body's own checksum is part of the header.
            assert!(!matches!(decoded, Decoded::Head(_)), "bit {bit}");
        }
    }

    #[test]
    fn two_sources_never_share_a_key() {
        assert_ne!(key_of(&"ab".into(), &"c".into()), key_of(&"a".into(), &"bc".into()));
    }

    proptest! {
        #[test]
        fn any_bytes_at_all_are_decoded_without_panic(bytes: Vec<u8>, seed: u32) {
            let mut with_magic = MAGIC.to_vec();
            with_magic.extend_from_slice(&bytes);
            decode(&bytes, seed);
            decode(&with_magic, seed);
            Meta(&bytes).push(0, Bytes::new());
        }
    }
}
