//! The composition root: starts every part in the order of who needs whom, and stops them in the mirror order.
//!
//! Only this file spawns long-lived tasks:
//!
//! | task | ends when | on error | on drain |
//! |---|---|---|---|
//! | `ingress` | its listener is stopped and the last connection is gone | cannot fail once bound | stops accepting, finishes requests |
//! | `admin` | everything else has ended | cannot fail once bound | serves until the very end |
//! | `pipeline <sink>/<shard>` | it is stopped | mends itself; a panic ends the process | finishes the batch in hand |
//!
//! A drain: readiness off → `drain.announce` passes, still serving → ingress stops accepting and finishes requests → pipelines
//! finish what is in hand → journal closes. `drain.deadline` bounds all that follows the announcement; what is not delivered by
//! then is delivered after the next start.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use sink_api::Context;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin, SinkView};
use crate::config::{Config, Loaded};
use crate::ingress::Ingress;
use crate::journal::Journal;
use crate::journal::disk::{self, DiskJournal};
use crate::metrics::Metrics;
use crate::names::SinkName;
use crate::pipeline::{self, Pipeline};
use crate::serve::Listener;

/// The gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Journal(#[from] disk::OpenError),
    #[error("sink {sink} cannot be registered in the journal: {source}")]
    Register { sink: SinkName, source: crate::journal::Error },
    #[error("sink {sink} cannot be made: {source}")]
    Sink { sink: SinkName, source: sink_api::BuildError },
    #[error("ingress: {0}")]
    Ingress(#[from] crate::ingress::BindError),
    #[error("admin listener: {0}")]
    Admin(#[source] crate::serve::BindError),
}

/// Whether a drain has begun; shared with the admin listener.
#[derive(Debug, Default)]
pub struct Readiness {
    draining: AtomicBool,
}

impl Readiness {
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

/// A gateway that accepts pushes and delivers events.
pub struct Gateway {
    config: Config,
    readiness: Arc<Readiness>,
    journal: Arc<dyn Journal>,
    ingress: Part,
    pipelines: Part,
    admin: Part,
    pub ingress_addr: SocketAddr,
    pub admin_addr: SocketAddr,
}

/// Tasks that are stopped together.
struct Part {
    tasks: JoinSet<()>,
    /// Begin nothing new, finish what is in hand.
    stop: CancellationToken,
    /// Abandon what is in hand.
    force: CancellationToken,
}

impl Part {
    fn new() -> Self {
        Self { tasks: JoinSet::new(), stop: CancellationToken::new(), force: CancellationToken::new() }
    }

    /// Stops the tasks; those that have not ended at `deadline` are forced to.
    async fn end(&mut self, deadline: tokio::time::Instant) {
        self.stop.cancel();
        if tokio::time::timeout_at(deadline, self.all_ended()).await.is_err() {
            self.force.cancel();
            self.all_ended().await;
        }
    }

    async fn all_ended(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task ended abnormally");
            }
        }
    }
}

impl Gateway {
    /// Opens the journal, makes the sinks, starts their pipelines, and last of all binds the listeners: who can reach the ingress
    /// reaches a gateway that can accept.
    pub async fn start(loaded: Loaded) -> Result<Self, StartError> {
        let started_at = Instant::now();
        let Loaded { config, settings: made, .. } = loaded;
        let metrics = Metrics::new();
        let journal = open_journal(&config, &metrics).await?;

        let mut pipelines = Part::new();
        let mut views = Vec::new();
        for (name, settings) in &config.sinks {
            let start = settings.start;
            journal
                .register_sink(name, start)
                .await
                .map_err(|source| StartError::Register { sink: name.clone(), source })?;
        }
        for (name, made) in made {
            let settings = &config.sinks[&name];
            let context = Context { name: name.to_string(), format: settings.format };
            let sink = made.build(context).map_err(|source| StartError::Sink { sink: name.clone(), source })?;
            let status = Arc::new(pipeline::Status::default());
            for shard in 0..journal.shards() {
                let pipeline = Pipeline::new(
                    name.clone(),
                    settings,
                    Arc::clone(&sink),
                    Arc::clone(&journal),
                    shard,
                    metrics.sink(&name),
                    metrics.normalise_warnings.clone(),
                    Arc::clone(&status),
                );
                pipelines.tasks.spawn(pipeline.run(pipelines.stop.clone(), pipelines.force.clone()));
            }
            views.push(SinkView { name, kind: settings.kind.clone(), status });
        }
        warn_of_forgotten(&config, &*journal).await;

        let readiness = Arc::new(Readiness::default());
        let ingress_listener = Ingress::bind(&config.ingress, &config.sources, Arc::clone(&journal), &metrics)?;
        let admin_listener = Listener::bind(config.admin.listen, admin::limits(), None).map_err(StartError::Admin)?;
        let (ingress_addr, admin_addr) = (ingress_listener.local_addr(), admin_listener.local_addr());

        let sources = config.sources.keys().map(|name| (name.clone(), metrics.source(name))).collect();
        let routes = admin::router(Arc::new(Admin {
            started_at,
            readiness: Arc::clone(&readiness),
            metrics: metrics.clone(),
            journal: Arc::clone(&journal),
            sources,
            sinks: views,
        }));
        let mut admin = Part::new();
        admin.tasks.spawn(admin::serve(admin_listener, routes, admin.stop.clone(), admin.force.clone()));
        let mut ingress = Part::new();
        ingress.tasks.spawn(ingress_listener.serve(ingress.stop.clone(), ingress.force.clone()));

        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            ingress = %ingress_addr,
            admin = %admin_addr,
            journal = journal.backend(),
            started_in_ms = started_at.elapsed().as_millis() as u64,
            "gateway started"
        );
        Ok(Self { config, readiness, journal, ingress, pipelines, admin, ingress_addr, admin_addr })
    }

    /// Drains and stops; returns when nothing is left running.
    pub async fn stop(mut self) {
        self.readiness.drain();
        tracing::info!(announce = %self.config.drain.announce, deadline = %self.config.drain.deadline, "drain begun");
        tokio::time::sleep(self.config.drain.announce.0).await;

        let deadline = tokio::time::Instant::now() + self.config.drain.deadline.0;
        self.ingress.end(deadline).await;
        self.pipelines.end(deadline).await;
        self.journal.close().await;
        self.admin.end(tokio::time::Instant::now()).await;
        tracing::info!("gateway stopped");
    }

    /// Ends when a pipeline or the ingress has ended by itself, which only a bug can cause.
    pub async fn failed(&mut self) {
        let part = tokio::select! {
            Some(ended) = self.pipelines.tasks.join_next() => ("pipeline", ended.err()),
            Some(ended) = self.ingress.tasks.join_next() => ("ingress", ended.err()),
            Some(ended) = self.admin.tasks.join_next() => ("admin", ended.err()),
            else => std::future::pending().await,
        };
        let error = part.1.map(|error| error.to_string());
        tracing::error!(part = part.0, error, "a part of the gateway ended by itself");
    }
}

async fn open_journal(config: &Config, metrics: &Metrics) -> Result<Arc<dyn Journal>, StartError> {
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

/// A sink that left the config keeps its place, and with it the entries that it has not settled: say so, since the journal grows.
async fn warn_of_forgotten(config: &Config, journal: &dyn Journal) {
    let Ok(registered) = journal.sinks().await else { return };
    for sink in registered.into_iter().filter(|sink| !config.sinks.contains_key(sink)) {
        let pending = journal.backlog(&sink).await.unwrap_or_default().pending;
        tracing::warn!(%sink, pending, "this sink is no longer in the config but the journal still keeps its entries");
    }
}
