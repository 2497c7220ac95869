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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::journal::disk::{DiskJournal, Options};
    use crate::journal::{DeadLetterId, Push, ReadLimits};
    use crate::metrics::Metrics;
    use crate::names::{INGRESS, Offset, SinkName};
    use crate::replay::{Replays, What};

    fn letter(id: &str, body: &'static str) -> DeadLetter {
        let at = Timestamp::from_second(1_787_000_000).unwrap();
        let push = Push {
            id: id.into(),
            source: "main".into(),
            action: "cdr".into(),
            version: None,
            session: None,
            received_at: at,
            traceparent: None,
            body: Bytes::from_static(body.as_bytes()),
        };
        let id = DeadLetterId { sink: INGRESS.into(), number: 0 };
        let (code, reason) = ("not-json".to_owned(), "it was not taken".to_owned());
        DeadLetter { id, push, code, reason, attempts: 0, first_attempt_at: at, last_attempt_at: at }
    }

    #[tokio::test]
    async fn what_parses_now_is_accepted_under_its_id_and_its_session_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            dir: dir.path().to_owned(),
            segment_size: 1 << 20,
            size_max: 8 << 20,
            reserve: 0,
            dedup_window: Duration::from_secs(3600),
        };
        let journal: Arc<dyn Journal> = DiskJournal::open(options, Metrics::new().journal.clone()).unwrap();
        let ingress = SinkName::from(INGRESS);
        for (id, body) in [("a", r#"{"SessionId":"s"}"#), ("b", "{"), ("c", r#"{"x":1}"#)] {
            journal.keep_refused(letter(id, body), 10).await.unwrap();
        }
        journal.accept(letter("c", r#"{"x":2}"#).push).await.unwrap();
        let (replays, stop) = (Replays::default(), CancellationToken::new());
        let running = tokio::spawn(Replayer::new(journal.clone(), replays.open(&ingress, 0)).run(stop.clone()));
        let ids = (1..=3).map(|number| DeadLetterId { sink: ingress.clone(), number }).collect();
        replays.ask(&ingress, &What::Ids(ids), None).unwrap();
        while replays.progress(&ingress).running > 0 {
            tokio::task::yield_now().await;
        }
        let page = journal.read(0, Offset::ZERO, ReadLimits { events_max: 9, bytes_max: 9999 }).await.unwrap();
        let accepted = &page.items.last().unwrap().entry().push;
        assert_eq!((accepted.id.as_str(), accepted.session.clone(), page.items.len()), ("a", Some("s".into()), 2));
        let left = journal.dead_letters(&Default::default(), None, 9).await.unwrap().heads;
        let left: Vec<_> = left.iter().map(|head| (head.push_id.as_str(), head.code.as_str(), head.attempts)).collect();
        assert_eq!(left, [("b", "not-json", 1), ("c", "conflict", 1)]);
        stop.cancel();
        running.await.unwrap();
        journal.close().await;
    }
}
