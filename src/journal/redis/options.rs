//! What the journal in Redis is opened with, and why it would not open.

use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sink_api::settings::TlsFiles;

use super::connect::ConnectError;
use super::keys::FORMAT;

/// How Redis is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Standalone,
    Cluster,
    Sentinel,
}

/// What a push must have before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// It is on the master's disk (`appendfsync always`). Survives any end of the master, but not a failover to a replica that lags.
    #[default]
    Fsync,
    /// `replicas` replicas have it in memory (`WAIT`). Survives the loss of either side, not of both within a second.
    Replicated,
    /// It is on the disks of the master and of `replicas` replicas (`WAITAOF`). Survives both.
    Strict,
    /// It is in the master's memory. Survives nothing for sure.
    Relaxed,
}

/// Where the servers are and how one gets in.
#[derive(Debug, Clone)]
pub struct Place {
    pub mode: Mode,
    /// The server, some nodes of the cluster, or the sentinels; at least one.
    pub urls: Vec<SecretString>,
    /// How the sentinels call the master.
    pub master: String,
    /// Of the servers that hold data, where the URLs do not say it.
    pub username: Option<String>,
    pub password: Option<SecretString>,
    /// Read when the servers are first connected to.
    pub tls: TlsFiles,
    /// Time for a connection with TLS and login.
    pub connect_timeout: Duration,
    /// Time for one reply.
    pub response_timeout: Duration,
}

impl Place {
    /// Without login or files, waiting a second.
    pub fn new(mode: Mode, urls: Vec<SecretString>) -> Self {
        Self {
            mode,
            urls,
            master: String::new(),
            username: None,
            password: None,
            tls: TlsFiles::default(),
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(1),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Options {
    pub place: Place,
    /// What every key begins with.
    pub prefix: String,
    /// Fixed once the journal was made.
    pub shards: u16,
    pub durability: Durability,
    /// How many replicas must confirm, with [`Durability::Replicated`] and [`Durability::Strict`].
    pub replicas: u32,
    /// Time for the replicas to confirm.
    pub replica_timeout: Duration,
    /// Open although the servers promise less than `durability` needs.
    pub allow_weaker: bool,
    /// Bound on the bytes of entries and dead letters, over all shards.
    pub size_max: u64,
    pub dedup_window: Duration,
}

/// The journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("Redis refused: {0}")]
    Refused(String),
    #[error(
        "the journal in Redis was made with {found} shards, the config says {wanted}; set journal.redis.shards = {found}"
    )]
    Shards { found: u16, wanted: u16 },
    #[error(
        "the journal in Redis was made by a later version (format {found}, this one knows {FORMAT}); run that version"
    )]
    NewerVersion { found: u64 },
    /// What is promised is less than what was asked for: each with the setting to change.
    #[error(
        "Redis does not promise what journal.redis.durability asks for (allow_weaker = true starts all the same):\n  {}",
        .0.join("\n  ")
    )]
    Weaker(Vec<String>),
}
