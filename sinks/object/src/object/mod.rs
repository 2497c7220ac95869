//! The kind `object`: events as objects in S3, COS or on a disk, the long-term archive.
//!
//! It promises that `Delivered` means that the store confirmed every object of the batch and that lengths and checksums agree. A batch
//! falls into objects by the key's template; which events are in which object, its key and its bytes follow from the batch alone, and
//! its pipeline repeats a batch with the same events ([`Needs::stable_batches`]), so that a repetition overwrites the same objects with
//! the same bytes and leaves nothing twice. A batch is answered as a whole, since it is repeated as a whole.
//!
//! It overwrites no object of other events: each says in its metadata which it holds, and where another journal's lies under the key
//! (offsets are counted per journal) the new one goes beside it.
//!
//! It refuses to judge events: it takes each, and what goes wrong is the store's trouble. It holds no second copy of a batch: events
//! stream through an encoder into parts.
//!
//! ```text
//! batch ─key─▶ groups ─one after the other─▶ encoder ─pieces─▶ Upload ─▶ store
//! ```

mod settings;
mod key;
mod encode;
mod ndjson;
pub mod columns;
mod rows;
mod parquet;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sink_api::{Batch, BuildError, Context, Fault, Needs, Outcome, Problem, Sink, SinkKind, Unavailable};

use self::encode::{Encoder, Layout};
use self::key::{Group, Template};
pub use self::settings::{Compression, FileFormat, Settings};
use crate::store::{self, Description, Store, Upload};

/// The name of the metadata that say which events an object holds.
const IDS: &str = "event-ids";

/// So many events are encoded at a stretch, on a thread where nobody waits for an acknowledgement.
const ENCODED_AT_A_STRETCH: usize = 256;

/// The kind `object`.
pub struct Object;

impl SinkKind for Object {
    const KIND: &'static str = "object";
    type Settings = Settings;

    fn check(settings: &Settings, context: &Context) -> Vec<Problem> {
        settings.problems(context)
    }

    fn build(settings: Settings, context: Context) -> Result<Arc<dyn Sink>, BuildError> {
        let template = Template::parse(&settings.key).map_err(|wrong| BuildError(format!("key {wrong}")))?;
        let layout = Layout::of(&settings, context.format);
        Ok(Arc::new(ObjectSink { store: Store::new(&settings.store())?, template, layout }))
    }
}

struct ObjectSink {
    store: Store,
    template: Template,
    layout: Layout,
}

/// What lies under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    /// The very events that are to be written.
    Ours,
    /// Events of another journal, or what says nothing of its events.
    Others,
}

/// An object was not written.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Encoder(#[from] encode::Error),
}

impl ObjectSink {
    async fn write(&self, group: &Group<'_>) -> Result<(), Error> {
        let extension = self.layout.extension();
        let mut key = format!("{}{extension}", group.key);
        let mut found = self.look(&key, group).await?;
        if found == Found::Others {
            let beside = format!("{}-{}{extension}", group.key, group.ids);
            tracing::warn!(key, beside, "an object of another journal lies under this key; written beside it");
            (key, found) = (beside, Found::Ours);
        }
        let description = Description {
            content_type: self.layout.content_type(),
            metadata: vec![(IDS.to_owned(), group.ids.clone())],
            is_new: found == Found::Nothing,
        };
        let mut upload = self.store.begin(&key, &description).await?;
        let written = match self.stream(group, &mut upload).await {
            // Looked at again, for stores that cannot see to it themselves.
            Ok(()) if description.is_new && self.look(&key, group).await? == Found::Others => {
                Err(store::Error::Taken.into())
            }
            written => written,
        };
        match written {
            Ok(()) => Ok(upload.finish().await.map(drop)?),
            Err(error) => {
                upload.abandon().await;
                Err(error)
            }
        }
    }

    async fn look(&self, key: &str, group: &Group<'_>) -> Result<Found, store::Error> {
        Ok(match self.store.describe(key).await? {
            None => Found::Nothing,
            Some(object) if object.value(IDS) == Some(&group.ids) => Found::Ours,
            Some(_) => Found::Others,
        })
    }

    async fn stream(&self, group: &Group<'_>, upload: &mut Upload<'_>) -> Result<(), Error> {
        let action = group.events.first().map_or("", |entry| &entry.event.action);
        let mut encoder = self.layout.encoder(action)?;
        for stretch in group.events.chunks(ENCODED_AT_A_STRETCH) {
            let events: Vec<_> = stretch.iter().map(|entry| Arc::clone(&entry.event)).collect();
            let (returned, piece) = computed(move || {
                for event in &events {
                    encoder.add(event)?;
                }
                let piece = encoder.take();
                Ok((encoder, piece))
            })
            .await?;
            encoder = returned;
            write_piece(upload, piece).await?;
        }
        let last = computed(move || Encoder::finish(encoder)).await?;
        Ok(write_piece(upload, last).await?)
    }

    fn unavailable(&self, error: Error) -> Outcome {
        match error {
            Error::Store(error) => {
                let after = error.after();
                Outcome::Unavailable { fault: self.store.fault(error), after }
            }
            Error::Encoder(error) => Outcome::unavailable(Fault::new("encoder", error.to_string())),
        }
    }
}

#[async_trait]
impl Sink for ObjectSink {
    async fn deliver(&self, batch: &Batch) -> Vec<Outcome> {
        let count = batch.events.len();
        for group in self.template.groups(batch) {
            if let Err(error) = self.write(&group).await {
                return vec![self.unavailable(error); count];
            }
        }
        vec![Outcome::delivered(); count]
    }

    async fn probe(&self) -> Result<(), Unavailable> {
        self.store.probe().await.map_err(|error| self.store.fault(error))
    }

    fn needs(&self) -> Needs {
        Needs { stable_batches: true, ..Needs::default() }
    }
}

async fn write_piece(upload: &mut Upload<'_>, piece: Bytes) -> Result<(), store::Error> {
    if piece.is_empty() { Ok(()) } else { upload.write(piece).await }
}

/// Runs a computation away from the threads of the runtime. One that nobody waits for any more ends soon and touches nothing.
async fn computed<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, encode::Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => Ok(answer?),
        Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
        Err(_) => Err(Error::Store(store::Error::Stopping)),
    }
}
