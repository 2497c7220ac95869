//! The journal: the durable log of accepted pushes, with de-duplication, checkpoints and dead letters.
//!
//! This file is the contract; [`disk`] keeps it with a segmented log of our own, [`redis`] in Redis for many gateways at once.
//! `conformance` is the suite that every
//! implementation runs. The journal never sees HTTP and never looks into a body.
//!
//! What it promises (the invariants of the suite):
//!
//! - **I1** an acknowledged push can be read by every registered sink until that sink settled it or made it a dead letter;
//! - **I2** one push id within the dedup window has one offset;
//! - **I3** a checkpoint never passes an entry that is neither delivered nor a dead letter;
//! - **I4** a commit with an old fence fails;
//! - **I5** entries of one session are read in the order in which they were accepted;
//! - **I6** trimming never passes the lowest checkpoint of the registered sinks.
//!
//! A shard is a part of the journal with offsets and an order of its own: [`shard_of`] is a pure function of the push, so that a
//! resend reaches the same shard, and all events of a session share one.

mod checkpoint;
mod dead_letter;
mod codec;
pub mod disk;
pub mod redis;
pub mod shared_dedup;
pub mod inspect;
#[cfg(test)]
mod conformance;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use sink_api::Origin;

pub use self::checkpoint::{Attempts, Checkpoint};
pub use self::dead_letter::{DeadLetter, DeadLetterHead, DeadLetterId, DeadLetterIdError, DeadLetterPage, Selection};
use crate::names::{Offset, PushId, SessionId, SinkName, SourceName};

/// A push as the ingress hands it over, with the exact bytes received.
#[derive(Debug, Clone, PartialEq)]
pub struct Push {
    pub id: PushId,
    pub source: SourceName,
    /// As the config spells it where it is known, else as the sender wrote it.
    pub action: String,
    /// The query's `version`, verbatim.
    pub version: Option<String>,
    /// What the shard and the order follow; absent where the body names none.
    pub session: Option<SessionId>,
    /// Milliseconds are kept, finer parts are not.
    pub received_at: Timestamp,
    /// W3C `traceparent`, verbatim.
    pub traceparent: Option<String>,
    pub body: Bytes,
}

/// What became of a push that was given to [`Journal::accept`]. Said only once it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is in the journal now.
    New { offset: Offset },
    /// A push with this id was in the journal already, and it is durable.
    Duplicate {
        offset: Offset,
        /// Whether the body was the same, by its checksum.
        same_body: bool,
    },
}

/// A push was not accepted. In none of these cases may it be acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    #[error("the journal is full: {used} of {limit} bytes are in use")]
    Full { used: u64, limit: u64 },
    #[error("the push of {size} bytes is larger than the journal takes ({limit} bytes)")]
    TooLarge { size: u64, limit: u64 },
    /// It cannot write at present. The cause is for operators, not for senders.
    #[error("the journal cannot write: {cause}")]
    Unavailable { cause: String },
    /// Whether it was written is not known. A resend with the same id finds out.
    #[error("whether the push was written is not known: {cause}")]
    Unknown { cause: String },
}

/// An operation on the journal other than accepting failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The lease was lost to another owner (I4). Stop; what is in flight must not be settled.
    #[error("the lease of sink {sink} on shard {shard} was taken over")]
    Fenced { sink: SinkName, shard: u16 },
    #[error("sink {0} is not registered in the journal")]
    UnknownSink(SinkName),
    /// The sink's dead letters are at their limit. The sink must pause; nothing was changed.
    #[error("the dead letters of {sink} are full: {limit} are kept")]
    DeadLettersFull { sink: SinkName, limit: u64 },
    /// It may pass; try again.
    #[error("the journal is not available: {cause}")]
    Unavailable { cause: String },
}

/// Where a sink begins that the journal has not seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// With what is accepted from now on.
    #[default]
    Now,
    /// With the oldest entry that is still there.
    Oldest,
}

/// Proof of owning a sink's pipeline on one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    pub sink: SinkName,
    pub shard: u16,
    pub epoch: u64,
}

/// A granted lease: the fence to settle with, and where to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    pub fence: Fence,
    pub checkpoint: Checkpoint,
}

/// Why an owner is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recall {
    /// Another process is to have the shard: finish what is in hand, save, release, and ask again.
    HandOver,
    /// The lease ended without being released. Another process may own the shard already; what is in flight must not be settled.
    Lost,
}

/// An accepted push, read back.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub offset: Offset,
    pub push: Push,
}

/// What stands at an offset.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    Entry(Entry),
    /// The entry is there but its body does not match its checksum. It becomes a dead letter of every sink: `entry.push.body` is
    /// what the storage gave.
    Corrupt {
        entry: Entry,
        detail: String,
    },
}

impl Item {
    pub fn entry(&self) -> &Entry {
        match self {
            Self::Entry(entry) | Self::Corrupt { entry, .. } => entry,
        }
    }
}

/// A stretch of a shard.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// By rising offset.
    pub items: Vec<Item>,
    /// Everything up to here has been read: the `after` of the next read. Past the last item where offsets are missing (set aside
    /// as unreadable, or trimmed); `after` itself where nothing follows.
    pub end: Offset,
}

/// How much one read may give back. At least one entry is given where one is there, however large.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    pub events_max: usize,
    pub bytes_max: usize,
}

/// How the journal is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Health {
    /// Why new pushes cannot be accepted, where that is so; being full counts.
    pub trouble: Option<String>,
    /// Bytes in use, dead letters included.
    pub bytes: u64,
    pub size_max: u64,
    /// Entries that are still held.
    pub entries: u64,
}

/// A sink's place in a shard, as the journal knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Entries not settled yet.
    pub pending: u64,
    /// When the oldest of them was received.
    pub oldest_received_at: Option<Timestamp>,
}

/// Where push ids are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dedup {
    /// The backend's name in the config.
    pub backend: &'static str,
    /// They are known less widely than configured at present.
    pub degraded: bool,
}

/// A sink's pipeline on one shard, in a journal that many processes share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    pub shard: u16,
    /// The process that holds the lease; nobody where absent.
    pub owner: Option<String>,
    /// Whether that is this process.
    pub is_ours: bool,
    /// Of this shard alone.
    pub backlog: Backlog,
}

/// What the storage promises, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Promises {
    /// What a push must have before it is acknowledged, in the config's words.
    pub durability: &'static str,
    /// What each server does.
    pub servers: Vec<String>,
    /// What falls short of the durability, each with the setting to change.
    pub shortfalls: Vec<String>,
}

/// The contract. All futures may be dropped; an `accept` that was begun may still take effect then.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// The backend's name in the config.
    fn backend(&self) -> &'static str;

    /// How many shards there are; fixed when the journal was made.
    fn shards(&self) -> u16;

    /// What tells this journal from others, for sinks that keep positions at their destination.
    fn origin(&self) -> Origin {
        Origin::default()
    }

    /// De-duplicates and appends in one act; answers once that is durable. MUST answer `Duplicate` for a known id even when full.
    /// A resend of a push that is just being accepted joins its outcome. Calls made together share one sync, without lingering.
    async fn accept(&self, push: Push) -> Result<Accepted, AcceptError>;

    /// As [`Journal::accept`], for a push that follows from a delivery. Its event is settled only afterwards, so a full journal that
    /// refused it might never get room again: an implementation that can be full SHOULD take it past its limit. An entry has at most
    /// one such push for each sink, so that is a bound too.
    async fn accept_derived(&self, push: Push) -> Result<Accepted, AcceptError> {
        self.accept(push).await
    }

    /// Makes `sink` known: from now on entries are kept for it. Does nothing where it is known. Durable when it returns.
    async fn register_sink(&self, sink: &SinkName, start: Start) -> Result<(), Error>;

    /// Gives up a sink's place and its dead letters. Entries that only it still needed can be trimmed.
    async fn forget_sink(&self, sink: &SinkName) -> Result<(), Error>;

    /// The registered sinks, by name.
    async fn sinks(&self) -> Result<Vec<SinkName>, Error>;

    /// Remembers whether an operator paused the sink. Durable when it returns; the journal itself pauses nothing.
    async fn set_paused(&self, sink: &SinkName, paused: bool) -> Result<(), Error>;

    /// The registered sinks that an operator paused, by name.
    async fn paused_sinks(&self) -> Result<Vec<SinkName>, Error>;

    /// Takes over the sink's pipeline on `shard`; `None` while another process holds it. Every earlier fence is void afterwards.
    async fn lease(&self, sink: &SinkName, shard: u16) -> Result<Option<Lease>, Error>;

    /// Gives a lease back, so that another process can take it at once.
    async fn release(&self, fence: &Fence) -> Result<(), Error>;

    /// Returns once the lease of `fence` is asked back, or was lost. A journal that one process owns never asks.
    async fn recalled(&self, fence: &Fence) -> Recall {
        let _owned = fence;
        std::future::pending().await
    }

    /// The durable entries of `shard` behind `after`, by rising offset.
    async fn read(&self, shard: u16, after: Offset, limits: ReadLimits) -> Result<Page, Error>;

    /// Returns once something durable stands behind `after` in `shard`, or after `patience`.
    async fn wait_past(&self, shard: u16, after: Offset, patience: Duration);

    /// Replaces the checkpoint (I3 is the caller's part, I4 the journal's). Durable when it returns. `checkpoint.low` MUST NOT be
    /// below the one before.
    async fn commit(&self, fence: &Fence, checkpoint: &Checkpoint) -> Result<(), Error>;

    /// Keeps dead letters and replaces the checkpoint, which settles them, in one act: after a crash either both have happened or
    /// [`Journal::lease`] gives a checkpoint that says so. A letter with a known id replaces the earlier one. Where more than
    /// `limit` letters of the sink would be kept it changes nothing and answers [`Error::DeadLettersFull`].
    async fn dead_letter(
        &self,
        fence: &Fence,
        letters: Vec<DeadLetter>,
        limit: u64,
        checkpoint: &Checkpoint,
    ) -> Result<(), Error>;

    /// Keeps a dead letter of the ingress, once per push id and body; past `limit` the oldest makes room. Durable when it returns.
    async fn keep_refused(&self, letter: DeadLetter, limit: u64) -> Result<(), Error>;

    /// Dead letters that match, by rising id per sink, without payloads; at most `limit`, behind `after`.
    async fn dead_letters(
        &self,
        selection: &Selection,
        after: Option<&DeadLetterId>,
        limit: usize,
    ) -> Result<DeadLetterPage, Error>;

    /// One dead letter, whole.
    async fn dead_letter_of(&self, id: &DeadLetterId) -> Result<Option<DeadLetter>, Error>;

    /// Replaces dead letters that are kept; one that is not kept any more stays away. Says how many were replaced. Durable when it
    /// returns.
    async fn update_dead_letters(&self, letters: Vec<DeadLetter>) -> Result<u64, Error>;

    /// Removes dead letters for good; says how many there were. Durable when it returns.
    async fn purge_dead_letters(&self, ids: &[DeadLetterId]) -> Result<u64, Error>;

    /// How many dead letters are kept for a sink, or for `ingress`.
    fn dead_letters_len(&self, sink: &SinkName) -> u64;

    /// How much a sink has before it, over all shards. `None` for an unknown sink.
    async fn backlog(&self, sink: &SinkName) -> Option<Backlog>;

    /// Who has a sink's pipelines, by rising shard; empty where one process has them all.
    async fn shares(&self, sink: &SinkName) -> Result<Vec<Share>, Error> {
        let _one_owner = sink;
        Ok(Vec::new())
    }

    /// What the storage promises, asked of it now; `None` where it is a disk of this machine, or does not answer.
    async fn promises(&self) -> Option<Promises> {
        None
    }

    /// Where push ids are known, from memory.
    fn dedup(&self) -> Dedup {
        Dedup { backend: "journal", degraded: false }
    }

    /// How the journal is, from memory: cheap enough for every probe.
    fn health(&self) -> Health;

    /// Finishes what was begun, syncs, and lets go of the storage. Later calls fail.
    async fn close(&self);
}

/// The shard of a push: by its session, else by its id.
pub fn shard_of(session: Option<&SessionId>, id: &PushId, shards: u16) -> u16 {
    let key = session.map_or(id.as_str(), SessionId::as_str);
    let hash = crc32c::crc32c(key.as_bytes());
    u16::try_from(hash % u32::from(shards.max(1))).expect("below a u16")
}
