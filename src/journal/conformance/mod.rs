//! What every implementation of [`Journal`] must do: one call runs all of it.
//!
//! ```ignore
//! conformance::run(&mut Backend).await;
//! ```
//!
//! A backend says how a fresh journal is made and how the same one is opened again after it was closed. Every sentence of the
//! contract that can be seen from outside is a check here, named after it. Faults of the storage are the backends' own tests.

mod accepts;
mod dead_letters;
mod reads;
mod sinks;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use super::{Accepted, Checkpoint, DeadLetter, DeadLetterId, Item, Journal, Lease, Push, ReadLimits, shard_of};
use crate::names::{Offset, SinkName};

/// The dedup window that a backend under test is made with.
pub const WINDOW: Duration = Duration::from_secs(3600);

/// How a backend is brought up.
pub trait Factory {
    /// A new, empty journal with a dedup window of [`WINDOW`].
    fn fresh(&mut self) -> impl Future<Output = Arc<dyn Journal>>;
    /// The latest journal again, after it was closed.
    fn reopen(&mut self) -> impl Future<Output = Arc<dyn Journal>>;
}

/// Runs every check against journals of `factory`.
pub async fn run(factory: &mut impl Factory) {
    accepts::run(factory).await;
    reads::run(factory).await;
    sinks::run(factory).await;
    dead_letters::run(factory).await;
}

/// A push with all its parts, received `second` seconds after a fixed moment.
pub fn push(id: &str, session: &str, second: i64) -> Push {
    Push {
        id: id.into(),
        source: "main".into(),
        action: "cdr".into(),
        version: Some("1".into()),
        session: Some(session.into()),
        received_at: Timestamp::from_millisecond((1_787_000_000 + second) * 1000 + 7).unwrap(),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        body: Bytes::from(format!("{{\"id\":\"{id}\"}}")),
    }
}

/// The shard of a push that [`push`] made.
pub fn shard(journal: &dyn Journal, push: &Push) -> u16 {
    shard_of(push.session.as_ref(), &push.id, journal.shards())
}

/// Everything behind `after`, read in pages.
pub async fn read_all(journal: &dyn Journal, shard: u16, after: Offset) -> Vec<Item> {
    let limits = ReadLimits { events_max: 7, bytes_max: 1 << 20 };
    let (mut items, mut end) = (Vec::new(), after);
    loop {
        let page = journal.read(shard, end, limits).await.unwrap();
        if page.end == end {
            return items;
        }
        assert!(page.items.iter().all(|item| item.entry().offset > end && item.entry().offset <= page.end));
        items.extend(page.items);
        end = page.end;
    }
}

/// A dead letter of `sink` for an entry.
pub fn letter(sink: &SinkName, shard: u16, offset: Offset, push: &Push) -> DeadLetter {
    DeadLetter {
        id: DeadLetterId { sink: sink.clone(), number: u64::from(shard) << 48 | offset.0 },
        push: push.clone(),
        code: "http-400".into(),
        reason: "the destination refused it".into(),
        attempts: 3,
        first_attempt_at: push.received_at,
        last_attempt_at: push.received_at,
    }
}

async fn accept_new(journal: &dyn Journal, push: &Push) -> Offset {
    match journal.accept(push.clone()).await.unwrap() {
        Accepted::New { offset } => offset,
        other => panic!("not new: {other:?}"),
    }
}

async fn lease(journal: &dyn Journal, sink: &SinkName, shard: u16) -> Lease {
    journal.lease(sink, shard).await.unwrap().expect("nobody else holds it")
}

fn low(offset: Offset) -> Checkpoint {
    Checkpoint { low: offset, ..Checkpoint::default() }
}
