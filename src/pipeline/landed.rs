//! What came back from the sink, carried out entry by entry.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sink_api::{DerivedPush, Fault, Outcome};
use tokio::time::Instant;
use tracing::{error, warn};

use super::retry::Backoff;
use super::run::{Flight, Run, seconds_since};
use super::sessions::Seq;
use super::verdict::{self, Verdict};
use crate::journal::{AcceptError, Journal, Push};
use crate::names::{PushId, SessionId};

/// Between two log lines that a sink breaks the order of a session.
const ORDER_QUIET: Duration = Duration::from_secs(60);

/// Longest suffix of a derived push's id.
const SUFFIX_LEN_MAX: usize = 32;

impl Run<'_> {
    /// Applies the sink's answer for one batch; a fault in place of outcomes is trouble of the sink as a whole.
    pub(super) fn landed(&mut self, flight: Flight, answer: Result<Vec<Outcome>, Fault>, now: Instant) {
        let outcomes = answer.unwrap_or_else(|fault| {
            let (sink, shard) = (&self.pipe.name, self.pipe.shard);
            error!(%sink, shard, code = %fault.code, reason = %fault.reason, "sink broke its contract");
            vec![Outcome::unavailable(fault); flight.seqs.len()]
        });
        self.watch_order(&flight, &outcomes, now);
        self.judge_sink(&outcomes, flight.is_trial, now);
        let numbered = flight.seqs.iter().zip(outcomes);
        let mut verdicts: Vec<_> =
            numbered.map(|(seq, outcome)| self.verdict(*seq, outcome, flight.began_at)).collect();
        if self.is_sequential() {
            verdict::keep_whole(&mut verdicts);
        }
        // Last first, so that what goes back to the head of a session ends up in order.
        for (seq, verdict) in flight.seqs.into_iter().zip(verdicts).rev() {
            match verdict {
                Verdict::Settle => self.delivered(seq),
                Verdict::Derive(derived) => self.derive(seq, *derived, flight.began_at),
                Verdict::Again(delay) => self.window.put_back(seq, (!delay.is_zero()).then(|| now + delay)),
                Verdict::Doom(fault) => self.window.doom(seq, fault, flight.began_at),
            }
        }
    }

    /// A derived push is in the journal, or can never be.
    pub(super) fn derived(&mut self, seq: Seq, result: Result<(), Fault>) {
        match result {
            Ok(()) => self.delivered(seq),
            Err(fault) => {
                let now = Timestamp::now();
                self.window.failed(seq, now, true);
                self.window.doom(seq, fault, now);
            }
        }
    }

    pub(super) fn judge_sink(&mut self, outcomes: &[Outcome], is_trial: bool, now: Instant) {
        let was_open = self.breaker.is_open();
        if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Delivered { .. })) {
            self.breaker.delivered();
        }
        match verdict::trouble(outcomes) {
            Some((fault, after)) => self.sink_is_away(&fault, after, is_trial, now),
            None if is_trial => self.breaker.trial_passed(),
            None => {}
        }
        self.tell_if_closed(was_open);
    }

    fn verdict(&mut self, seq: Seq, outcome: Outcome, began_at: Timestamp) -> Verdict {
        let metrics = &self.pipe.metrics;
        match outcome {
            Outcome::Delivered { derived } => {
                metrics.attempts_delivered.inc();
                derived.map_or(Verdict::Settle, Verdict::Derive)
            }
            Outcome::Retry { fault, after, burns_attempt } => {
                metrics.attempts_retry.inc();
                self.pipe.status.failed(&fault);
                self.pace.changed();
                let (tries, burned) = self.window.failed(seq, began_at, burns_attempt);
                if burns_attempt && burned >= self.pipe.attempts_max {
                    return Verdict::Doom(fault);
                }
                self.pipe.status.retried();
                Verdict::Again(self.pipe.backoff.delay(tries, after, &mut self.rng))
            }
            Outcome::Rejected { fault } => {
                metrics.attempts_rejected.inc();
                self.pipe.status.failed(&fault);
                self.window.failed(seq, began_at, true);
                Verdict::Doom(fault)
            }
            Outcome::Unavailable { .. } => {
                metrics.attempts_unavailable.inc();
                Verdict::Again(Duration::ZERO)
            }
        }
    }

    fn delivered(&mut self, seq: Seq) {
        let (_, push) = self.window.look(seq);
        self.pipe.metrics.delivery_seconds.observe(seconds_since(push.received_at));
        self.pipe.metrics.count_delivered(&push.action);
        self.pipe.status.delivered_one();
        self.window.settle(seq);
        self.pace.settled_one();
    }

    /// Has a derived push accepted; until then its event is not settled and its session waits.
    fn derive(&mut self, seq: Seq, derived: DerivedPush, began_at: Timestamp) {
        let push = match derived_push(self.window.look(seq).1, derived) {
            Ok(push) => push,
            Err(fault) => {
                self.window.failed(seq, began_at, true);
                self.window.doom(seq, fault, began_at);
                return;
            }
        };
        let (journal, sink) = (self.pipe.journal.clone(), self.pipe.name.clone());
        self.derivations.spawn(async move {
            let accepted = accept(journal, push, |error| warn!(%sink, %error, "derived push not accepted yet")).await;
            (seq, accepted)
        });
    }

    /// The delivery stands, but somebody should know.
    fn watch_order(&mut self, flight: &Flight, outcomes: &[Outcome], now: Instant) {
        let is_told = self.order_told_at.is_some_and(|at| now < at + ORDER_QUIET);
        let keys = flight.seqs.iter().map(|seq| self.window.look(*seq).0);
        if !is_told && verdict::breaks_order(outcomes, keys) {
            self.order_told_at = Some(now);
            let (sink, shard) = (&self.pipe.name, self.pipe.shard);
            warn!(%sink, shard, "sink delivered an event after an earlier one of its session failed");
        }
    }
}

/// The push that a delivery yielded; a fault where its id cannot be used.
pub(super) fn derived_push(origin: &Push, derived: DerivedPush) -> Result<Push, Fault> {
    let suffix = &derived.id_suffix;
    if suffix.is_empty() || suffix.len() > SUFFIX_LEN_MAX || !suffix.bytes().all(|byte| byte.is_ascii_graphic()) {
        let reason = "delivered, but the sink derived a push with an unusable id: a bug in this kind of sink";
        return Err(Fault::new("derived-push", reason));
    }
    Ok(Push {
        id: PushId::new(format!("{}/{suffix}", origin.id)),
        source: origin.source.clone(),
        action: derived.action,
        version: None,
        session: derived.session_id.map(SessionId::new),
        received_at: Timestamp::now(),
        traceparent: origin.traceparent.clone(),
        body: derived.body,
    })
}

/// Until the journal has it. A fault where it never will.
pub(super) async fn accept(journal: Arc<dyn Journal>, push: Push, tell: impl Fn(&AcceptError)) -> Result<(), Fault> {
    let backoff = Backoff::new(super::JOURNAL_BACKOFF.0, super::JOURNAL_BACKOFF.1);
    let mut rng = fastrand::Rng::new();
    let mut failures = 0;
    loop {
        match journal.accept_derived(push.clone()).await {
            Ok(_) => return Ok(()),
            Err(error @ AcceptError::TooLarge { .. }) => {
                return Err(Fault::new("derived-push", format!("delivered, but its derived push is refused: {error}")));
            }
            Err(error) => {
                failures += 1;
                if failures == 1 {
                    tell(&error);
                }
                tokio::time::sleep(backoff.delay(failures, None, &mut rng)).await;
            }
        }
    }
}
