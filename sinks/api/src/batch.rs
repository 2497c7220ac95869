//! How events are handed to a sink.

use std::sync::Arc;

use crate::Event;

/// Some events of one shard, in journal order. Never empty. A batch of replayed dead letters comes between the others and has
/// offsets of the past: a sink that keeps positions MUST NOT move one back for it. Events of one session never are in two batches that are in flight at
/// the same time, so a sink may deliver batches side by side.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The journal's shard that the events come from.
    pub shard: u16,
    pub events: Vec<BatchEvent>,
}

#[derive(Debug, Clone)]
pub struct BatchEvent {
    /// The entry's place in its shard of the journal. Grows within a batch; not without gaps.
    pub offset: u64,
    /// Which try of this event it is; the first is 1.
    pub attempt: u32,
    pub event: Arc<Event>,
}
