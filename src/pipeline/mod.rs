//! One sink's way through one shard of the journal: read, select, order, batch, normalise, mask, deliver, and then settle, try again
//! or keep as a dead letter.
//!
//! It promises that every entry the sink takes meets exactly one fate, delivered or dead letter; that the events of one session
//! reach the sink in journal order, retries included; and that a sink's trouble costs bounded memory and nobody else anything. It
//! delivers at least once: what was confirmed and not saved before a crash is delivered again, under the same event id. It never
//! drops, and never touches another sink's progress.
//!
//! [`run`] is the one loop that waits: it starts what may start ([`launch`]), waits for what comes first, and applies it
//! ([`signals`]; [`landed`]: what came back from the sink; [`save`]: checkpoints and dead letters; [`replays`]: dead letters that are tried again). What it decides by is pure:
//! [`window`] what is in hand,
//! [`sessions`] whose turn it is, [`batch`] when a batch is due, [`verdict`] and [`retry`] what follows from an outcome,
//! [`breaker`] whether the sink is there, [`settle`] when to save, [`select`] what the sink takes. [`mask`] is what it does not
//! get to see of it. [`letters`] makes dead letters, [`status`] tells the admin listener.
//!
//! | while | the pipeline reads | begins batches | and goes on when |
//! |---|---|---|---|
//! | it has no lease | no | no | the journal grants one |
//! | running | until its window is full | yes | |
//! | paused by an operator | until its window is full | no | resumed |
//! | paused by full dead letters | until its window is full | no | there is room for the next letter |
//! | broken | until its window is full | no | a probe is answered and one trial batch comes back |
//! | draining | no | the one being gathered, at once | what is in flight came back and is saved |
//! | its lease is asked back by the journal | no | no | what is in flight came back and is saved, and the journal grants a lease again |
//!
//! Sinks with `stable_batches` or `resumes_positions` get one batch at a time, each a gapless stretch of what they take: a later
//! position says that everything before it is settled. Nothing new begins while an entry of theirs is out, parked or doomed.

mod run;
mod launch;
mod signals;
mod landed;
mod replays;
mod save;
mod window;
mod sessions;
mod batch;
mod select;
mod mask;
mod verdict;
mod retry;
mod breaker;
mod settle;
mod letters;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use prometheus::IntCounterVec;
use sink_api::{Fault, Needs, Sink};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::batch::Courier;
pub use self::mask::{MaskError, mask_of};
use self::retry::Backoff;
use self::run::{End, Run, seconds_since};
pub use self::select::{Choice, Passed, Selector};
pub use self::status::{LastError, State, Status};
use crate::config::model;
use crate::event::{Mask, when};
use crate::journal::{self, Backlog, Journal, Lease};
use crate::metrics::SinkMetrics;
use crate::names::{Offset, SinkName};
use crate::replay::Inbox;
use crate::trace::Tracer;

/// Between two tries of an operation that the journal refused.
const JOURNAL_BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Before asking again for a lease that another process holds, or after losing one: this long, and up to as much again, so that
/// pipelines and processes do not ask in step.
const LEASE_PAUSE: Duration = Duration::from_millis(500);

/// The backlog is that of all shards together: the pipeline of this one measures it, leased or not.
const MEASURING_SHARD: u16 = 0;

/// A sink's settings cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("when {0}")]
    When(#[from] when::Error),
    #[error(transparent)]
    Mask(#[from] MaskError),
}

/// A sink's pipeline on one shard.
pub struct Pipeline {
    name: SinkName,
    shard: u16,
    selector: Arc<Selector>,
    mask: Option<Arc<Mask>>,
    batch: model::BatchLimits,
    concurrency: usize,
    window: model::Window,
    backoff: Backoff,
    attempts_max: u32,
    dead_letters_max: u64,
    sink: Arc<dyn Sink>,
    needs: Needs,
    journal: Arc<dyn Journal>,
    metrics: SinkMetrics,
    warnings: IntCounterVec,
    status: Arc<Status>,
    replays: Inbox,
    tracer: Tracer,
}

impl Pipeline {
    /// Reads the keys of `mask`, opens nothing else. `warnings` is `normalise_warnings_total{action}`; `status` is shared by the
    /// pipelines of all shards.
    ///
    /// # Errors
    /// `when` or `mask` cannot be applied, although the config was checked: a key's file may have gone since.
    #[expect(clippy::too_many_arguments, reason = "called in one place, each of another type")]
    pub fn new(
        name: SinkName,
        settings: &model::Sink,
        sink: Arc<dyn Sink>,
        journal: Arc<dyn Journal>,
        shard: u16,
        metrics: SinkMetrics,
        warnings: IntCounterVec,
        status: Arc<Status>,
    ) -> Result<Self, SetupError> {
        Ok(Self {
            name,
            shard,
            selector: Arc::new(Selector::new(settings)?),
            mask: mask_of(settings)?.map(Arc::new),
            batch: settings.batch,
            concurrency: settings.concurrency.max(1),
            // However large a batch may be, there is room for one.
            window: model::Window {
                events_max: settings.window.events_max.max(settings.batch.events_max),
                bytes_max: settings.window.bytes_max.max(settings.batch.bytes_max),
            },
            backoff: Backoff::new(settings.retry.delay_min.0, settings.retry.delay_max.0),
            attempts_max: settings.retry.attempts_max,
            dead_letters_max: settings.dead_letters_max,
            needs: sink.needs(),
            sink,
            journal,
            metrics,
            warnings,
            status,
            replays: Inbox::default(),
            tracer: Tracer::off(),
        })
    }

    /// Takes replays from `inbox`. Pure.
    pub fn replaying(self, inbox: Inbox) -> Self {
        Self { replays: inbox, ..self }
    }

    /// Begins the spans of deliveries with `tracer`. Pure.
    pub fn traced(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    fn courier(&self) -> Courier {
        Courier {
            name: self.name.clone(),
            sink: Arc::clone(&self.sink),
            shard: self.shard,
            mask: self.mask.clone(),
            warnings: self.warnings.clone(),
            tracer: self.tracer.clone(),
        }
    }

    /// Runs until `stop`: begins nothing new then, waits for what is in flight, saves, gives the lease back and returns. On `force`
    /// it drops what is in flight, which is delivered after the next start, and saves what is settled if that takes no longer than
    /// a moment. Nothing that it started outlives it.
    pub async fn run(self, stop: CancellationToken, force: CancellationToken) {
        let over = || async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = force.cancelled() => {}
            }
        };
        loop {
            let lease = tokio::select! {
                lease = self.lease() => lease,
                () = over() => return,
            };
            let resumed = tokio::select! {
                resumed = self.resume() => resumed,
                () = over() => {
                    self.release(&lease.fence).await;
                    return;
                }
            };
            match Run::new(&self, lease, resumed).until_over(&stop, &force).await {
                End::Stopped => return,
                End::HandedOver => info!(sink = %self.name, shard = self.shard, "lease handed over"),
                End::Lost => warn!(sink = %self.name, shard = self.shard, "lease lost"),
            }
            self.status.left(self.shard);
            self.metrics.breaker_open.set(i64::from(self.status.is_any_broken()));
            tokio::select! {
                () = tokio::time::sleep(lease_pause()) => {}
                () = over() => return,
            }
        }
    }

    /// Waits until this process owns the shard.
    async fn lease(&self) -> Lease {
        let (mut rng, mut failures) = (Rng::new(), 0);
        loop {
            match self.journal.lease(&self.name, self.shard).await {
                Ok(Some(lease)) => return lease,
                Ok(None) => {
                    if self.shard == MEASURING_SHARD {
                        self.show(self.journal.backlog(&self.name).await);
                    }
                    tokio::time::sleep(lease_pause()).await;
                }
                Err(error) => {
                    failures += 1;
                    self.journal_failed(&error, failures);
                    tokio::time::sleep(self.journal_delay(failures, &mut rng)).await;
                }
            }
        }
    }

    /// Asks a sink that remembers positions where to go on.
    async fn resume(&self) -> Option<Offset> {
        if !self.needs.resumes_positions {
            return None;
        }
        let (mut rng, mut failures) = (Rng::new(), 0);
        loop {
            match self.sink.resume(self.shard).await {
                Ok(position) => {
                    info!(sink = %self.name, shard = self.shard, position, "position resumed");
                    return position.map(Offset);
                }
                Err(fault) => {
                    failures += 1;
                    if failures == 1 {
                        warn!(sink = %self.name, shard = self.shard, code = %fault.code, reason = %fault.reason, "no position yet");
                    }
                    self.status.failed(&fault);
                    self.status.report(self.shard, status::Standing { is_broken: true, ..Default::default() });
                    self.metrics.breaker_open.set(1);
                    tokio::time::sleep(self.backoff.delay(failures, None, &mut rng)).await;
                }
            }
        }
    }

    async fn release(&self, fence: &journal::Fence) {
        if let Err(error) = self.journal.release(fence).await {
            warn!(sink = %self.name, shard = self.shard, %error, "lease not released");
        }
    }

    /// Sets the gauges of what the sink has before it. The journal counts what is not for this sink as pending while something
    /// older is; we do not.
    fn show(&self, backlog: Option<Backlog>) {
        let Some(backlog) = backlog else { return };
        let pending = backlog.pending.saturating_sub(self.status.skipped());
        let oldest = self.status.oldest().or(backlog.oldest_received_at).filter(|_| pending > 0);
        self.metrics.pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
        self.metrics.oldest_pending_seconds.set(oldest.map_or(0.0, seconds_since));
    }

    /// Says once per trouble that the journal refused something.
    fn journal_failed(&self, error: &journal::Error, failures: u32) {
        self.status.failed(&Fault::new("journal", error.to_string()));
        match error {
            _ if failures > 1 => {}
            journal::Error::UnknownSink(_) => {
                error!(sink = %self.name, shard = self.shard, %error, "sink not registered")
            }
            _ => warn!(sink = %self.name, shard = self.shard, %error, "journal refused"),
        }
    }

    fn journal_delay(&self, failures: u32, rng: &mut Rng) -> Duration {
        Backoff::new(JOURNAL_BACKOFF.0, JOURNAL_BACKOFF.1).delay(failures, None, rng)
    }
}

fn lease_pause() -> Duration {
    LEASE_PAUSE.mul_f64(1.0 + fastrand::f64())
}
