//! The helper thread: what a segment needs before its first push and after its last one, out of the writer's way.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::catalog::Segment;
use super::ids::Ids;
use super::shared::Shared;

const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) enum Job {
    /// Writes the ids file. Until that is done the segment's positions stay in memory, and it is not given back.
    Seal {
        segment: Arc<Segment>,
        ids: Ids,
    },
    PrepareSpare,
}

/// Runs until the writer lets go of its end. What could not be sealed by then is recovered when the journal is opened.
pub(super) fn run(shared: &Shared, jobs: &Receiver<Job>) {
    let mut unsealed: Vec<(Arc<Segment>, Ids)> = Vec::new();
    loop {
        match jobs.recv_timeout(RETRY_AFTER) {
            Ok(Job::Seal { segment, ids }) => unsealed.push((segment, ids)),
            Ok(Job::PrepareSpare) => shared.prepare_spare(),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        seal_all(shared, &mut unsealed);
    }
    seal_all(shared, &mut unsealed);
}

fn seal_all(shared: &Shared, unsealed: &mut Vec<(Arc<Segment>, Ids)>) {
    if unsealed.is_empty() {
        return;
    }
    unsealed.retain(|(segment, ids)| {
        let written = ids.write(&*shared.fs, &shared.layout.ids(ids.first), shared.log_id);
        match written {
            Ok(()) => segment.state_mut().positions = None,
            Err(error) => {
                shared.reporter.count("write");
                tracing::warn!(first = ids.first, %error, "a segment could not be sealed; tried again");
            }
        }
        !segment.is_sealed()
    });
    if let Err(error) = shared.trim() {
        tracing::warn!(%error, "space could not be given back; tried again later");
    }
}
