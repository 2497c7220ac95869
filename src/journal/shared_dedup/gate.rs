//! Whether Redis is believed to answer. Closed by whoever fails, opened by the watch alone, so that while Redis is away no push pays
//! for finding out.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use prometheus::IntGauge;
use tracing::{info, warn};

#[derive(Debug)]
pub(super) struct Gate {
    is_shut: AtomicBool,
    /// The slot whose command failed last: a cluster can fail in a part, and it is that part that must answer again.
    slot: AtomicU32,
    degraded: IntGauge,
}

impl Gate {
    pub(super) fn new(degraded: IntGauge) -> Self {
        degraded.set(0);
        Self { is_shut: AtomicBool::new(false), slot: AtomicU32::new(0), degraded }
    }

    pub(super) fn is_shut(&self) -> bool {
        self.is_shut.load(Ordering::Acquire)
    }

    pub(super) fn slot(&self) -> u32 {
        self.slot.load(Ordering::Relaxed)
    }

    /// A command on `slot` failed. Said once per outage.
    pub(super) fn shut(&self, slot: u32, cause: &dyn Display) {
        self.slot.store(slot, Ordering::Relaxed);
        if !self.is_shut.swap(true, Ordering::AcqRel) {
            self.degraded.set(1);
            warn!(%cause, "redis does not answer, push ids are known to this replica alone");
        }
    }

    /// Redis takes commands again.
    pub(super) fn open(&self) {
        if self.is_shut.swap(false, Ordering::AcqRel) {
            self.degraded.set(0);
            info!("redis answers again, push ids are shared");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gauge_follows_and_the_slot_at_fault_is_remembered() {
        let gauge = IntGauge::new("degraded", "in a test").unwrap();
        let gate = Gate::new(gauge.clone());
        assert!(!gate.is_shut());
        gate.shut(7, &"timed out");
        gate.shut(9, &"timed out");
        assert_eq!((gate.is_shut(), gate.slot(), gauge.get()), (true, 9, 1));
        gate.open();
        assert_eq!((gate.is_shut(), gauge.get()), (false, 0));
    }
}
