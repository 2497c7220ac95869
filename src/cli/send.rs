//! `trunkline send`: sends pushes as the contact centre does, for trying a receiver out and for measuring it.
//!
//! Promises: bodies go out byte for byte (unless `--sessions` is given), a push keeps its id on every retry, and what is reported as
//! accepted was acknowledged with the number 0. Refuses nothing for its content, so that bad bodies can be tried too.

mod body;
mod load;
mod oauth;
mod options;
mod progress;
mod summary;
mod vendor;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use self::body::{Body, BodyError};
use self::load::Load;
pub use self::options::SendArgs;
use self::options::UsageError;
use self::progress::Progress;
use self::summary::{Log, Summary, Tally};
use self::vendor::Vendor;
use super::Exit;
use super::output::{print_json, print_line, wants_json};

/// How often the progress bar moves when no outcome comes.
const PROGRESS_TICK: Duration = Duration::from_millis(100);

/// Why nothing could be sent, or not to the end.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Usage(#[from] UsageError),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("the log {} cannot be written: {error}", path.display())]
    Log { path: PathBuf, error: io::Error },
}

impl SendError {
    fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::Body(_) => Exit::Usage,
            Self::Log { .. } => Exit::Failed,
        }
    }
}

/// Sends, and ends with counts and latency percentiles on standard output; everything else is said on standard error.
pub async fn run(args: SendArgs, json: bool) -> Exit {
    let sent = match send(&args).await {
        Ok(sent) => sent,
        Err(error) => {
            eprintln!("trunkline send: {error}");
            return error.exit();
        }
    };
    for (count, reason) in sent.tally.reasons() {
        eprintln!("{count} failed: {reason}");
    }
    show(&sent.tally.summary(sent.elapsed), wants_json(json));
    sent.exit()
}

/// What was sent until the end, or until Ctrl-C.
struct Sent {
    tally: Tally,
    elapsed: Duration,
    whole: bool,
}

impl Sent {
    fn exit(&self) -> Exit {
        if self.tally.nothing_answered() {
            Exit::NotReachable
        } else if self.whole && self.tally.failed() == 0 {
            Exit::Fine
        } else {
            Exit::Failed
        }
    }
}

async fn send(args: &SendArgs) -> Result<Sent, SendError> {
    let vendor = args.vendor()?;
    let load = args.load(body(args)?);
    let log_error = |error| SendError::Log { path: args.log.clone().unwrap_or_default(), error };
    let log = args.log.as_deref().map(Log::open).transpose().map_err(log_error)?;
    send_all(vendor, load, log).await.map_err(log_error)
}

fn body(args: &SendArgs) -> Result<Body, BodyError> {
    let body = Body::read(args.file.as_deref())?;
    if let Some(warning) = body.warning() {
        eprintln!("warning: {warning}; it is sent nonetheless");
    }
    match args.sessions {
        Some(sessions) => body.spread(sessions),
        None => Ok(body),
    }
}

/// Fails only where the log cannot be written.
async fn send_all(vendor: Vendor, load: Load, mut log: Option<Log>) -> io::Result<Sent> {
    let count = load.count;
    let stop = CancellationToken::new();
    // Whatever ends this function ends the senders.
    let _stop_at_the_end = stop.clone().drop_guard();
    let mut tally = Tally::new();
    let mut progress = Progress::new(count);
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let mut tick = tokio::time::interval(PROGRESS_TICK);
    let started = Instant::now();
    let mut outcomes = load::start(vendor, load, stop.clone());
    loop {
        tokio::select! {
            outcome = outcomes.recv() => {
                let Some(outcome) = outcome else { break };
                tally.count(&outcome);
                if let Some(log) = &mut log {
                    log.write(&outcome)?;
                }
            }
            // An error here means that signals cannot be caught: then the process ends by itself.
            Ok(()) = &mut interrupt, if !stop.is_cancelled() => stop.cancel(),
            _ = tick.tick() => progress.show(&tally),
        }
    }
    progress.clear();
    Ok(Sent { elapsed: started.elapsed(), whole: tally.sent() == count, tally })
}

fn show(summary: &Summary, json: bool) {
    if json {
        print_json(summary);
    } else {
        for table in summary.tables() {
            print_line(&table);
        }
    }
}
