//! The sink `file`: events as NDJSON, one line each, in a file or on standard output.
//!
//! It promises that `Delivered` means fsynced, and that a reader meets whole lines only: a batch is appended in one piece, and what
//! a failure or a crash left half-written is cut or closed before anything follows it. It refuses to judge events: it takes each,
//! and what goes wrong is the file's trouble, so it answers `Delivered` or `Unavailable` for a batch as a whole.
//!
//! A system call on a disk cannot be taken back. So a call that is dropped, or that has run out of time, may still end its write
//! behind the caller's back; the next call waits for that before it writes anything of its own.

mod settings;
mod lines;
mod client;
mod rotation;
mod stdout;
mod error;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use sink_api::{Batch, BuildError, Context, Format, Outcome, Problem, Sink, SinkKind, Unavailable};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::client::LogFile;
use crate::error::Error;
pub use crate::settings::Settings;
use crate::stdout::Stdout;

/// A disk that has not answered within this time is away.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);

/// The kind `file`.
pub struct File;

impl SinkKind for File {
    const KIND: &'static str = "file";
    type Settings = Settings;

    fn check(settings: &Settings, _context: &Context) -> Vec<Problem> {
        settings.problems()
    }

    fn build(settings: Settings, context: Context) -> Result<Arc<dyn Sink>, BuildError> {
        let destination = if settings.is_stdout() {
            Destination::Stdout(Stdout::new())
        } else {
            Destination::File(LogFile::new(&settings))
        };
        Ok(Arc::new(FileSink { format: context.format, destination: Arc::new(Mutex::new(destination)) }))
    }
}

enum Destination {
    File(LogFile),
    Stdout(Stdout),
}

struct FileSink {
    format: Format,
    /// Locked by the thread that does the file work, not by the call that waits for it.
    destination: Arc<Mutex<Destination>>,
}

impl FileSink {
    async fn blocking<T, W>(&self, work: W) -> Result<T, Error>
    where
        T: Send + 'static,
        W: FnOnce(&mut Destination) -> Result<T, Error> + Send + 'static,
    {
        let answer = async {
            let mut destination = Arc::clone(&self.destination).lock_owned().await;
            tokio::task::spawn_blocking(move || work(&mut destination)).await
        };
        match timeout(ANSWER_TIME_MAX, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(failed)) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
            Ok(Err(_)) => Err(Error::Stopping),
            Err(_) => Err(Error::TimedOut { limit: ANSWER_TIME_MAX }),
        }
    }
}

#[async_trait]
impl Sink for FileSink {
    async fn deliver(&self, batch: &Batch) -> Vec<Outcome> {
        let count = batch.events.len();
        let lines = lines::of(batch, self.format);
        let written = self.blocking(move |destination| match destination {
            Destination::File(file) => file.append(&lines, Timestamp::now()),
            Destination::Stdout(stdout) => stdout.append(&lines),
        });
        match written.await {
            Ok(()) => vec![Outcome::delivered(); count],
            Err(error) => vec![Outcome::unavailable(error.into()); count],
        }
    }

    async fn probe(&self) -> Result<(), Unavailable> {
        let probed = self.blocking(|destination| match destination {
            Destination::File(file) => file.probe(),
            Destination::Stdout(stdout) => stdout.probe(),
        });
        Ok(probed.await?)
    }

    async fn close(&self) {
        let closed = self.blocking(|destination| {
            if let Destination::File(file) = destination {
                file.close();
            }
            Ok(())
        });
        // A disk that hangs keeps its handle until it answers; there is nobody left to tell.
        drop(closed.await);
    }
}
