//! Opening the journal that the config asks for.

use std::sync::Arc;

use sink_api::settings::{Secret, SecretError};

use super::StartError;
use crate::config::Config;
use crate::config::model::{self, DedupBackend, JournalBackend};
use crate::journal::Journal;
use crate::journal::disk::{self, DiskJournal};
use crate::journal::redis::connect::Servers;
use crate::journal::redis::{self, Place, RedisJournal};
use crate::journal::shared_dedup::{self, SharedDedup};
use crate::metrics::Metrics;

/// The journal, and what it needs run beside it.
pub(super) async fn open(
    config: &Config,
    metrics: &Metrics,
) -> Result<(Arc<dyn Journal>, Vec<redis::Task>), StartError> {
    match (config.journal.backend, config.dedup.backend) {
        (JournalBackend::Disk, DedupBackend::Journal) => Ok((open_disk(config, metrics).await?, Vec::new())),
        (JournalBackend::Disk, DedupBackend::Redis) => {
            // Read first: a secret that is missing is said before anything is opened.
            let options = dedup_options(config)?;
            let journal = open_disk(config, metrics).await?;
            let (journal, watch) = SharedDedup::connect(journal, options, metrics.dedup_degraded.clone()).await;
            Ok((Arc::new(journal), vec![watch]))
        }
        (JournalBackend::Redis, _) => {
            let options = redis_options(config).map_err(StartError::RedisSecret)?;
            let (journal, tasks) = RedisJournal::open(options, metrics.journal.clone()).await?;
            Ok((journal, tasks))
        }
    }
}

async fn open_disk(config: &Config, metrics: &Metrics) -> Result<Arc<dyn Journal>, StartError> {
    let (options, metrics) = (disk_options(config), metrics.journal.clone());
    match tokio::task::spawn_blocking(|| DiskJournal::open(options, metrics)).await {
        Ok(opened) => Ok(opened?),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

fn dedup_options(config: &Config) -> Result<shared_dedup::Options, StartError> {
    let redis = &config.dedup.redis;
    let place = redis_place(redis).map_err(StartError::DedupSecret)?;
    Ok(shared_dedup::Options {
        servers: Servers::new(place).map_err(redis::OpenError::from)?,
        prefix: redis.prefix.clone(),
        window: config.dedup.window.0,
    })
}

fn disk_options(config: &Config) -> disk::Options {
    disk::Options {
        dir: config.journal.disk.dir.clone(),
        segment_size: config.journal.disk.segment_size.0,
        size_max: config.journal.size_max.0,
        reserve: config.journal.disk.reserve.0,
        dedup_window: config.dedup.window.0,
    }
}

/// What the config says of the journal in Redis. Resolves secrets.
///
/// # Errors
/// A secret's reference leads nowhere.
pub fn redis_options(config: &Config) -> Result<redis::Options, SecretError> {
    let redis = &config.journal.redis;
    Ok(redis::Options {
        place: redis_place(redis)?,
        prefix: redis.prefix.clone(),
        shards: redis.shards,
        durability: redis.durability,
        replicas: redis.replicas,
        replica_timeout: redis.replica_timeout.0,
        allow_weaker: redis.allow_weaker,
        size_max: config.journal.size_max.0,
        dedup_window: config.dedup.window.0,
    })
}

/// Where the config says that Redis is. Resolves secrets.
///
/// # Errors
/// A secret's reference leads nowhere.
pub fn redis_place(redis: &model::Redis) -> Result<Place, SecretError> {
    let mut urls = redis.url.iter().chain(&redis.urls).map(Secret::resolve).collect::<Result<Vec<_>, _>>()?;
    if urls.is_empty() {
        urls.push(model::Redis::URL.to_owned().into());
    }
    Ok(Place {
        mode: redis.mode,
        urls,
        master: redis.master.clone().unwrap_or_default(),
        username: redis.username.clone(),
        password: redis.password.as_ref().map(Secret::resolve).transpose()?,
        tls: redis.tls.clone().unwrap_or_default(),
        connect_timeout: redis.connect_timeout.0,
        response_timeout: redis.response_timeout.0,
    })
}
