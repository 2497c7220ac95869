//! The composition root: starts every part in the order of who needs whom, and stops them in the mirror order.
//!
//! Only this folder spawns long-lived tasks; [`reload`] takes a new config over while they run:
//!
//! | task | ends when | on error | on drain |
//! |---|---|---|---|
//! | `ingress` | its listener is stopped and the last connection is gone | cannot fail once bound | stops accepting, finishes requests |
//! | `ingress replays` | it is stopped | mends itself | leaves what is not accepted a dead letter |
//! | `admin` | everything else has ended | cannot fail once bound | serves until the very end |
//! | `control` | it is stopped | a config with a fault is refused | finishes the reload in hand |
//! | `journal …` (Redis only: lanes, watch, upkeep, poke) | the journal is closed | mends itself | writes what was begun |
//! | `push ids` (`dedup.backend = "redis"` only) | the journal is closed | mends itself | goes on |
//! | `pipeline <sink>/<shard>` | it is stopped, or a reload removes or changes its sink | mends itself; a panic ends the process | finishes the batch in hand |
//!
//! A drain: readiness off → `drain.announce` passes, still serving, each reply ends its connection → ingress stops accepting and finishes requests → pipelines
//! finish what is in hand → journal closes. `drain.deadline` bounds all that follows the announcement; what is not delivered by
//! then is delivered after the next start.

mod control;
mod journal;
mod origin;
mod reload;
mod sinks;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::control::{Control, ForgetError, PauseError, ReloadError, Reloaded};
pub use self::journal::{redis_options, redis_place};
pub use self::origin::{ConfigOrigin, Reading};

use self::control::{COMMANDS_MAX, InEffect};
use self::reload::{Reloader, token_of, views_of};
use self::sinks::Sinks;
use crate::admin::auth::Guard;
use crate::admin::{self, Admin};
use crate::config::Config;
use crate::ingress::{Ingress, Replayer};
use crate::journal::Journal;
use crate::journal::{disk, redis};
use crate::logging::FilterHandle;
use crate::metrics::Metrics;
use crate::names::{INGRESS, SinkName};
use crate::pipeline;
use crate::replay::Replays;
use crate::serve::Listener;
use crate::trace::{self, Export};

/// The gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Journal(#[from] disk::OpenError),
    #[error(transparent)]
    RedisJournal(#[from] redis::OpenError),
    #[error("journal.redis: {0}")]
    RedisSecret(#[source] sink_api::settings::SecretError),
    #[error("dedup.redis: {0}")]
    DedupSecret(#[source] sink_api::settings::SecretError),
    #[error("sink {sink} cannot be registered in the journal: {source}")]
    Register { sink: SinkName, source: crate::journal::Error },
    #[error("which sinks are paused cannot be read: {0}")]
    Paused(#[source] crate::journal::Error),
    #[error("sink {sink} cannot be made: {source}")]
    Sink { sink: SinkName, source: sink_api::BuildError },
    #[error("sink {sink}: {source}")]
    Pipeline { sink: SinkName, source: pipeline::SetupError },
    #[error("admin.token: {0}")]
    Token(#[from] sink_api::settings::SecretError),
    #[error("SIGHUP cannot be handled: {0}")]
    Signal(#[source] std::io::Error),
    #[error(transparent)]
    Tracing(#[from] trace::SetupError),
    #[error("ingress: {0}")]
    Ingress(#[from] crate::ingress::BindError),
    #[error("admin listener: {0}")]
    Admin(#[source] crate::serve::BindError),
}

/// Whether a drain has begun; shared with the admin listener.
#[derive(Debug, Default)]
pub struct Readiness {
    draining: CancellationToken,
}

impl Readiness {
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    fn drain(&self) {
        self.draining.cancel();
    }
}

/// A gateway that accepts pushes and delivers events.
pub struct Gateway {
    in_effect: Arc<ArcSwap<InEffect>>,
    readiness: Arc<Readiness>,
    journal: Arc<dyn Journal>,
    /// What the journal needs run beside it; ends when the journal is closed.
    upkeep: Part,
    ingress: Part,
    sinks: Arc<Mutex<Sinks>>,
    failed_sinks: mpsc::Receiver<SinkName>,
    control: Part,
    admin: Part,
    spans: Export,
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
    pub async fn start(origin: ConfigOrigin, mut reading: Reading, log: FilterHandle) -> Result<Self, StartError> {
        let started_at = Instant::now();
        // Before anything is opened: from now on the signal reloads, and does not kill.
        let hangup = signal(SignalKind::hangup()).map_err(StartError::Signal)?;
        let config = reading.config().clone();
        let metrics = Metrics::new();
        metrics.journal.size_max.set(i64::try_from(config.journal.size_max.0).unwrap_or(i64::MAX));
        let (journal, futures) = journal::open(&config, &metrics).await?;
        let mut upkeep = Part::new();
        for (_name, future) in futures {
            upkeep.tasks.spawn(future);
        }

        let spans = Export::new(&config.tracing)?;
        let sink_views = Arc::new(ArcSwap::default());
        let replays = Arc::new(Replays::default());
        let (failed, failed_sinks) = mpsc::channel(1);
        let sinks = Sinks {
            journal: Arc::clone(&journal),
            metrics: metrics.clone(),
            replays: Arc::clone(&replays),
            tracer: spans.tracer(),
            running: BTreeMap::new(),
            views: Arc::clone(&sink_views),
            failed,
        };
        let sinks = start_sinks(sinks, &mut reading).await?;
        warn_of_forgotten(&config, &*journal).await;

        let readiness = Arc::new(Readiness::default());
        let ingress_listener = Ingress::bind(&config.ingress, &config.sources, Arc::clone(&journal), &metrics)?;
        let ingress_listener = ingress_listener.traced(spans.tracer()).leave_on(readiness.draining.clone());
        let admin_listener = Listener::bind(config.admin.listen, admin::limits(), None).map_err(StartError::Admin)?;
        let (ingress_addr, admin_addr) = (ingress_listener.local_addr(), admin_listener.local_addr());

        let guard = Arc::new(Guard::new(token_of(&config)?.as_deref(), config.admin.listen.ip()));
        let source_views = Arc::new(ArcSwap::from_pointee(views_of(&config, &metrics)));
        let in_effect = Arc::new(ArcSwap::from_pointee(InEffect { config, effective: reading.effective }));
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        let reloader = Reloader {
            origin,
            files: reading.files,
            in_effect: Arc::clone(&in_effect),
            sinks: Arc::clone(&sinks),
            sources: ingress_listener.sources(),
            source_views: Arc::clone(&source_views),
            guard: Arc::clone(&guard),
            log: log.clone(),
            journal: Arc::clone(&journal),
            metrics: metrics.clone(),
            commands: received,
            hangup,
        };
        let mut control = Part::new();
        control.tasks.spawn(reloader.run(control.stop.clone()));
        let handle = Control {
            commands,
            journal: Arc::clone(&journal),
            sinks: Arc::clone(&sink_views),
            in_effect: Arc::clone(&in_effect),
            log,
        };
        let routes = admin::router(Arc::new(Admin {
            started_at,
            readiness: Arc::clone(&readiness),
            metrics: metrics.clone(),
            journal: Arc::clone(&journal),
            sources: source_views,
            sinks: sink_views,
            replays: Arc::clone(&replays),
            control: handle,
            guard,
        }));
        let mut admin = Part::new();
        admin.tasks.spawn(admin::serve(admin_listener, routes, admin.stop.clone(), admin.force.clone()));
        let ingress = start_ingress(ingress_listener, &journal, &replays);
        let gateway = Self {
            in_effect,
            readiness,
            journal,
            upkeep,
            ingress,
            sinks,
            failed_sinks,
            control,
            admin,
            spans,
            ingress_addr,
            admin_addr,
        };
        gateway.tell_started(started_at);
        Ok(gateway)
    }

    fn tell_started(&self, started_at: Instant) {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            ingress = %self.ingress_addr,
            admin = %self.admin_addr,
            journal = self.journal.backend(),
            started_in_ms = started_at.elapsed().as_millis() as u64,
            "gateway started"
        );
    }

    /// Drains and stops; returns when nothing is left running.
    pub async fn stop(mut self) {
        self.readiness.drain();
        let drain = self.in_effect.load().config.drain.clone();
        tracing::info!(announce = %drain.announce, deadline = %drain.deadline, "drain begun");
        tokio::time::sleep(drain.announce.0).await;

        let deadline = tokio::time::Instant::now() + drain.deadline.0;
        self.ingress.end(deadline).await;
        self.control.stop.cancel();
        if tokio::time::timeout_at(deadline, self.control.all_ended()).await.is_err() {
            // A reload that waits for a sink: its pipelines are dropped with it, and go on after the next start.
            self.control.tasks.shutdown().await;
        }
        self.sinks.lock().await.end(deadline).await;
        self.journal.close().await;
        self.upkeep.end(deadline).await;
        self.spans.end().await;
        self.admin.end(tokio::time::Instant::now()).await;
        tracing::info!("gateway stopped");
    }

    /// Ends when a pipeline or the ingress has ended by itself, which only a bug can cause.
    pub async fn failed(&mut self) {
        let part = tokio::select! {
            Some(_sink) = self.failed_sinks.recv() => ("pipeline", None),
            Some(ended) = self.control.tasks.join_next() => ("control", ended.err()),
            Some(ended) = self.upkeep.tasks.join_next() => ("journal", ended.err()),
            Some(ended) = self.ingress.tasks.join_next() => ("ingress", ended.err()),
            Some(ended) = self.admin.tasks.join_next() => ("admin", ended.err()),
            else => std::future::pending().await,
        };
        let error = part.1.map(|error| error.to_string());
        tracing::error!(part = part.0, error, "a part of the gateway ended by itself");
    }
}

/// Makes, registers and begins every sink of the config.
async fn start_sinks(mut sinks: Sinks, reading: &mut Reading) -> Result<Arc<Mutex<Sinks>>, StartError> {
    let prepared = sinks.prepare(reading).await?;
    sinks.switch(prepared, tokio::time::Instant::now()).await;
    Ok(Arc::new(Mutex::new(sinks)))
}

/// Serves pushes, and gives refused ones to the journal again when an operator asks for it.
fn start_ingress(listener: Ingress, journal: &Arc<dyn Journal>, replays: &Replays) -> Part {
    let mut ingress = Part::new();
    ingress.tasks.spawn(listener.serve(ingress.stop.clone(), ingress.force.clone()));
    let replayer = Replayer::new(Arc::clone(journal), replays.open(&SinkName::from(INGRESS), 0));
    ingress.tasks.spawn(replayer.run(ingress.stop.clone()));
    ingress
}

/// A sink that left the config keeps its place, and with it the entries that it has not settled: say so, since the journal grows.
async fn warn_of_forgotten(config: &Config, journal: &dyn Journal) {
    let Ok(registered) = journal.sinks().await else { return };
    for sink in registered.into_iter().filter(|sink| !config.sinks.contains_key(sink)) {
        let pending = journal.backlog(&sink).await.unwrap_or_default().pending;
        tracing::warn!(%sink, pending, "this sink is no longer in the config but the journal still keeps its entries");
    }
}
