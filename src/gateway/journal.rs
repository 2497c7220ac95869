//! Opening the journal that the config asks for.

use std::sync::Arc;

use sink_api::settings::{Secret, SecretError};

use super::StartError;
use crate::config::Config;
use crate::config::model::{self, JournalBackend};
use crate::journal::Journal;
use crate::journal::disk::{self, DiskJournal};
use crate::journal::redis::{self, Place, RedisJournal, TlsFiles};
use crate::metrics::Metrics;

/// The journal, and what it needs run beside it.
pub(super) async fn open(
    config: &Config,
    metrics: &Metrics,
) -> Result<(Arc<dyn Journal>, Vec<redis::Task>), StartError> {
    let metrics = metrics.journal.clone();
    match config.journal.backend {
        JournalBackend::Disk => {
            let options = disk_options(config);
            match tokio::task::spawn_blocking(|| DiskJournal::open(options, metrics)).await {
                Ok(opened) => Ok((opened?, Vec::new())),
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            }
        }
        JournalBackend::Redis => {
            let options = redis_options(config).map_err(StartError::RedisSecret)?;
            let (journal, tasks) = RedisJournal::open(options, metrics).await?;
            Ok((journal, tasks))
        }
    }
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
    let tls = redis.tls.clone();
    Ok(Place {
        mode: redis.mode,
        urls,
        master: redis.master.clone().unwrap_or_default(),
        username: redis.username.clone(),
        password: redis.password.as_ref().map(Secret::resolve).transpose()?,
        tls: tls
            .map(|tls| TlsFiles { ca_file: tls.ca_file, cert_file: tls.cert_file, key_file: tls.key_file })
            .unwrap_or_default(),
        connect_timeout: redis.connect_timeout.0,
        response_timeout: redis.response_timeout.0,
    })
}
