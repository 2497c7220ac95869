//! Opens the journal that the config asks for.

use std::sync::Arc;

use super::StartError;
use crate::config::Config;
use crate::config::model::{self, DedupBackend, JournalBackend};
use crate::journal::Journal;
use crate::journal::disk::{self, DiskJournal};
use crate::journal::redis::connect::Servers;
use crate::journal::redis::{self, Place, TlsFiles};
use crate::journal::shared_dedup::{self, SharedDedup};
use crate::metrics::Metrics;

/// The journal, with its push ids shared where the config says so.
pub(super) async fn open(config: &Config, metrics: &Metrics) -> Result<Arc<dyn Journal>, StartError> {
    let journal = match config.journal.backend {
        JournalBackend::Disk => open_disk(config, metrics).await?,
        JournalBackend::Redis => return Err(redis::OpenError::Refused("no journal yet".to_owned()).into()),
    };
    match config.dedup.backend {
        DedupBackend::Journal => Ok(journal),
        DedupBackend::Redis => share_dedup(journal, config, metrics).await,
    }
}

async fn open_disk(config: &Config, metrics: &Metrics) -> Result<Arc<dyn Journal>, StartError> {
    let options = disk::Options {
        dir: config.journal.disk.dir.clone(),
        segment_size: config.journal.disk.segment_size.0,
        size_max: config.journal.size_max.0,
        reserve: config.journal.disk.reserve.0,
        dedup_window: config.dedup.window.0,
    };
    let metrics = metrics.journal.clone();
    match tokio::task::spawn_blocking(|| DiskJournal::open(options, metrics)).await {
        Ok(opened) => Ok(opened?),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

async fn share_dedup(
    journal: Arc<dyn Journal>,
    config: &Config,
    metrics: &Metrics,
) -> Result<Arc<dyn Journal>, StartError> {
    let options = shared_dedup::Options {
        servers: Servers::new(place_of(&config.dedup.redis)?).map_err(redis::OpenError::from)?,
        prefix: config.dedup.redis.prefix.clone(),
        window: config.dedup.window.0,
    };
    Ok(Arc::new(SharedDedup::connect(journal, options, metrics.dedup_degraded.clone()).await))
}

/// Where Redis is, secrets resolved.
fn place_of(redis: &model::Redis) -> Result<Place, StartError> {
    let written = redis.url.iter().chain(&redis.urls);
    let mut urls = written.map(|url| url.resolve()).collect::<Result<Vec<_>, _>>().map_err(StartError::Redis)?;
    if urls.is_empty() {
        urls.push(model::Redis::URL.to_owned().into());
    }
    let tls = redis.tls.clone().map_or_else(TlsFiles::default, |tls| TlsFiles {
        ca_file: tls.ca_file,
        cert_file: tls.cert_file,
        key_file: tls.key_file,
    });
    Ok(Place {
        mode: redis.mode,
        urls,
        master: redis.master.clone().unwrap_or_default(),
        username: redis.username.clone(),
        password: redis.password.as_ref().map(|password| password.resolve()).transpose().map_err(StartError::Redis)?,
        tls,
        connect_timeout: redis.connect_timeout.0,
        response_timeout: redis.response_timeout.0,
    })
}
