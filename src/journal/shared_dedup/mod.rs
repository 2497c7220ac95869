//! The disk journal of one replica, with push ids that all replicas know: the third mode, `dedup.backend = "redis"`.
//!
//! Every replica keeps its own journal; Redis keeps only marks. A mark is never the proof of a push, so losing marks costs second
//! copies under the same event id, never a push:
//!
//! ```text
//! claim id in Redis ─▶ append and sync here ─▶ confirm in Redis ─▶ answer
//!   │ confirmed by somebody: duplicate           │ fails: the claim is given up
//!   │ claimed by another: wait for its outcome   └ crash before the confirmation: the claim stays, nobody was answered
//!   └ Redis is away: the journal's own index alone decides
//! ```
//!
//! | what ends the process, or Redis | the sender's resend | copies |
//! |---|---|---|
//! | after the claim, before the sync | waits [`PATIENCE`], is accepted wherever it comes | 1 |
//! | after the sync, before the confirmation | at this replica: a duplicate; at another: accepted after [`PATIENCE`] | 1 or 2 |
//! | after the confirmation | a duplicate everywhere | 1 |
//! | Redis away or slow | at this replica: a duplicate; at another: accepted | 1 or 2 |
//! | Redis lost its marks | as if it had been away | 1 or 2 |
//!
//! It promises that `Duplicate` is said only of a push that some replica has synced, and that Redis never delays an answer by more
//! than a few [`marks::TIMEOUT`]s nor refuses one. All else is the disk journal's.

mod gate;
mod keys;
mod marks;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use prometheus::IntGauge;
use sink_api::Origin;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::marks::Options;
use self::marks::{Claim, Marks};
use super::redis::Task;
use super::{
    AcceptError, Accepted, Backlog, Checkpoint, DeadLetter, DeadLetterId, DeadLetterPage, Dedup, Error, Fence, Health,
    Journal, Lease, Page, Promises, Push, ReadLimits, Recall, Selection, Share, Start,
};
use crate::crash::crash_point;
use crate::names::{Offset, SinkName};

/// How long a push waits for what becomes of the same id at another replica. Beyond, a second copy is the lesser evil: the other
/// replica may be gone, and the sender resends only a few times.
const PATIENCE: Duration = Duration::from_millis(300);

/// Between two looks at an id that another replica has claimed.
const LOOK_EVERY: Duration = Duration::from_millis(15);

/// A journal with push ids shared through Redis.
pub struct SharedDedup {
    shared: Arc<Shared>,
}

struct Shared {
    journal: Arc<dyn Journal>,
    marks: Marks,
    closed: CancellationToken,
}

impl SharedDedup {
    /// Wraps `journal`, which must not be used beside it. Tries to connect once; a Redis that is away is no reason not to start.
    /// `degraded` is 1 while it is away. The task looks whether it is back, until the journal is closed.
    pub async fn connect(journal: Arc<dyn Journal>, options: Options, degraded: IntGauge) -> (Self, Task) {
        let (marks, closed) = (Marks::connect(options, degraded).await, CancellationToken::new());
        let (watching, until) = (marks.clone(), closed.clone());
        let watch = async move {
            until.run_until_cancelled(watching.watch()).await;
        };
        (Self { shared: Arc::new(Shared { journal, marks, closed }) }, ("push ids".to_owned(), watch.boxed()))
    }
}

impl Drop for SharedDedup {
    fn drop(&mut self) {
        self.shared.closed.cancel();
    }
}

impl Shared {
    async fn accept(&self, push: Push) -> Result<Accepted, AcceptError> {
        let mark = self.marks.of(&push);
        match self.claim(&mark).await {
            Claim::Ours => {}
            Claim::Confirmed { offset, same_body } => return Ok(Accepted::Duplicate { offset, same_body }),
            // The patience is over, or nothing can be known.
            Claim::Held | Claim::Unknown => {}
        }
        crash_point("dedup.after_claim");
        let accepted = match self.journal.accept(push).await {
            Ok(accepted) => accepted,
            Err(error) => {
                self.marks.give_up(&mark).await;
                return Err(error);
            }
        };
        crash_point("dedup.before_confirm");
        let (Accepted::New { offset } | Accepted::Duplicate { offset, .. }) = accepted;
        self.marks.confirm(&mark, offset).await;
        crash_point("dedup.after_confirm");
        Ok(accepted)
    }

    /// Claims the id, waiting a while for another replica's outcome; takes the claim over then.
    async fn claim(&self, mark: &marks::Mark) -> Claim {
        let give_up_at = Instant::now() + PATIENCE;
        loop {
            let take_over = Instant::now() >= give_up_at;
            match self.marks.claim(mark, take_over).await {
                Claim::Held if !take_over => tokio::time::sleep(LOOK_EVERY).await,
                claim => return claim,
            }
        }
    }
}

#[async_trait]
impl Journal for SharedDedup {
    fn backend(&self) -> &'static str {
        self.shared.journal.backend()
    }

    fn shards(&self) -> u16 {
        self.shared.journal.shards()
    }

    fn origin(&self) -> Origin {
        self.shared.journal.origin()
    }

    /// In a task of its own: a sender that goes away and resends elsewhere must find the outcome, not a claim that nobody ends.
    async fn accept(&self, push: Push) -> Result<Accepted, AcceptError> {
        let shared = Arc::clone(&self.shared);
        let accepting = tokio::spawn(async move { shared.accept(push).await });
        match accepting.await {
            Ok(outcome) => outcome,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(AcceptError::Unknown { cause: "the process ends".to_owned() }),
        }
    }

    /// Without Redis: an event and what follows from its delivery stay at one replica.
    async fn accept_derived(&self, push: Push) -> Result<Accepted, AcceptError> {
        self.shared.journal.accept_derived(push).await
    }

    async fn register_sink(&self, sink: &SinkName, start: Start) -> Result<(), Error> {
        self.shared.journal.register_sink(sink, start).await
    }

    async fn forget_sink(&self, sink: &SinkName) -> Result<(), Error> {
        self.shared.journal.forget_sink(sink).await
    }

    async fn sinks(&self) -> Result<Vec<SinkName>, Error> {
        self.shared.journal.sinks().await
    }

    async fn set_paused(&self, sink: &SinkName, paused: bool) -> Result<(), Error> {
        self.shared.journal.set_paused(sink, paused).await
    }

    async fn paused_sinks(&self) -> Result<Vec<SinkName>, Error> {
        self.shared.journal.paused_sinks().await
    }

    async fn lease(&self, sink: &SinkName, shard: u16) -> Result<Option<Lease>, Error> {
        self.shared.journal.lease(sink, shard).await
    }

    async fn release(&self, fence: &Fence) -> Result<(), Error> {
        self.shared.journal.release(fence).await
    }

    async fn recalled(&self, fence: &Fence) -> Recall {
        self.shared.journal.recalled(fence).await
    }

    async fn read(&self, shard: u16, after: Offset, limits: ReadLimits) -> Result<Page, Error> {
        self.shared.journal.read(shard, after, limits).await
    }

    async fn wait_past(&self, shard: u16, after: Offset, patience: Duration) {
        self.shared.journal.wait_past(shard, after, patience).await;
    }

    async fn commit(&self, fence: &Fence, checkpoint: &Checkpoint) -> Result<(), Error> {
        self.shared.journal.commit(fence, checkpoint).await
    }

    async fn dead_letter(
        &self,
        fence: &Fence,
        letters: Vec<DeadLetter>,
        limit: u64,
        checkpoint: &Checkpoint,
    ) -> Result<(), Error> {
        self.shared.journal.dead_letter(fence, letters, limit, checkpoint).await
    }

    async fn keep_refused(&self, letter: DeadLetter, limit: u64) -> Result<(), Error> {
        self.shared.journal.keep_refused(letter, limit).await
    }

    async fn dead_letters(
        &self,
        selection: &Selection,
        after: Option<&DeadLetterId>,
        limit: usize,
    ) -> Result<DeadLetterPage, Error> {
        self.shared.journal.dead_letters(selection, after, limit).await
    }

    async fn dead_letter_of(&self, id: &DeadLetterId) -> Result<Option<DeadLetter>, Error> {
        self.shared.journal.dead_letter_of(id).await
    }

    async fn update_dead_letters(&self, letters: Vec<DeadLetter>) -> Result<u64, Error> {
        self.shared.journal.update_dead_letters(letters).await
    }

    async fn purge_dead_letters(&self, ids: &[DeadLetterId]) -> Result<u64, Error> {
        self.shared.journal.purge_dead_letters(ids).await
    }

    fn dead_letters_len(&self, sink: &SinkName) -> u64 {
        self.shared.journal.dead_letters_len(sink)
    }

    async fn backlog(&self, sink: &SinkName) -> Option<Backlog> {
        self.shared.journal.backlog(sink).await
    }

    async fn shares(&self, sink: &SinkName) -> Result<Vec<Share>, Error> {
        self.shared.journal.shares(sink).await
    }

    async fn promises(&self) -> Option<Promises> {
        self.shared.journal.promises().await
    }

    fn health(&self) -> Health {
        self.shared.journal.health()
    }

    fn dedup(&self) -> Dedup {
        Dedup { backend: "redis", degraded: self.shared.marks.is_degraded() }
    }

    async fn close(&self) {
        self.shared.closed.cancel();
        self.shared.journal.close().await;
    }
}
