//! The journal on a local disk: a segmented log of our own, with the dedup index in memory.
//!
//! One record carries the push and its dedup mark, so one sync makes both durable and neither can be without the other. There is
//! one shard. In reading order:
//!
//! - what lies where: `layout`, `file_header`, `frame`, `ids`;
//! - accepting: `queue` → `writer` (with `index` and `segment_file`) → `helper`;
//! - reading: `reader`; settling: `checkpoints`, `dead_letters`; giving space back: `shared`;
//! - opening: `open`, `identity`, `recovery`, `scan`;
//! - looking from outside: `inspect`.
//!
//! What it promises beyond the contract: it opens whatever the bytes in its directory are, as long as the directory is its own;
//! damage costs what is damaged, is reported once, and is set aside; a full or failing disk stops accepting and nothing else, and
//! accepting resumes by itself. While no sink is registered nothing needs an entry, so at `size_max` the oldest segment makes room
//! instead of pushes being refused.

mod options;
mod layout;
mod file_header;
mod frame;
mod ids;
mod fs;
mod scan;
mod report;
mod catalog;
mod index;
mod queue;
mod segment_file;
mod writer;
mod helper;
mod reader;
mod checkpoints;
mod dead_letters;
mod shared;
mod identity;
mod recovery;
mod open;
pub mod inspect;
#[cfg(test)]
mod sim_fs;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod file_tests;
#[cfg(test)]
mod crash_tests;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::oneshot;

use self::checkpoints::unavailable;
use self::fs::RealFileSystem;
pub use self::options::{OpenError, Options};
use self::queue::{Queue, Request};
use self::shared::{Shared, lock};
use super::{
    AcceptError, Accepted, Backlog, Checkpoint, DeadLetter, DeadLetterId, DeadLetterPage, Error, Fence, Health,
    Journal, Lease, Page, Push, ReadLimits, Selection, Start,
};
use crate::crash::crash_point;
use crate::metrics::JournalMetrics;
use crate::names::{INGRESS, Offset, SinkName};

/// See the module. Dropping it without [`Journal::close`] ends its threads too, after what waits has been written.
pub struct DiskJournal {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl DiskJournal {
    /// Opens the journal in `options.dir`, and makes it where there is none. Blocks while it reads what is there.
    ///
    /// # Errors
    /// See [`OpenError`]. Damaged data is no error.
    pub fn open(options: Options, metrics: JournalMetrics) -> Result<Arc<Self>, OpenError> {
        open::open(Arc::new(RealFileSystem), options, metrics).map(Arc::new)
    }

    /// Runs what waits for the disk where waiting is allowed.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Shared>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        if self.shared.is_closed() {
            return Err(closed());
        }
        let shared = Arc::clone(&self.shared);
        match tokio::task::spawn_blocking(move || work(&shared)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::Unavailable { cause: "the operation was given up".to_owned() }),
        }
    }

    fn stop(&self) {
        self.shared.is_closed.store(true, Ordering::Release);
        self.queue.close();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            if thread.join().is_err() {
                tracing::error!("a thread of the journal panicked");
            }
        }
        *lock(&self.shared.lock) = None;
    }
}

impl Drop for DiskJournal {
    fn drop(&mut self) {
        self.stop();
    }
}

#[async_trait]
impl Journal for DiskJournal {
    fn backend(&self) -> &'static str {
        "disk"
    }

    fn shards(&self) -> u16 {
        1
    }

    async fn accept(&self, push: Push) -> Result<Accepted, AcceptError> {
        let begun = Instant::now();
        let key = frame::key_of(&push.source, &push.id);
        let body_crc = crc32c::crc32c(&push.body);
        let closed = || AcceptError::Unavailable { cause: "the journal is closed".to_owned() };
        let permit = self.queue.room().await.ok_or_else(closed)?;
        let (answer, answered) = oneshot::channel();
        self.queue.push(Request { push, key, body_crc, answer, permit });
        let outcome = match answered.await {
            Ok(outcome) => outcome,
            Err(_) if self.shared.is_closed() => Err(closed()),
            Err(_) => Err(AcceptError::Unknown { cause: "the journal's writer is gone".to_owned() }),
        };
        self.shared.reporter.metrics.append_seconds.observe(begun.elapsed().as_secs_f64());
        outcome
    }

    async fn register_sink(&self, sink: &SinkName, start: Start) -> Result<(), Error> {
        let sink = sink.clone();
        self.blocking(move |shared| {
            let low = || match start {
                Start::Now => Offset(shared.durable()),
                Start::Oldest => Offset(shared.catalog.oldest_offset().map_or(shared.durable(), |oldest| oldest - 1)),
            };
            shared.checkpoints.register(&sink, low)
        })
        .await
    }

    async fn forget_sink(&self, sink: &SinkName) -> Result<(), Error> {
        let sink = sink.clone();
        self.blocking(move |shared| {
            // The letters first: as long as the sink is registered a repeated call finds it.
            shared.dead_letters.forget(&sink).map_err(unavailable)?;
            shared.checkpoints.forget(&sink)?;
            shared.trim().map_err(unavailable)
        })
        .await
    }

    async fn sinks(&self) -> Result<Vec<SinkName>, Error> {
        if self.shared.is_closed() {
            return Err(closed());
        }
        Ok(self.shared.checkpoints.names())
    }

    async fn set_paused(&self, sink: &SinkName, paused: bool) -> Result<(), Error> {
        let sink = sink.clone();
        self.blocking(move |shared| shared.checkpoints.set_paused(&sink, paused)).await
    }

    async fn paused_sinks(&self) -> Result<Vec<SinkName>, Error> {
        if self.shared.is_closed() {
            return Err(closed());
        }
        Ok(self.shared.checkpoints.paused())
    }

    async fn lease(&self, sink: &SinkName, shard: u16) -> Result<Option<Lease>, Error> {
        if shard != 0 {
            return Ok(None);
        }
        let sink = sink.clone();
        self.blocking(move |shared| {
            let place = shared.checkpoints.find(&sink).ok_or_else(|| Error::UnknownSink(sink.clone()))?;
            let settled = shared.dead_letters.offsets_behind(&sink, place.checkpoint().low);
            let (epoch, checkpoint) = shared.checkpoints.lease(&sink, &settled)?;
            Ok(Some(Lease { fence: Fence { sink, shard, epoch }, checkpoint }))
        })
        .await
    }

    async fn release(&self, fence: &Fence) -> Result<(), Error> {
        let fence = fence.clone();
        self.blocking(move |shared| shared.checkpoints.release(&fence)).await
    }

    async fn read(&self, shard: u16, after: Offset, limits: ReadLimits) -> Result<Page, Error> {
        if shard != 0 || after.0 >= self.shared.durable() {
            return if self.shared.is_closed() { Err(closed()) } else { Ok(Page { items: Vec::new(), end: after }) };
        }
        self.blocking(move |shared| shared.reader.read(shared, after, limits).map_err(unavailable)).await
    }

    async fn wait_past(&self, shard: u16, after: Offset, patience: Duration) {
        let mut durable = self.shared.durable.subscribe();
        let came = async {
            let is_past = |durable: &u64| shard == 0 && *durable > after.0;
            if durable.wait_for(is_past).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        // Both ends are an answer.
        drop(tokio::time::timeout(patience, came).await);
    }

    async fn commit(&self, fence: &Fence, checkpoint: &Checkpoint) -> Result<(), Error> {
        let (fence, checkpoint) = (fence.clone(), checkpoint.clone());
        self.blocking(move |shared| {
            shared.checkpoints.commit(&fence, &checkpoint, shared.durable(), || Ok(()))?;
            trim_after_commit(shared);
            Ok(())
        })
        .await
    }

    async fn dead_letter(
        &self,
        fence: &Fence,
        letters: Vec<DeadLetter>,
        limit: u64,
        checkpoint: &Checkpoint,
    ) -> Result<(), Error> {
        let (fence, checkpoint) = (fence.clone(), checkpoint.clone());
        self.blocking(move |shared| {
            let keep = || {
                shared.dead_letters.keep(&fence.sink, &letters, limit)?;
                crash_point("journal.dead_letter_before_checkpoint");
                Ok(())
            };
            shared.checkpoints.commit(&fence, &checkpoint, shared.durable(), keep)?;
            trim_after_commit(shared);
            Ok(())
        })
        .await
    }

    async fn keep_refused(&self, letter: DeadLetter, limit: u64) -> Result<(), Error> {
        if self.shared.is_closed() {
            return Err(closed());
        }
        self.shared.dead_letters.keep_refused(letter, limit).await
    }

    async fn dead_letters(
        &self,
        selection: &Selection,
        after: Option<&DeadLetterId>,
        limit: usize,
    ) -> Result<DeadLetterPage, Error> {
        let (selection, after) = (selection.clone(), after.cloned());
        self.blocking(move |shared| shared.dead_letters.page(&selection, after.as_ref(), limit)).await
    }

    async fn dead_letter_of(&self, id: &DeadLetterId) -> Result<Option<DeadLetter>, Error> {
        let id = id.clone();
        self.blocking(move |shared| shared.dead_letters.get(&id)).await
    }

    async fn update_dead_letters(&self, letters: Vec<DeadLetter>) -> Result<u64, Error> {
        self.blocking(move |shared| shared.dead_letters.update(letters)).await
    }

    async fn purge_dead_letters(&self, ids: &[DeadLetterId]) -> Result<u64, Error> {
        let ids = ids.to_vec();
        self.blocking(move |shared| shared.dead_letters.purge(&ids)).await
    }

    fn dead_letters_len(&self, sink: &SinkName) -> u64 {
        self.shared.dead_letters.len(sink)
    }

    async fn backlog(&self, sink: &SinkName) -> Option<Backlog> {
        let place = self.shared.checkpoints.find(sink).filter(|_| sink.as_str() != INGRESS)?;
        let checkpoint = place.checkpoint();
        let behind = self.shared.catalog.entries_after(checkpoint.low.0);
        let pending = behind.saturating_sub(checkpoint.settled_above.len() as u64);
        if pending == 0 {
            return Some(Backlog::default());
        }
        let oldest = checkpoint
            .settled_above
            .iter()
            .fold(checkpoint.low.next(), |oldest, settled| if *settled == oldest { oldest.next() } else { oldest });
        let known = lock(&place.oldest).filter(|(offset, _)| *offset == oldest).map(|(_, at)| at);
        if let Some(at) = known {
            return Some(Backlog { pending, oldest_received_at: Some(at) });
        }
        let limits = ReadLimits { events_max: 1, bytes_max: 1 };
        let page = self.read(0, Offset(oldest.0 - 1), limits).await.unwrap_or_default();
        let at = page.items.first().map(|item| item.entry().push.received_at);
        if let Some(at) = at {
            *lock(&place.oldest) = Some((oldest, at));
        }
        Some(Backlog { pending, oldest_received_at: at })
    }

    fn health(&self) -> Health {
        let trouble = match self.shared.is_closed() {
            true => Some("the journal is closed".to_owned()),
            false => lock(&self.shared.trouble).clone(),
        };
        Health {
            trouble,
            bytes: self.shared.catalog.bytes() + self.shared.dead_letters.bytes(),
            size_max: self.shared.options.size_max,
            entries: self.shared.catalog.entries(),
        }
    }

    async fn close(&self) {
        let begun = self.shared.is_closed.swap(true, Ordering::AcqRel);
        self.queue.close();
        let threads = std::mem::take(&mut *lock(&self.threads));
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().all(|thread| thread.join().is_ok()));
        if !joined.await.unwrap_or(false) {
            tracing::error!("a thread of the journal panicked");
        }
        if !begun {
            *lock(&self.shared.lock) = None;
        }
    }
}

fn closed() -> Error {
    Error::Unavailable { cause: "the journal is closed".to_owned() }
}

/// Space that cannot be given back is no failure of the commit; it is tried again with the next one.
fn trim_after_commit(shared: &Shared) {
    if let Err(error) = shared.trim() {
        tracing::warn!(%error, "space could not be given back; tried again later");
    }
}
