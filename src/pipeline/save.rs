//! Saving progress: checkpoints, and dead letters with the checkpoint that settles them. One save at a time; what happens meanwhile
//! is for the next.

use std::time::Duration;

use futures::FutureExt;
use sink_api::Fault;
use tokio::time::Instant;
use tracing::warn;

use super::letters::first_letters;
use super::run::{End, Run};
use super::sessions::Seq;
use crate::journal::{DeadLetter, Error};
use crate::names::Offset;

/// Between two looks whether full dead letters have room.
const LETTERS_RECHECK: Duration = Duration::from_secs(1);

/// A save that has ended.
pub(super) struct Written {
    /// The dead letters kept by it, by rising seq.
    seqs: Vec<Seq>,
    letters: Vec<DeadLetter>,
    /// The end of the announced batch that it holds.
    announced: Option<Offset>,
    result: Result<(), Error>,
}

impl Run<'_> {
    /// Begins to save what is due. Says when to look again.
    pub(super) fn launch_write(&mut self, now: Instant) -> Option<Instant> {
        if self.writing.is_some() {
            return None;
        }
        if let Some(at) = self.write_at.filter(|at| *at > now) {
            return Some(at);
        }
        let held_until = self.held_until.filter(|at| *at > now);
        if self.window.has_doomed() && held_until.is_none() {
            let kept = self.pipe.journal.dead_letters_len(&self.pipe.name);
            let room = self.pipe.dead_letters_max.saturating_sub(kept);
            let (seqs, letters) = first_letters(&self.window, &self.pipe.name, self.pipe.shard, room);
            self.begin_write(seqs, letters, now);
            return None;
        }
        match self.pace.due(now) {
            Some(at) if at <= now => {
                self.begin_write(Vec::new(), Vec::new(), now);
                held_until
            }
            due => due.into_iter().chain(held_until).min(),
        }
    }

    fn begin_write(&mut self, seqs: Vec<Seq>, letters: Vec<DeadLetter>, now: Instant) {
        let checkpoint = self.window.checkpoint(&seqs);
        let (journal, fence, limit) = (self.pipe.journal.clone(), self.fence.clone(), self.pipe.dead_letters_max);
        self.pace.began(now);
        let write = async move {
            let result = if letters.is_empty() {
                journal.commit(&fence, &checkpoint).await
            } else {
                journal.dead_letter(&fence, letters.clone(), limit, &checkpoint).await
            };
            Written { seqs, letters, announced: checkpoint.batch_end, result }
        };
        self.writing = Some(write.boxed());
    }

    pub(super) fn written(&mut self, written: Written, now: Instant) -> Option<End> {
        let Written { seqs, letters, announced, result } = written;
        match result {
            Ok(()) => {
                self.pace.saved();
                self.announced = announced;
                self.write_at = None;
                self.write_failures = 0;
                if !letters.is_empty() {
                    self.held_until = None;
                }
                for (seq, letter) in seqs.into_iter().zip(&letters) {
                    self.letter_log.tell(letter, now);
                    self.pipe.metrics.count_dead(&letter.push.action);
                    self.window.settle(seq);
                }
                self.count_letters();
                None
            }
            Err(Error::Fenced { .. }) => Some(End::Lost),
            Err(error @ Error::UnknownSink(_)) => {
                self.pipe.journal_failed(&error, 1);
                Some(End::Lost)
            }
            Err(error @ Error::DeadLettersFull { .. }) => {
                self.pace.failed();
                if self.held_until.is_none() {
                    warn!(sink = %self.pipe.name, shard = self.pipe.shard, %error, "sink paused");
                }
                self.pipe.status.failed(&Fault::new("dead-letters-full", error.to_string()));
                self.held_until = Some(now + LETTERS_RECHECK);
                None
            }
            Err(error @ Error::Unavailable { .. }) => {
                self.pace.failed();
                self.write_failures += 1;
                self.pipe.journal_failed(&error, self.write_failures);
                self.write_at = Some(now + self.pipe.journal_delay(self.write_failures, &mut self.rng));
                None
            }
        }
    }
}
