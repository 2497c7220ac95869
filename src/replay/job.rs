//! One replay: which letters, and how far it has come.

use std::collections::VecDeque;

use super::{Pace, Running};
use crate::journal::{DeadLetter, DeadLetterId, Error, Journal, Selection};

/// Ids looked up at a time.
const IDS_AT_ONCE: usize = 500;

/// The letters that are asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    Ids(Vec<DeadLetterId>),
    /// Those that match, up to `through`: what becomes a dead letter later was not asked for.
    Matching {
        selection: Selection,
        through: DeadLetterId,
    },
}

/// A replay on one shard of a sink, or of the ingress.
#[derive(Debug)]
pub struct Job {
    shard: u16,
    what: What,
    /// Ids that are looked up and not read yet.
    ahead: VecDeque<DeadLetterId>,
    after: Option<DeadLetterId>,
    is_listed: bool,
    pace: Pace,
    _running: Running,
}

/// The next letters of a job.
#[derive(Debug, Default)]
pub struct Stretch {
    /// By rising id, whole.
    pub letters: Vec<DeadLetter>,
    /// Letters that could not be read; they stay.
    pub unreadable: u64,
    /// Whether nothing follows.
    pub is_last: bool,
}

impl Job {
    pub(super) fn new(shard: u16, what: What, rate: Option<f64>, running: Running) -> Self {
        let mut job = Self {
            shard,
            what,
            ahead: VecDeque::new(),
            after: None,
            is_listed: false,
            pace: Pace::new(rate),
            _running: running,
        };
        if let What::Ids(ids) = &mut job.what {
            let mut ids = std::mem::take(ids);
            ids.sort_unstable();
            ids.dedup();
            ids.retain(|id| id.shard() == shard);
            job.ahead = ids.into();
            job.is_listed = true;
        }
        job
    }

    pub fn pace(&mut self) -> &mut Pace {
        &mut self.pace
    }

    /// Reads the next letters: at most `events_max`, and none after `bytes_max` bytes of payload are reached. What is gone meanwhile
    /// is passed over.
    ///
    /// # Errors
    /// The journal cannot list; the job can go on later.
    pub async fn next(&mut self, journal: &dyn Journal, events_max: usize, bytes_max: u64) -> Result<Stretch, Error> {
        let mut stretch = Stretch::default();
        let mut bytes = 0;
        while stretch.letters.len() < events_max.max(1) && bytes < bytes_max.max(1) {
            if self.ahead.is_empty() && !self.is_listed {
                self.list(journal).await?;
                continue;
            }
            let Some(id) = self.ahead.pop_front() else {
                stretch.is_last = true;
                break;
            };
            match journal.dead_letter_of(&id).await {
                Ok(Some(letter)) => {
                    bytes += letter.push.body.len() as u64;
                    stretch.letters.push(letter);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(letter = %id, %error, "dead letter not readable, not replayed");
                    stretch.unreadable += 1;
                }
            }
        }
        Ok(stretch)
    }

    async fn list(&mut self, journal: &dyn Journal) -> Result<(), Error> {
        let What::Matching { selection, through } = &self.what else { return Ok(()) };
        let page = journal.dead_letters(selection, self.after.as_ref(), IDS_AT_ONCE).await?;
        let is_past = |id: &DeadLetterId| id > through;
        self.is_listed = page.next.as_ref().is_none_or(is_past);
        self.after = page.next;
        let ids = page.heads.into_iter().map(|head| head.id);
        self.ahead.extend(ids.take_while(|id| !is_past(id)).filter(|id| id.shard() == self.shard));
        Ok(())
    }
}
