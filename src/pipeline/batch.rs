//! When a batch goes out, and the one call that brings it to its sink.

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounterVec;
use sink_api::{Batch, BatchEvent, Fault, Outcome, Sink};
use tokio::time::Instant;

use super::sessions::{Load, Seq};
use crate::event::Mask;
use crate::journal::Push;
use crate::metrics::OTHER_ACTION;
use crate::names::{Offset, SinkName};
use crate::tccc;
use crate::trace::{DeliverySpan, Tracer};

/// After as many events the task that normalises lets others run: acknowledgements share its threads.
const NORMALISED_AT_A_STRETCH: usize = 32;

/// An entry on its way to the sink.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) seq: Seq,
    pub(super) offset: Offset,
    pub(super) attempt: u32,
    pub(super) push: Arc<Push>,
}

/// When a batch goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Now,
    /// Unless it is full before.
    At(Instant),
    Never,
}

/// A batch is due when it is full, or when its oldest event has been waiting for `linger`.
pub(super) fn due(
    limits: Load,
    linger: Duration,
    available: Load,
    waiting_since: Option<Instant>,
    now: Instant,
) -> Due {
    let Some(since) = waiting_since else { return Due::Never };
    let is_full = available.events >= limits.events || available.bytes >= limits.bytes;
    let at = since + linger;
    if is_full || at <= now { Due::Now } else { Due::At(at) }
}

/// Brings batches to the sink: what a delivery needs of its pipeline.
#[derive(Clone)]
pub(super) struct Courier {
    pub(super) name: SinkName,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) shard: u16,
    pub(super) mask: Option<Arc<Mask>>,
    pub(super) warnings: IntCounterVec,
    pub(super) tracer: Tracer,
}

impl Courier {
    /// Normalises, masks and delivers. One outcome per parcel; a fault where the sink does not keep to that.
    pub(super) async fn deliver(self, parcels: Vec<Parcel>) -> Result<Vec<Outcome>, Fault> {
        let expected = parcels.len();
        let (mut events, mut spans) = (Vec::with_capacity(expected), Vec::with_capacity(expected));
        for (index, parcel) in parcels.into_iter().enumerate() {
            if index % NORMALISED_AT_A_STRETCH == NORMALISED_AT_A_STRETCH - 1 {
                tokio::task::yield_now().await;
            }
            let Push { id, traceparent, .. } = &*parcel.push;
            spans.push(self.tracer.delivery(&self.name, id, traceparent.as_deref(), parcel.attempt));
            events.push(event(parcel, self.mask.as_deref(), &self.warnings));
        }
        let outcomes = self.sink.deliver(&Batch { shard: self.shard, events }).await;
        checked(outcomes, expected).inspect(|outcomes| spans.into_iter().zip(outcomes).for_each(end_span))
    }
}

fn end_span((span, outcome): (DeliverySpan, &Outcome)) {
    match outcome {
        Outcome::Delivered { .. } => span.end("delivered", None),
        Outcome::Retry { fault, .. } => span.end("retry", Some(&fault.code)),
        Outcome::Rejected { fault } => span.end("rejected", Some(&fault.code)),
        Outcome::Unavailable { fault, .. } => span.end("unavailable", Some(&fault.code)),
    }
}

fn checked(outcomes: Vec<Outcome>, expected: usize) -> Result<Vec<Outcome>, Fault> {
    if outcomes.len() == expected {
        return Ok(outcomes);
    }
    let found = outcomes.len();
    Err(Fault::new(
        "outcome-count",
        format!("the sink gave {found} outcomes for {expected} events: a bug in this kind of sink"),
    ))
}

fn event(parcel: Parcel, mask: Option<&Mask>, warnings: &IntCounterVec) -> BatchEvent {
    let mut normalised = tccc::normalise(&parcel.push);
    if normalised.warnings > 0 && parcel.attempt == 1 {
        let action = tccc::known_action(&parcel.push.action).unwrap_or(OTHER_ACTION);
        warnings.with_label_values(&[action]).inc_by(normalised.warnings as u64);
    }
    if let Some(mask) = mask {
        mask.apply(&mut normalised.event);
    }
    BatchEvent { offset: parcel.offset.0, attempt: parcel.attempt, event: Arc::new(normalised.event) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Load = Load { events: 10, bytes: 1000 };
    const LINGER: Duration = Duration::from_millis(50);

    fn due_with(events: usize, bytes: u64, waited: Duration) -> Due {
        let since = Instant::now();
        match due(LIMITS, LINGER, Load { events, bytes }, Some(since), since + waited) {
            Due::At(at) => {
                assert_eq!(at, since + LINGER);
                Due::At(at)
            }
            other => other,
        }
    }

    #[test]
    fn a_batch_goes_when_full_by_count_or_bytes_or_after_linger() {
        assert!(matches!(due_with(9, 999, Duration::ZERO), Due::At(_)));
        assert_eq!(due_with(10, 999, Duration::ZERO), Due::Now);
        assert_eq!(due_with(9, 1000, Duration::ZERO), Due::Now);
        assert_eq!(due_with(1, 1, LINGER), Due::Now);
    }

    #[test]
    fn nothing_available_is_never_due() {
        let now = Instant::now();
        assert_eq!(due(LIMITS, Duration::ZERO, Load::default(), None, now), Due::Never);
    }
}
