//! The journal in Redis: for any number of gateways side by side, none of which keeps anything.
//!
//! Accepting is one script call per batch: it looks the push up among the marks of the dedup window, appends what is new, and marks it,
//! so that neither can be without the other. The reply of a WAIT on the same connection, or `appendfsync always`, makes it durable. In
//! reading order:
//!
//! - what lies where: `keys`, `codec`, `scripts` (and the Lua in `scripts/`);
//! - how Redis is reached: `connect`, `calls`, `faults`; what it promises: `policy`;
//! - accepting: `queue` → `lanes`; settling and reading: `places`, `leases`, `letters`, `log`;
//! - what goes on beside: `upkeep`; what all share: `shared`; a look from outside: [`inspect`].
//!
//! Offsets are counted, not told by a clock: the script gives entry n the stream id `n-0`. Every life of a server (a process and its
//! history of replication, see [`connect::Identity`]) begins at the next multiple of 2^32 above whatever was ever given. So what a
//! failover or a crash cut off the end of the journal is never given a second time, and no reader that was further than the new
//! master can overlook what comes now. Who writes names the life that it believes in; the script refuses another.
//!
//! What it promises beyond the contract: a Redis that is gone, stalled, read-only, loading, out of memory or wiped stops accepting
//! and nothing else, and accepting resumes by itself. After a wipe the sinks that this process knows begin at the oldest entry. A
//! checkpoint is as durable as the server makes it by itself: what a failover takes of it comes again, nothing is lost by it, since
//! everything of a shard is in one order of writing.

mod options;
pub mod connect;
mod faults;
pub mod policy;
mod keys;
mod codec;
mod scripts;
mod calls;
mod queue;
mod lanes;
mod leases;
mod log;
mod places;
mod shares;
mod letters;
mod shared;
mod upkeep;
mod open;
pub mod inspect;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::future::BoxFuture;
use sink_api::Origin;
use tokio::sync::oneshot;

pub use self::open::try_servers;
pub use self::options::{Durability, Mode, OpenError, Options, Place};
use self::queue::Request;
use self::shared::Shared;
use super::codec::key_of;
use super::{
    AcceptError, Accepted, Backlog, Checkpoint, DeadLetter, DeadLetterId, DeadLetterPage, Error, Fence, Health,
    Journal, Lease, Page, Promises, Push, ReadLimits, Recall, Selection, Share, Start, shard_of,
};
use crate::metrics::JournalMetrics;
use crate::names::SinkName;

/// What closing may take.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// A future that the journal needs run beside it, and its name.
pub type Task = (String, BoxFuture<'static, ()>);

/// See the module.
pub struct RedisJournal {
    shared: Arc<Shared>,
}

impl RedisJournal {
    /// Connects, looks at what the servers promise, and reads what is there. Nothing is accepted until the tasks run; they end when
    /// the journal is closed.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(options: Options, metrics: JournalMetrics) -> Result<(Arc<Self>, Vec<Task>), OpenError> {
        let (shared, tasks) = open::open(options, metrics).await?;
        Ok((Arc::new(Self { shared }), tasks))
    }

    /// How this process is called where it owns a pipeline.
    pub fn owner(&self) -> &str {
        &self.shared.leases.owner
    }

    async fn take(&self, push: Push, is_derived: bool) -> Result<Accepted, AcceptError> {
        let begun = Instant::now();
        let shared = &self.shared;
        let closed = || AcceptError::Unavailable { cause: CLOSED.to_owned() };
        let shard = shard_of(push.session.as_ref(), &push.id, shared.options.shards);
        let size = push.body.len() as u64;
        if size > shared.options.size_max {
            return Err(AcceptError::TooLarge { size, limit: shared.options.size_max });
        }
        let group = shared.groups.iter().find(|group| group.shards.contains(&shard)).expect("every shard has a group");
        let permit = group.queue.room().await.ok_or_else(closed)?;
        let (answer, answered) = oneshot::channel();
        let key = key_of(&push.source, &push.id);
        let body_crc = crc32c::crc32c(&push.body);
        group.queue.push(Request { push, is_derived, shard, key, body_crc, answer, _permit: permit });
        let outcome = match answered.await {
            Ok(outcome) => outcome,
            Err(_) if shared.is_closed() => Err(closed()),
            Err(_) => Err(AcceptError::Unknown { cause: "the journal's lane is gone".to_owned() }),
        };
        shared.metrics.append_seconds.observe(begun.elapsed().as_secs_f64());
        outcome
    }

    fn when_open(&self) -> Result<&Shared, Error> {
        match self.shared.is_closed() {
            true => Err(Error::Unavailable { cause: CLOSED.to_owned() }),
            false => Ok(&self.shared),
        }
    }
}

const CLOSED: &str = "the journal is closed";

impl Drop for RedisJournal {
    fn drop(&mut self) {
        self.shared.closed.cancel();
        self.shared.groups.iter().for_each(|group| group.queue.close());
    }
}

#[async_trait]
impl Journal for RedisJournal {
    fn backend(&self) -> &'static str {
        "redis"
    }

    fn shards(&self) -> u16 {
        self.shared.options.shards
    }

    fn origin(&self) -> Origin {
        let Options { prefix, .. } = &self.shared.options;
        Origin { prefix: prefix.clone(), journal: self.shared.id.get().cloned().unwrap_or_default() }
    }

    async fn accept(&self, push: Push) -> Result<Accepted, AcceptError> {
        self.take(push, false).await
    }

    async fn accept_derived(&self, push: Push) -> Result<Accepted, AcceptError> {
        self.take(push, true).await
    }

    async fn register_sink(&self, sink: &SinkName, start: Start) -> Result<(), Error> {
        Ok(self.when_open()?.register(sink, start).await?)
    }

    async fn forget_sink(&self, sink: &SinkName) -> Result<(), Error> {
        Ok(self.when_open()?.forget(sink).await?)
    }

    async fn sinks(&self) -> Result<Vec<SinkName>, Error> {
        Ok(self.when_open()?.registered().await?)
    }

    async fn set_paused(&self, sink: &SinkName, paused: bool) -> Result<(), Error> {
        self.when_open()?.set_paused(sink, paused).await
    }

    async fn paused_sinks(&self) -> Result<Vec<SinkName>, Error> {
        Ok(self.when_open()?.paused().await?)
    }

    async fn lease(&self, sink: &SinkName, shard: u16) -> Result<Option<Lease>, Error> {
        self.when_open()?.lease(sink, shard).await
    }

    async fn release(&self, fence: &Fence) -> Result<(), Error> {
        let shared = self.when_open()?;
        shared.release(fence).await?;
        // Who has nothing left is about to go: the others need not leave it a share.
        if shared.leases.holds_none() {
            upkeep::leave(shared).await?;
        }
        Ok(())
    }

    async fn recalled(&self, fence: &Fence) -> Recall {
        self.shared.leases.recalled(fence).await
    }

    async fn read(&self, shard: u16, after: crate::names::Offset, limits: ReadLimits) -> Result<Page, Error> {
        let shared = self.when_open()?;
        if shard >= shared.options.shards {
            return Ok(Page { items: Vec::new(), end: after });
        }
        Ok(shared.read(shard, after, limits).await?)
    }

    async fn wait_past(&self, shard: u16, after: crate::names::Offset, patience: Duration) {
        let came = async {
            if shard >= self.shared.options.shards {
                return std::future::pending().await;
            }
            let mut tail = self.shared.shard(shard).tail.subscribe();
            if tail.wait_for(|tail| *tail > after.0).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        // Both ends are an answer.
        drop(tokio::time::timeout(patience, came).await);
    }

    async fn commit(&self, fence: &Fence, checkpoint: &Checkpoint) -> Result<(), Error> {
        self.when_open()?.settle(fence, &[], 0, checkpoint).await
    }

    async fn dead_letter(
        &self,
        fence: &Fence,
        letters: Vec<DeadLetter>,
        limit: u64,
        checkpoint: &Checkpoint,
    ) -> Result<(), Error> {
        self.when_open()?.settle(fence, &letters, limit, checkpoint).await
    }

    async fn keep_refused(&self, letter: DeadLetter, limit: u64) -> Result<(), Error> {
        Ok(self.when_open()?.keep_refused(letter, limit).await?)
    }

    async fn dead_letters(
        &self,
        selection: &Selection,
        after: Option<&DeadLetterId>,
        limit: usize,
    ) -> Result<DeadLetterPage, Error> {
        Ok(self.when_open()?.page(selection, after, limit).await?)
    }

    async fn dead_letter_of(&self, id: &DeadLetterId) -> Result<Option<DeadLetter>, Error> {
        Ok(self.when_open()?.letter(id).await?)
    }

    async fn update_dead_letters(&self, letters: Vec<DeadLetter>) -> Result<u64, Error> {
        Ok(self.when_open()?.update(letters).await?)
    }

    async fn purge_dead_letters(&self, ids: &[DeadLetterId]) -> Result<u64, Error> {
        Ok(self.when_open()?.purge(ids).await?)
    }

    fn dead_letters_len(&self, sink: &SinkName) -> u64 {
        self.shared.letters.of(sink)
    }

    async fn backlog(&self, sink: &SinkName) -> Option<Backlog> {
        self.when_open().ok()?.backlog(sink).await.ok()?
    }

    async fn shares(&self, sink: &SinkName) -> Result<Vec<Share>, Error> {
        Ok(self.when_open()?.shares(sink).await?)
    }

    async fn promises(&self) -> Option<Promises> {
        self.when_open().ok()?.promises().await
    }

    fn health(&self) -> Health {
        let trouble = match self.shared.is_closed() {
            true => Some(CLOSED.to_owned()),
            false => self.shared.trouble(),
        };
        let (bytes, entries) = (self.shared.bytes(), self.shared.entries());
        Health { trouble, bytes, size_max: self.shared.options.size_max, entries }
    }

    async fn close(&self) {
        let shared = &self.shared;
        shared.groups.iter().for_each(|group| group.queue.close());
        let mut left = shared.lanes_left.subscribe();
        let ended = left.wait_for(|left| *left == 0);
        if !shared.is_closed() && tokio::time::timeout(CLOSE_PATIENCE, ended).await.is_err() {
            tracing::warn!("pushes in hand were not written before the journal closed");
        }
        if !shared.is_closed() {
            let give_back = async {
                for fence in shared.leases.fences() {
                    shared.release(&fence).await?;
                }
                upkeep::leave(shared).await
            };
            match tokio::time::timeout(CLOSE_PATIENCE, give_back).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => tracing::warn!("leases could not be given back; they end by themselves"),
            }
        }
        shared.closed.cancel();
        shared.in_flight.store(0, Ordering::Release);
    }
}
