//! Which key holds what. `{pN}` is the hash tag of shard N, so that all keys of a shard lie on one server.
//!
//! | key behind `<prefix>:{pN}:` | type | content |
//! |---|---|---|
//! | `log` | stream | the entries; the id is `<offset>-0` |
//! | `meta` | hash | `life`, `seq` (greatest offset given), `last` (greatest that is an entry), `lives`, `bytes` and `base` (accepted and given back), `letters` (bytes), `refused`, `dups`, `shards`, `format`, `id` (of the journal: another one after a wipe) |
//! | `dd:<b>:<h>` | hash | marks: key of the push → received ms (6), body's CRC32C (4), offset (6), big-endian; b = the push's time divided by the window |
//! | `low` | hash | registered sinks: sink → greatest offset that all before are settled |
//! | `state` | hash | per sink: `c:` checkpoint, `f:` fence, `p:` paused (shard 0) |
//! | `lease:<sink>` | string | who owns the sink's pipeline, until it expires |
//! | `dl:<sink>` · `dx:<sink>` | hash · sorted set | dead letters: `h`, `b` and an offset → head, body; their offsets |
//! | `dk` | hash | refused pushes that are kept (shard 0) |
//! | `here` | sorted set | gateways that share the work (shard 0) |

/// How keys and values are laid out, as `meta` says it.
pub(super) const FORMAT: u64 = 1;

/// Buckets that the marks of one window are spread over, so that each stays small and takes few bytes per mark.
const SPREAD: u64 = 4096;

pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// What the slot of a shard's keys is made from.
    pub(super) fn tag(shard: u16) -> String {
        format!("p{shard}")
    }

    pub(super) fn of(&self, shard: u16, name: &str) -> String {
        format!("{}:{{p{shard}}}:{name}", self.prefix)
    }

    pub(super) fn of_sink(&self, shard: u16, name: &str, sink: &str) -> String {
        format!("{}:{{p{shard}}}:{name}:{sink}", self.prefix)
    }

    /// The buckets that may hold a push's mark: before, at and after its time.
    pub(super) fn marks(&self, shard: u16, key: &[u8; 16], received_ms: u64, window_ms: u64) -> [String; 3] {
        let hash = u64::from(u16::from_le_bytes([key[0], key[1]])) % SPREAD;
        let bucket = received_ms / window_ms.max(1) + 1;
        [bucket - 1, bucket, bucket + 1].map(|bucket| format!("{}:{{p{shard}}}:dd:{bucket}:{hash}", self.prefix))
    }
}
