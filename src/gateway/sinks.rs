//! The sinks that run: each with its pipelines, which are begun, ended and begun anew as the config changes.
//!
//! A sink that changes is ended before it begins anew, and what it had in hand is settled or given back first: so nothing is
//! delivered twice, unless the destination does not answer within the deadline. The place in the journal stays throughout.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::FutureExt as _;
use futures::future::{join, join_all};
use sink_api::{Context, Sink};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::origin::{Fingerprint, Reading};
use super::{Part, StartError};
use crate::admin::SinkView;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::names::SinkName;
use crate::pipeline::{self, Pipeline};
use crate::replay::Replays;
use crate::trace::Tracer;

/// What giving back connections and files may take.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// Every sink that runs.
pub(super) struct Sinks {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) metrics: Metrics,
    pub(super) replays: Arc<Replays>,
    pub(super) tracer: Tracer,
    pub(super) running: BTreeMap<SinkName, Running>,
    pub(super) views: Arc<ArcSwap<Vec<SinkView>>>,
    /// Told the name of a sink whose pipeline ended without being stopped.
    pub(super) failed: mpsc::Sender<SinkName>,
}

pub(super) struct Running {
    fingerprint: Fingerprint,
    sink: Arc<dyn Sink>,
    status: Arc<pipeline::Status>,
    pipelines: Part,
}

/// Sinks that are made and registered, and not begun yet.
pub(super) struct Prepared {
    begin: Vec<Begin>,
    removed: Vec<SinkName>,
}

struct Begin {
    name: SinkName,
    fingerprint: Fingerprint,
    sink: Arc<dyn Sink>,
    status: Arc<pipeline::Status>,
    /// One per shard, in their order.
    pipelines: Vec<Pipeline>,
}

/// The sinks that a new config concerns.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) added: Vec<SinkName>,
    pub(super) changed: Vec<SinkName>,
    pub(super) removed: Vec<SinkName>,
}

impl Sinks {
    /// Makes what is new or has changed, and registers what is new. Nothing that runs is touched, so a failure changes nothing;
    /// a sink that was registered before it keeps its place.
    pub(super) async fn prepare(&self, reading: &mut Reading) -> Result<Prepared, StartError> {
        let paused = self.journal.paused_sinks().await.map_err(StartError::Paused)?;
        let made = std::mem::take(&mut reading.loaded.settings);
        let removed = self.running.keys().filter(|name| !made.contains_key(*name)).cloned().collect();
        let mut begin = Vec::new();
        for (name, made) in made {
            let fingerprint = reading.fingerprint(&name);
            let running = self.running.get(&name);
            if running.is_some_and(|running| running.fingerprint == fingerprint) {
                continue;
            }
            let context = Context { name: name.to_string(), format: fingerprint.settings.format };
            let sink = made.build(context).map_err(|source| StartError::Sink { sink: name.clone(), source })?;
            let status = running.map(|running| Arc::clone(&running.status)).unwrap_or_default();
            if paused.contains(&name) {
                status.pause();
            }
            let mut metrics = self.metrics.sink(&name);
            metrics.recordings = sink.archive().map(|_| self.metrics.recordings(&name));
            let pipelines = (0..self.journal.shards()).map(|shard| {
                Pipeline::new(
                    name.clone(),
                    &fingerprint.settings,
                    Arc::clone(&sink),
                    Arc::clone(&self.journal),
                    shard,
                    metrics.clone(),
                    self.metrics.normalise_warnings.clone(),
                    Arc::clone(&status),
                )
            });
            let pipelines = pipelines
                .collect::<Result<_, _>>()
                .map_err(|source| StartError::Pipeline { sink: name.clone(), source })?;
            begin.push(Begin { name, fingerprint, sink, status, pipelines });
        }
        for Begin { name, fingerprint, .. } in &begin {
            let registered = self.journal.register_sink(name, fingerprint.settings.start).await;
            registered.map_err(|source| StartError::Register { sink: name.clone(), source })?;
        }
        Ok(Prepared { begin, removed })
    }

    /// Ends what is removed or has changed, by `deadline` at the latest, and begins what is new or has changed, each as soon as
    /// its earlier pipelines have ended. The other sinks go on.
    pub(super) async fn switch(&mut self, prepared: Prepared, deadline: Instant) -> Changes {
        let mut changes = Changes { removed: prepared.removed, ..Changes::default() };
        let leaving: Vec<Running> = changes.removed.iter().filter_map(|name| self.running.remove(name)).collect();
        let begin: Vec<_> = prepared
            .begin
            .into_iter()
            .map(|begin| {
                let earlier = self.running.remove(&begin.name);
                let list = if earlier.is_some() { &mut changes.changed } else { &mut changes.added };
                list.push(begin.name.clone());
                (begin, earlier)
            })
            .collect();
        self.show(begin.iter().map(|(begin, _)| begin));

        let this = &*self;
        let ended = join_all(leaving.into_iter().map(|running| running.end(deadline)));
        let begun = join_all(begin.into_iter().map(|(begin, earlier)| async move {
            if let Some(earlier) = earlier {
                earlier.end(deadline).await;
            }
            (begin.name.clone(), this.begin(begin))
        }));
        let (_, begun) = join(ended, begun).await;
        self.running.extend(begun);
        changes.removed.iter().for_each(|name| self.metrics.remove_sink(name));
        changes
    }

    /// Ends all of them.
    pub(super) async fn end(&mut self, deadline: Instant) {
        let running = std::mem::take(&mut self.running);
        join_all(running.into_values().map(|running| running.end(deadline))).await;
    }

    fn begin(&self, begin: Begin) -> Running {
        let Begin { name, fingerprint, sink, status, pipelines: made } = begin;
        let mut pipelines = Part::new();
        for (shard, pipeline) in (0..).zip(made) {
            let pipeline = pipeline.replaying(self.replays.open(&name, shard)).traced(self.tracer.clone());
            let (stop, force) = (pipelines.stop.clone(), pipelines.force.clone());
            let (failed, name) = (self.failed.clone(), name.clone());
            let run = std::panic::AssertUnwindSafe(pipeline.run(stop.clone(), force.clone())).catch_unwind();
            pipelines.tasks.spawn(async move {
                let ended = run.await;
                // One report is enough to end the process; a full queue has had it.
                if (ended.is_err() || !(stop.is_cancelled() || force.is_cancelled())) && failed.try_send(name).is_err()
                {
                    tracing::debug!("a failed pipeline was reported before");
                }
            });
        }
        Running { fingerprint, sink, status, pipelines }
    }

    /// What the admin listener sees from now on: what stays, and what begins.
    fn show<'a>(&self, begin: impl Iterator<Item = &'a Begin>) {
        let view = |name: &SinkName, fingerprint: &Fingerprint, status: &Arc<pipeline::Status>| SinkView {
            name: name.clone(),
            kind: fingerprint.settings.kind.clone(),
            status: Arc::clone(status),
        };
        let staying = self.running.iter().map(|(name, running)| view(name, &running.fingerprint, &running.status));
        let begun = begin.map(|begin| view(&begin.name, &begin.fingerprint, &begin.status));
        self.views.store(Arc::new(staying.chain(begun).collect()));
    }
}

impl Running {
    async fn end(mut self, deadline: Instant) {
        self.pipelines.end(deadline).await;
        if tokio::time::timeout(CLOSE_PATIENCE, self.sink.close()).await.is_err() {
            tracing::debug!("a sink was not closed in time");
        }
    }
}
