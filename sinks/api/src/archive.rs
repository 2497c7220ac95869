//! What a sink keeps for each event, for sinks that archive something which events only name.

use async_trait::async_trait;

use crate::{Event, Unavailable};

/// Looks into what a sink has archived. It MUST change nothing there.
#[async_trait]
pub trait Archive: Send + Sync {
    /// Where what `event` names lies once it is archived; the same on every call. `None` where it names nothing to be archived.
    fn place(&self, event: &Event) -> Option<String>;

    /// Gives everything that lies in the archive to `each`, in any order.
    async fn list(&self, each: &mut (dyn FnMut(Archived) + Send)) -> Result<(), Unavailable>;

    /// The id of the event that the object under `key` was archived for, if it says so.
    async fn event_of(&self, key: &str) -> Result<Option<String>, Unavailable>;
}

/// One object of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archived {
    /// As [`Archive::place`] says it.
    pub place: String,
    /// Its whole key, extension included.
    pub key: String,
    pub length_bytes: u64,
}
