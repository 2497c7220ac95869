//! How far a pipeline has settled: one value per sink and shard, replaced as a whole.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::Offset;

/// A pipeline's progress on one shard.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Everything up to here is settled.
    pub low: Offset,
    /// Settled above `low`, by rising offset. As many as the pipeline's window holds, at most.
    pub settled_above: Vec<Offset>,
    /// Failed attempts of entries that are not settled, so that a restart does not forget them; by rising offset.
    pub attempts: Vec<Attempts>,
    /// The last offset of a batch that was announced before its delivery, for sinks that need stable batches: a retry holds the
    /// same entries.
    pub batch_end: Option<Offset>,
}

impl Checkpoint {
    /// Whether the entry at `offset` is settled.
    pub fn settles(&self, offset: Offset) -> bool {
        offset <= self.low || self.settled_above.binary_search(&offset).is_ok()
    }
}

/// The failed attempts of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    pub offset: Offset,
    pub count: u32,
    pub first_at: Timestamp,
}
