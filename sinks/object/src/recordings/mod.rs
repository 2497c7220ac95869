//! The kind `recordings`: brings home every recording that a `record` or `voicemail` event names.
//!
//! It promises that `Delivered` means: the whole recording lies in the store, its length and SHA-256 are those of the bytes that
//! were fetched, and a `recording.archived` push follows. An event that is delivered again finds the object and repeats the same
//! push, without fetching. It refuses hosts that are not listed, addresses that are not public, links that ended, pages of errors, and
//! to hold a recording in memory.
//!
//! ```text
//! event ─key─▶ there already? ──yes──────────────────────────────────────────┐
//!                  └─no─▶ fetch ─▶ spool ─▶ what is it? ─▶ store ─▶ compare ─┴▶ recording.archived
//! ```
//!
//! In reading order: what can be set (`settings`, `hosts`), what is asked for (`named`, `key`), how it is fetched (`fetch`, `spool`)
//! and looked at (`media`, `mp3`), how it is kept (`keep`), and what goes wrong (`error`).

mod settings;
mod hosts;
mod named;
mod key;
mod fetch;
mod spool;
mod media;
mod mp3;
mod keep;
mod error;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sink_api::http::{Lookup, System};
use sink_api::lanes::{one_by_one, waits};
use sink_api::{
    Archive, Archived, Batch, BuildError, Context, DerivedPush, Event, Outcome, Problem, Sink, SinkKind, Unavailable,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::error::{Error, of_store};
use self::fetch::{Fetched, Fetcher};
use self::keep::Facts;
use self::key::Template;
use self::named::Named;
pub use self::settings::RecordingsSettings;
use self::spool::Spool;
use crate::store::Store;

/// The action of the push that follows.
const ARCHIVED: &str = "recording.archived";

/// Sessions of one batch that are under way at the same time; most of them wait for `fetches_max`.
const LANES_MAX: usize = 16;

/// No further event of a batch is begun after this time: it goes back to the pipeline, so that what is done is settled.
const CALL_TIME_MAX: Duration = Duration::from_secs(60);

/// What an event archive in the same bucket ends its keys with.
const EVENT_ARCHIVES: [&str; 4] = [".ndjson", ".ndjson.gz", ".ndjson.zst", ".parquet"];

/// The kind `recordings`.
pub struct Recordings;

impl SinkKind for Recordings {
    const KIND: &'static str = "recordings";
    type Settings = RecordingsSettings;

    fn check(settings: &RecordingsSettings, _context: &Context) -> Vec<Problem> {
        settings.problems()
    }

    fn build(settings: RecordingsSettings, _context: Context) -> Result<Arc<dyn Sink>, BuildError> {
        Ok(Arc::new(RecordingsSink::new(&settings, Arc::new(System))?))
    }
}

struct RecordingsSink {
    template: Template,
    fetcher: Fetcher,
    spool_dir: PathBuf,
    /// One for each recording under way: what bounds memory and temporary files.
    permits: Semaphore,
    store: Store,
}

impl RecordingsSink {
    fn new(settings: &RecordingsSettings, lookup: Arc<dyn Lookup>) -> Result<Self, BuildError> {
        Ok(Self {
            template: Template::parse(&settings.key).map_err(|wrong| BuildError(format!("key: {wrong}")))?,
            fetcher: Fetcher::new(settings, lookup)?,
            spool_dir: settings.spool_dir(),
            permits: Semaphore::new(settings.fetches_max),
            store: Store::new(&settings.store).map_err(|error| BuildError(format!("store.{error}")))?,
        })
    }

    async fn deliver_one(&self, event: &Event) -> Outcome {
        if !named::names_a_recording(event) {
            return Outcome::delivered();
        }
        match self.bring_home(event).await {
            Ok(derived) => Outcome::Delivered { derived: Some(Box::new(derived)) },
            Err(outcome) => outcome,
        }
    }

    async fn bring_home(&self, event: &Event) -> Result<DerivedPush, Outcome> {
        let named = Named::in_event(event)?;
        let place = named.place(&self.template, event);
        let _permit = self.permits.acquire().await.map_err(|_| Error::Closed)?;
        let facts = match keep::find(&self.store, &place).await.map_err(|error| of_store(error, &self.store))? {
            Some(facts) => facts,
            None => {
                let fetched = self.fetch(&named).await?;
                keep::put(&self.store, &place, fetched, &named.metadata(event)).await?
            }
        };
        Ok(self.derived(event, named, facts))
    }

    /// From the first URL that leads somewhere. Where none does, the first one's reason counts.
    async fn fetch(&self, named: &Named) -> Result<Fetched, Error> {
        let mut refused = None;
        for url in named.urls() {
            let spool = Spool::create(&self.spool_dir).await?;
            match self.fetcher.fetch(url, spool).await {
                Err(error) if error.is_final() => drop(refused.get_or_insert(error)),
                ended => return ended,
            }
        }
        Err(refused.unwrap_or(Error::NoUrl))
    }

    fn derived(&self, event: &Event, named: Named, facts: Facts) -> DerivedPush {
        let body = named::ArchivedBody {
            sdk_app_id: named.sdk_app_id,
            session_id: named.session_id.as_deref(),
            recording_id: named.recording_id.as_deref(),
            bucket: self.store.bucket(),
            key: &facts.key,
            length_bytes: facts.length_bytes,
            duration_seconds: facts.duration_seconds,
            sha256: &facts.sha256,
            content_type: facts.content_type,
            event_id: &event.id,
        };
        let body = Bytes::from(serde_json::to_vec(&body).expect("strings and finite numbers always serialise"));
        DerivedPush {
            id_suffix: "archived".to_owned(),
            action: ARCHIVED.to_owned(),
            session_id: named.session_id,
            body,
        }
    }
}

#[async_trait]
impl Sink for RecordingsSink {
    async fn deliver(&self, batch: &Batch) -> Vec<Outcome> {
        let until = Instant::now() + CALL_TIME_MAX;
        let one = |event| async move { if Instant::now() < until { self.deliver_one(event).await } else { waits() } };
        one_by_one(&batch.events, LANES_MAX, one).await
    }

    async fn probe(&self) -> Result<(), Unavailable> {
        self.store.probe().await.map_err(|error| self.store.fault(error))
    }

    fn archive(&self) -> Option<&dyn Archive> {
        Some(self)
    }

    async fn close(&self) {
        self.fetcher.close();
        self.permits.close();
    }
}

#[async_trait]
impl Archive for RecordingsSink {
    fn place(&self, event: &Event) -> Option<String> {
        let named = Named::in_event(event).ok().filter(|_| named::names_a_recording(event))?;
        Some(named.place(&self.template, event))
    }

    async fn list(&self, each: &mut (dyn FnMut(Archived) + Send)) -> Result<(), Unavailable> {
        let fault = |error| self.store.fault(error);
        let mut list = self.store.list(self.template.folder()).await.map_err(fault)?;
        while let Some(listed) = list.next().await.map_err(fault)? {
            if EVENT_ARCHIVES.iter().any(|ending| listed.key.ends_with(ending)) {
                continue;
            }
            let place = keep::place_of(&listed.key).to_owned();
            each(Archived { place, key: listed.key, length_bytes: listed.length_bytes });
        }
        Ok(())
    }

    async fn event_of(&self, key: &str) -> Result<Option<String>, Unavailable> {
        keep::event_of(&self.store, key).await.map_err(|error| self.store.fault(error))
    }
}
