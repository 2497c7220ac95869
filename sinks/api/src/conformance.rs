//! The suite that every sink runs against itself, by one call of [`run`]; for tests only.
//!
//! It checks each MUST of [`Sink`] against a real destination, or as real a one as a test can have. What it needs to know of that
//! destination, the sink's test says by implementing [`Harness`]: how a sink on it is made, what it holds, how it is broken and
//! mended. What a destination cannot show, such as an order between objects, is left out by [`Abilities`].
//!
//! ```text
//! #[tokio::test(flavor = "multi_thread")]
//! async fn the_sink_keeps_the_contract() {
//!     sink_api::conformance::run(&MyDestination::start().await).await;
//! }
//! ```
//!
//! A failed check panics with its own name and what was found. The suite refuses nothing that the contract allows: a destination
//! may hold an event several times, and a dropped delivery may have arrived in whole, in part or not at all.

mod checks;
mod events;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use events::{batch, event, event_of_size, poll_at_most};

use crate::{Event, Format, Sink};

/// A destination, and the way to make sinks on it. All sinks of one harness write to the same place.
#[async_trait]
pub trait Harness: Sync {
    /// A new instance on the destination, as after a restart of the gateway. Others may still be open.
    async fn fresh(&self) -> Arc<dyn Sink>;

    /// All that the destination holds, as a consumer of it would read it. Where the destination has an order, or has one within a
    /// partition, in that order.
    async fn read_back(&self) -> Vec<Received>;

    /// Takes the destination away as an outage would: a stopped broker, a refused connection, a directory that cannot be written.
    /// What it holds stays. Returns once a delivery would meet the outage.
    async fn break_destination(&self);

    /// Ends what [`Harness::break_destination`] began. Returns once the destination would take events again.
    async fn mend_destination(&self);

    /// What the destination can show, and how long it may take.
    fn abilities(&self) -> Abilities {
        Abilities::default()
    }

    /// An event that the destination takes; for sinks that deliver only some actions, or read `data`.
    fn event(&self, id: &str, session: &str) -> Event {
        event(id, session)
    }

    /// The largest event that the destination has to take.
    fn large_event(&self, id: &str, session: &str) -> Event {
        event_of_size(id, session, 1 << 20)
    }

    /// An event that the destination refuses for itself while it takes others; `None` if it never does.
    fn poison_event(&self, _id: &str, _session: &str) -> Option<Event> {
        None
    }

    /// What [`Harness::read_back`] holds as the payload of `event` once it is delivered.
    fn payload(&self, event: &Event) -> Bytes {
        event.payload(Format::CloudEvents)
    }

    /// The whole state of the destination that a probe could disturb, in any form that can be compared.
    async fn fingerprint(&self) -> String {
        format!("{:?}", self.read_back().await)
    }

    /// Connections and files on the destination that sinks still hold; asked when all of them are closed. Empty where a test
    /// cannot see them.
    async fn held(&self) -> Vec<String> {
        Vec::new()
    }
}

/// One event as the destination holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub id: String,
    pub payload: Bytes,
}

/// What a destination can show.
#[derive(Debug, Clone, Copy)]
pub struct Abilities {
    /// [`Harness::read_back`] keeps the order of arrival, at least within a `partitionkey`.
    pub keeps_order: bool,
    /// A batch that is delivered again replaces what its first delivery left.
    pub keeps_one_copy: bool,
    /// No call may take longer, outages included.
    pub answer_time_max: Duration,
    /// After [`Harness::mend_destination`] the same instance delivers within this time.
    pub recovery_time_max: Duration,
}

impl Default for Abilities {
    fn default() -> Self {
        let time_max = Duration::from_secs(30);
        Self { keeps_order: true, keeps_one_copy: false, answer_time_max: time_max, recovery_time_max: time_max }
    }
}

/// Runs every check, one after the other, on the one destination of `harness`.
///
/// # Panics
/// When the sink breaks the contract.
pub async fn run(harness: &dyn Harness) {
    let suite = checks::Suite::new(harness);
    suite.a_probe_changes_nothing().await;
    suite.delivered_means_that_the_destination_holds_it().await;
    suite.batches_go_side_by_side().await;
    suite.delivering_again_is_safe().await;
    suite.a_refused_event_holds_up_its_own_key_alone().await;
    suite.a_dropped_delivery_loses_nothing_but_its_answer().await;
    suite.an_outage_is_no_fault_of_an_event().await;
    suite.a_sink_made_during_an_outage_delivers_after_it().await;
    suite.positions_are_remembered_if_the_sink_says_so().await;
    suite.a_closed_sink_holds_nothing().await;
}
