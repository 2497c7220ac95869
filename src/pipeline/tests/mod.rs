//! What a pipeline promises, against a journal in memory and scripted sinks, in paused time.

mod journal;
mod sink;
mod delivers;
mod hands_over;
mod keeps_order;
mod retries;
mod replays;
mod selects;
mod survives;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use sink_api::settings::Period;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::journal::Memory;
use self::sink::Scripted;
use super::{Pipeline, State, Status};
use crate::config::model;
use crate::journal::Push;
use crate::metrics::{Metrics, SinkMetrics};
use crate::replay::Replays;

pub(super) fn push(id: &str, session: Option<&str>) -> Push {
    Push {
        id: id.into(),
        source: "main".into(),
        action: "cdr".into(),
        version: None,
        session: session.map(Into::into),
        received_at: Timestamp::now(),
        traceparent: None,
        body: Bytes::from_static(b"{}"),
    }
}

/// One event at a time would hide mistakes, lingering only takes time: small batches, several in flight, no linger.
fn settings() -> model::Sink {
    let mut settings: model::Sink = toml::from_str(r#"type = "scripted""#).unwrap();
    settings.batch = model::BatchLimits { events_max: 4, linger: Period::from_millis(0), ..Default::default() };
    settings
}

/// A pipeline that runs; it is killed, as in a crash, when this is dropped.
struct Running {
    journal: Arc<Memory>,
    metrics: SinkMetrics,
    status: Arc<Status>,
    replays: Replays,
    stop: CancellationToken,
    force: CancellationToken,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn start(journal: &Arc<Memory>, sink: &Arc<Scripted>, settings: &model::Sink) -> Running {
    let metrics = Metrics::new();
    let name = "events".into();
    let replays = Replays::default();
    let inbox = replays.open(&name, 0);
    let series = metrics.sink(&name);
    let status = Arc::new(Status::new());
    let (stop, force) = (CancellationToken::new(), CancellationToken::new());
    let pipeline = Pipeline::new(
        name,
        settings,
        sink.clone(),
        journal.clone(),
        0,
        series.clone(),
        metrics.normalise_warnings.clone(),
        status.clone(),
    )
    .unwrap()
    .replaying(inbox);
    let task = tokio::spawn(pipeline.run(stop.clone(), force.clone()));
    Running { journal: journal.clone(), metrics: series, status, replays, stop, force, task }
}

impl Running {
    async fn all_settled(&self) {
        until(|| self.journal.checkpoint().low == self.journal.last()).await;
    }

    /// The end as on SIGTERM.
    async fn drained(mut self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(60), &mut self.task).await.expect("drains").unwrap();
    }

    async fn forced(mut self) {
        self.stop.cancel();
        self.force.cancel();
        tokio::time::timeout(Duration::from_secs(10), &mut self.task).await.expect("ends").unwrap();
    }

    /// The end as on kill -9.
    async fn killed(mut self) {
        self.task.abort();
        assert!((&mut self.task).await.unwrap_err().is_cancelled());
    }
}

/// Waits until `condition` holds, in steps of the paused clock.
async fn until(condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(24 * 3600);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "the condition never held");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
