//! `GET /api/v1/status`: the whole gateway in one JSON object. Stable; fields are only ever added.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::{Admin, SinkView};
use crate::journal::{Backlog, Dedup, Journal, Share};
use crate::metrics::{PushOutcome, SourceMetrics};
use crate::names::{SinkName, SourceName};

#[derive(Debug, Serialize)]
pub struct Status {
    pub version: &'static str,
    pub uptime_seconds: u64,
    pub ready: bool,
    pub journal: JournalStatus,
    pub dedup: DedupStatus,
    pub sources: BTreeMap<SourceName, SourceStatus>,
    pub sinks: BTreeMap<SinkName, SinkStatus>,
}

#[derive(Debug, Serialize)]
pub struct JournalStatus {
    pub backend: &'static str,
    pub bytes: u64,
    pub entries: u64,
    pub size_max: u64,
    /// Why it does not accept, where it does not.
    pub trouble: Option<String>,
    /// What the servers promise that hold it; left out for a disk, and while they do not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promises: Option<PromisesStatus>,
}

#[derive(Debug, Serialize)]
pub struct PromisesStatus {
    /// What a push has before it is acknowledged: `fsync`, `replicated`, `strict` or `relaxed`.
    pub durability: &'static str,
    pub servers: Vec<String>,
    /// What falls short of that, each with the setting to change.
    pub shortfalls: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct DedupStatus {
    pub backend: &'static str,
    pub degraded: bool,
}

/// Pushes since the process started.
#[derive(Debug, Serialize)]
pub struct SourceStatus {
    pub accepted: u64,
    pub duplicates: u64,
    pub refused: u64,
}

#[derive(Debug, Serialize)]
pub struct SinkStatus {
    #[serde(rename = "type")]
    pub kind: String,
    /// `running`, `paused`, `broken` or `draining`.
    pub state: &'static str,
    pub pending: u64,
    pub oldest_pending_seconds: f64,
    pub delivered: u64,
    pub retries: u64,
    pub dead_letters: u64,
    /// Who has its pipelines, where many processes share the journal; left out where one has them all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shards: Vec<ShardStatus>,
    pub last_error: Option<LastError>,
}

/// A sink's pipeline on one shard of a journal that many processes share.
#[derive(Debug, Serialize)]
pub struct ShardStatus {
    pub shard: u16,
    /// The process that delivers; `null` while nobody does.
    pub owner: Option<String>,
    /// Whether it is the one that answers.
    pub here: bool,
    pub pending: u64,
    pub oldest_pending_seconds: f64,
}

#[derive(Debug, Serialize)]
pub struct LastError {
    pub code: String,
    pub reason: String,
    pub at: Timestamp,
}

impl Status {
    pub(super) async fn collect(admin: &Admin) -> Self {
        let health = admin.journal.health();
        let mut sinks = BTreeMap::new();
        for sink in admin.sinks.load_full().iter() {
            sinks.insert(sink.name.clone(), SinkStatus::collect(sink, &*admin.journal).await);
        }
        Self {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: admin.started_at.elapsed().as_secs(),
            ready: admin.not_ready_because().is_empty(),
            journal: JournalStatus {
                backend: admin.journal.backend(),
                bytes: health.bytes,
                entries: health.entries,
                size_max: health.size_max,
                trouble: health.trouble,
                promises: admin.journal.promises().await.map(|promises| PromisesStatus {
                    durability: promises.durability,
                    servers: promises.servers,
                    shortfalls: promises.shortfalls,
                }),
            },
            dedup: DedupStatus::of(admin.journal.dedup()),
            sources: admin
                .sources
                .load()
                .iter()
                .map(|(name, metrics)| (name.clone(), SourceStatus::of(metrics)))
                .collect(),
            sinks,
        }
    }
}

impl DedupStatus {
    fn of(dedup: Dedup) -> Self {
        Self { backend: dedup.backend, degraded: dedup.degraded }
    }
}

impl SourceStatus {
    fn of(metrics: &SourceMetrics) -> Self {
        let total = |outcomes: &[PushOutcome]| outcomes.iter().map(|outcome| metrics.total(*outcome)).sum();
        Self {
            accepted: total(&[PushOutcome::Accepted]),
            duplicates: total(&[PushOutcome::Duplicate, PushOutcome::Conflict]),
            refused: total(&[PushOutcome::Refused, PushOutcome::Unavailable]),
        }
    }
}

impl ShardStatus {
    fn of(share: Share) -> Self {
        Self {
            shard: share.shard,
            owner: share.owner,
            here: share.is_ours,
            pending: share.backlog.pending,
            oldest_pending_seconds: age_of(share.backlog),
        }
    }
}

/// Of the oldest that is pending; 0 where nothing is.
fn age_of(backlog: Backlog) -> f64 {
    backlog.oldest_received_at.map_or(0.0, |at| Timestamp::now().duration_since(at).as_secs_f64().max(0.0))
}

impl SinkStatus {
    async fn collect(sink: &SinkView, journal: &dyn Journal) -> Self {
        let backlog = journal.backlog(&sink.name).await.unwrap_or_default();
        let status = &sink.status;
        Self {
            kind: sink.kind.clone(),
            state: status.state().as_str(),
            pending: backlog.pending,
            oldest_pending_seconds: age_of(backlog),
            delivered: status.delivered(),
            retries: status.retries(),
            dead_letters: journal.dead_letters_len(&sink.name),
            shards: journal.shares(&sink.name).await.unwrap_or_default().into_iter().map(ShardStatus::of).collect(),
            last_error: status.last_error().map(|error| LastError {
                code: error.code,
                reason: error.reason,
                at: error.at,
            }),
        }
    }
}
