//! `trunkline run`: the gateway in the foreground, until a signal.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Exit, Global};
use crate::gateway::{ConfigOrigin, Gateway, StartError};
use crate::journal::redis;
use crate::logging;

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

pub(super) async fn run(global: &Global) -> Exit {
    let origin = ConfigOrigin { file: global.config.clone(), overrides: global.set.clone() };
    let reading = match origin.read() {
        Ok(reading) => reading,
        Err(problems) => {
            eprintln!("{problems}");
            return Exit::BadConfig;
        }
    };
    for warning in reading.warnings() {
        eprintln!("warning: {warning}");
    }
    let logging = match logging::init(&reading.config().log) {
        Ok(logging) => logging,
        Err(error) => {
            eprintln!("trunkline: {error}");
            return Exit::BadConfig;
        }
    };
    // Before anything is opened, so that an early signal is not lost.
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "signals cannot be handled");
            return Exit::Failed;
        }
    };
    let mut gateway = match Gateway::start(origin, reading, logging.filter.clone()).await {
        Ok(gateway) => gateway,
        Err(error) => return not_started(&error),
    };
    tokio::select! {
        () = signals.next() => {}
        () = gateway.failed() => return Exit::Failed,
    }
    tokio::select! {
        () = gateway.stop() => Exit::Fine,
        () = signals.next() => {
            tracing::warn!("second signal: stopping at once; what is in hand is delivered after the next start");
            Exit::Failed
        }
    }
}

/// Says why on stderr too, where the log may be for machines.
fn not_started(error: &StartError) -> Exit {
    tracing::error!(%error, "the gateway cannot start");
    eprintln!("trunkline: {error}");
    match error {
        StartError::Sink { .. }
        | StartError::RedisJournal(redis::OpenError::Weaker(_) | redis::OpenError::Shards { .. }) => Exit::BadConfig,
        StartError::RedisJournal(_) => Exit::NotReachable,
        _ => Exit::Failed,
    }
}
