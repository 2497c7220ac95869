//! Records on their way: what became of each, told by delivery reports.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// What a delivery report says.
pub(crate) type Report = Result<(), RDKafkaErrorCode>;

/// Some records that went out together.
pub(crate) struct Flight {
    state: Mutex<State>,
    landed: Notify,
    /// Told when all have landed, or one has failed.
    decided: Condvar,
}

struct State {
    reports: Vec<Option<Report>>,
    missing: usize,
    has_failed: bool,
}

/// Goes with a record through librdkafka and comes back with its report.
pub(crate) struct Ticket {
    flight: Arc<Flight>,
    seat: usize,
}

impl Flight {
    pub(crate) fn of(seats: usize) -> Arc<Self> {
        let state = State { reports: vec![None; seats], missing: seats, has_failed: false };
        Arc::new(Self { state: Mutex::new(state), landed: Notify::new(), decided: Condvar::new() })
    }

    pub(crate) fn ticket(self: &Arc<Self>, seat: usize) -> Ticket {
        Ticket { flight: Arc::clone(self), seat }
    }

    /// A record that did not go out, or whose report has come.
    pub(crate) fn report(&self, seat: usize, report: Report) {
        let mut state = self.state();
        if state.reports[seat].replace(report).is_none() {
            state.missing -= 1;
            state.has_failed |= report.is_err();
            if state.missing == 0 {
                self.landed.notify_one();
            }
            if state.missing == 0 || state.has_failed {
                self.decided.notify_one();
            }
        }
    }

    /// Waits until every report is there; false where some are missing at `deadline`. For one caller at a time.
    pub(crate) async fn landed(&self, deadline: Instant) -> bool {
        while self.state().missing > 0 {
            if timeout_at(deadline, self.landed.notified()).await.is_err() {
                return self.state().missing == 0;
            }
        }
        true
    }

    /// Waits, on a thread that may block, until every report is there or one says that a record failed, which decides for all of a
    /// transaction; false where neither is so at `deadline`.
    pub(crate) fn decided_blocking(&self, deadline: Instant) -> bool {
        let patience = deadline.saturating_duration_since(Instant::now());
        let is_open = |state: &mut State| state.missing > 0 && !state.has_failed;
        let waited = self.decided.wait_timeout_while(self.state(), patience, is_open);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    pub(crate) fn reports(&self) -> Vec<Option<Report>> {
        self.state().reports.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    pub(crate) fn report(&self, report: Report) {
        self.flight.report(self.seat, report);
    }
}
