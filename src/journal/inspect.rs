//! A journal looked at from outside, wherever it lies: read-only, beside running gateways as well as without any.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use super::{Checkpoint, DeadLetter, Entry, disk, redis};
use crate::names::{PushId, SessionId, SinkName, SourceName};

/// Where the journal lies that is looked at.
pub enum Inspected {
    /// In this directory.
    Disk(PathBuf),
    Redis(redis::inspect::Inspector),
}

#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error(transparent)]
    Disk(#[from] disk::inspect::InspectError),
    #[error(transparent)]
    Redis(#[from] redis::inspect::InspectError),
}

/// One entry, without its body.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DumpLine {
    /// Absent where there is one only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<u16>,
    pub offset: u64,
    pub push_id: PushId,
    pub source: SourceName,
    pub action: String,
    pub session_id: Option<SessionId>,
    pub received_at: Timestamp,
    pub size_bytes: u64,
}

impl Inspected {
    /// Gives every entry that is held to `take`, by shard and offset.
    ///
    /// # Errors
    /// See [`InspectError`].
    pub async fn dump(&self, mut take: impl FnMut(DumpLine)) -> Result<(), InspectError> {
        match self {
            Self::Disk(dir) => disk::inspect::dump(dir, take)?,
            Self::Redis(inspector) => {
                inspector
                    .entries(|shard, Entry { offset, push }| {
                        let size_bytes = push.body.len() as u64;
                        take(DumpLine {
                            shard: Some(shard),
                            offset: offset.0,
                            push_id: push.id,
                            source: push.source,
                            action: push.action,
                            session_id: push.session,
                            received_at: push.received_at,
                            size_bytes,
                        });
                    })
                    .await?;
            }
        }
        Ok(())
    }

    /// Gives every entry that is held to `take` with its shard, its body as it is.
    ///
    /// # Errors
    /// See [`InspectError`].
    pub async fn entries(&self, mut take: impl FnMut(u16, Entry)) -> Result<(), InspectError> {
        match self {
            Self::Disk(dir) => disk::inspect::entries(dir, |entry| take(0, entry))?,
            Self::Redis(inspector) => inspector.entries(take).await?,
        }
        Ok(())
    }

    /// How far `sink` has settled, by shard; nothing settled where the journal does not know it.
    ///
    /// # Errors
    /// See [`InspectError`].
    pub async fn checkpoints(&self, sink: &SinkName) -> Result<Vec<Checkpoint>, InspectError> {
        Ok(match self {
            Self::Disk(dir) => vec![disk::inspect::checkpoint(dir, sink)?.unwrap_or_default()],
            Self::Redis(inspector) => inspector.checkpoints(sink).await?,
        })
    }

    /// The dead letters that are kept for `sink`, by rising number.
    ///
    /// # Errors
    /// See [`InspectError`].
    pub async fn dead_letters(&self, sink: &SinkName) -> Result<Vec<DeadLetter>, InspectError> {
        Ok(match self {
            Self::Disk(dir) => disk::inspect::dead_letters(dir, sink)?,
            Self::Redis(inspector) => inspector.dead_letters(sink).await?,
        })
    }
}
