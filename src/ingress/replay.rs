//! Dead letters of the ingress, given to the journal again.
//!
//! A letter that parses now is accepted under its push id and removed once that is durable. One that does not, or whose id is in
//! the journal with another body, stays, and says so in its code and reason: within the dedup window one id has one body.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::handler::{code_of, conflict_reason};
use crate::journal::{AcceptError, Accepted, DeadLetter, Error, Journal};
use crate::replay::{Inbox, Job};
use crate::tccc;

/// Letters read at a time.
const LETTERS_AT_ONCE: usize = 100;
const BYTES_AT_ONCE: u64 = 4 << 20;

/// Between two tries of what the journal refused.
const JOURNAL_PAUSE: Duration = Duration::from_secs(1);

/// Takes replays of `ingress`, one letter after the other, so that pushes of one session keep their order.
pub struct Replayer {
    journal: Arc<dyn Journal>,
    inbox: Inbox,
}

impl Replayer {
    /// Pure.
    pub fn new(journal: Arc<dyn Journal>, inbox: Inbox) -> Self {
        Self { journal, inbox }
    }

    /// Runs until `stop`. What was asked for and not accepted by then is still a dead letter.
    pub async fn run(self, stop: CancellationToken) {
        let work = async {
            loop {
                let job = self.inbox.next().await;
                if let Err(error) = self.replay(job).await {
                    tracing::warn!(%error, "replay of the ingress ended, the journal cannot list");
                }
            }
        };
        // Stopped is the only way it ends.
        let _stopped: Option<()> = stop.run_until_cancelled(work).await;
    }

    async fn replay(&self, mut job: Job) -> Result<(), Error> {
        loop {
            let stretch = job.next(&*self.journal, LETTERS_AT_ONCE, BYTES_AT_ONCE).await?;
            self.inbox.failed(stretch.unreadable);
            for letter in stretch.letters {
                while let Err(at) = job.pace().leave(tokio::time::Instant::now()) {
                    tokio::time::sleep_until(at).await;
                }
                self.replay_one(letter).await;
            }
            if stretch.is_last {
                return Ok(());
            }
        }
    }

    async fn replay_one(&self, letter: DeadLetter) {
        match self.accept(&letter).await {
            Ok(()) => {
                self.until_saved(|| self.journal.purge_dead_letters(std::slice::from_ref(&letter.id))).await;
                self.inbox.delivered(1);
            }
            Err((code, reason)) => {
                let attempts = letter.attempts.saturating_add(1);
                let again = DeadLetter { code, reason, attempts, last_attempt_at: Timestamp::now(), ..letter };
                self.until_saved(|| self.journal.update_dead_letters(vec![again.clone()])).await;
                self.inbox.failed(1);
            }
        }
    }

    /// Accepts the push of a letter; code and reason where it cannot be.
    async fn accept(&self, letter: &DeadLetter) -> Result<(), (String, String)> {
        let head =
            tccc::read_head(&letter.push.body).map_err(|error| (code_of(&error).to_owned(), error.to_string()))?;
        let mut push = letter.push.clone();
        push.session = head.session;
        loop {
            match self.journal.accept(push.clone()).await {
                Ok(Accepted::New { .. } | Accepted::Duplicate { same_body: true, .. }) => return Ok(()),
                Ok(Accepted::Duplicate { same_body: false, offset }) => {
                    return Err(("conflict".to_owned(), conflict_reason(offset)));
                }
                Err(error @ AcceptError::TooLarge { .. }) => return Err(("too-large".to_owned(), error.to_string())),
                Err(error) => {
                    tracing::debug!(%error, "replayed push not accepted yet");
                    tokio::time::sleep(JOURNAL_PAUSE).await;
                }
            }
        }
    }

    async fn until_saved<F: Future<Output = Result<u64, Error>>>(&self, save: impl Fn() -> F) {
        while let Err(error) = save().await {
            tracing::warn!(%error, "fate of a replayed push not saved yet");
            tokio::time::sleep(JOURNAL_PAUSE).await;
        }
    }
}
