//! What stands in Redis for a push id.
//!
//! | key | type | content |
//! |---|---|---|
//! | `<prefix>:{h<slot>}:claim:<id>` | string, PX [`super::marks::CLAIM_TTL`] | the replica that is accepting the push |
//! | `<prefix>:{h<slot>}:seen:<bucket>` | hash, PEXPIRE two windows | id → what was confirmed |
//! | `<prefix>:{h<slot>}:probe` | string, PX | that Redis takes writes |
//!
//! `id` is the 16-byte digest of source and push id, hex in the claim's key; `slot` its first [`SLOT_BITS`] bits, so that everything
//! about one id lies in one slot of a cluster and the hashes stay small enough to be packed (some 20 bytes an id); `bucket` is the
//! time received, divided by the dedup window: an id within the window is in the push's bucket or one beside it. What was confirmed
//! is 20 bytes: CRC32C of the body, milliseconds of the time received, offset in the journal of the replica that has it, all
//! big-endian.

/// A hundred pushes a second for a day leave about 70 ids in a hash; Redis packs hashes up to 128.
const SLOT_BITS: u32 = 17;

/// The keys of one push id.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) slot: u32,
    pub(super) claim: String,
    /// The bucket before, the push's own, the one after.
    pub(super) seen: [String; 3],
}

impl Keys {
    pub(super) fn new(prefix: &str, id: &[u8; 16], received_ms: i64, window_ms: i64) -> Self {
        let head = u32::from_be_bytes([id[0], id[1], id[2], id[3]]);
        let slot = head >> (u32::BITS - SLOT_BITS);
        let bucket = received_ms.div_euclid(window_ms.max(1));
        let seen = |bucket: i64| format!("{}:seen:{bucket}", tagged(prefix, slot));
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            slot,
            claim: format!("{}:claim:{hex}", tagged(prefix, slot)),
            seen: [seen(bucket - 1), seen(bucket), seen(bucket + 1)],
        }
    }
}

pub(super) fn probe(prefix: &str, slot: u32) -> String {
    format!("{}:probe", tagged(prefix, slot))
}

/// The hash tag of a slot.
pub(super) fn tag(slot: u32) -> String {
    format!("h{slot}")
}

fn tagged(prefix: &str, slot: u32) -> String {
    format!("{prefix}:{{{}}}", tag(slot))
}

/// What is known of a confirmed id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) body_crc: u32,
    pub(super) received_ms: i64,
    pub(super) offset: u64,
}

impl Seen {
    pub(super) fn encode(&self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&self.body_crc.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.received_ms.to_be_bytes());
        bytes[12..].copy_from_slice(&self.offset.to_be_bytes());
        bytes
    }

    /// `None` for what [`Seen::encode`] did not write.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (crc, rest) = bytes.split_first_chunk::<4>()?;
        let (received, rest) = rest.split_first_chunk::<8>()?;
        let offset: [u8; 8] = rest.try_into().ok()?;
        Some(Self {
            body_crc: u32::from_be_bytes(*crc),
            received_ms: i64::from_be_bytes(*received),
            offset: u64::from_be_bytes(offset),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_an_id_lie_in_one_slot_and_neighbouring_buckets_are_looked_at() {
        let keys = Keys::new("t", &[0xff; 16], 7_199_999, 3_600_000);
        assert_eq!(keys.slot, (1 << SLOT_BITS) - 1);
        assert_eq!(keys.claim, "t:{h131071}:claim:ffffffffffffffffffffffffffffffff");
        assert_eq!(keys.seen, ["t:{h131071}:seen:0", "t:{h131071}:seen:1", "t:{h131071}:seen:2"]);
        assert_eq!(Keys::new("t", &[0; 16], -1, 1000).seen[1], "t:{h0}:seen:-1");
    }

    #[test]
    fn what_was_confirmed_reads_back() {
        let seen = Seen { body_crc: 0xdead_beef, received_ms: 1_787_000_000_007, offset: u64::MAX - 1 };
        assert_eq!(Seen::decode(&seen.encode()), Some(seen));
        assert_eq!(Seen::decode(b"short"), None);
    }
}
