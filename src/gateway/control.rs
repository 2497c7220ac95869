//! The handle by which the admin listener changes the running gateway.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::admin::SinkView;
use crate::config::Config;
use crate::journal::{self, Journal};
use crate::logging::{FilterError, FilterHandle};
use crate::names::SinkName;

/// Commands that wait; a caller waits for room.
pub(super) const COMMANDS_MAX: usize = 16;

/// What a good reload changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Reloaded {
    pub added: Vec<SinkName>,
    pub changed: Vec<SinkName>,
    pub removed: Vec<SinkName>,
    /// Keys that changed and take effect with the next start alone.
    pub needs_restart: Vec<String>,
}

/// The config in effect stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Everything that is wrong with the new one.
    #[error("the config is refused: {}", .0.join(" | "))]
    Refused(Vec<String>),
    #[error("the gateway is stopping")]
    Stopping,
}

#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    #[error("this sink is in the config; remove it there first")]
    Configured,
    #[error("the journal knows no sink of this name")]
    Unknown,
    #[error(transparent)]
    Journal(#[from] journal::Error),
    #[error("the gateway is stopping")]
    Stopping,
}

#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    #[error("there is no sink of this name in the config")]
    Unknown,
    #[error(transparent)]
    Journal(#[from] journal::Error),
}

/// What is done one at a time, by the task `control`.
pub(super) enum Command {
    Reload(oneshot::Sender<Result<Reloaded, ReloadError>>),
    Forget(SinkName, oneshot::Sender<Result<(), ForgetError>>),
}

/// The config that the gateway runs with: what needs a restart stays as it was at the start.
pub(super) struct InEffect {
    pub(super) config: Config,
    /// Masked.
    pub(super) effective: Value,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Control {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) sinks: Arc<ArcSwap<Vec<SinkView>>>,
    pub(super) in_effect: Arc<ArcSwap<InEffect>>,
    pub(super) log: FilterHandle,
}

impl Control {
    /// Reads the config again. It is done even when the caller does not wait for it.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Reload(answer)).await.map_err(|_| ReloadError::Stopping)?;
        answered.await.unwrap_or(Err(ReloadError::Stopping))
    }

    /// Gives up the place and the dead letters of a sink that is no longer in the config.
    pub async fn forget(&self, sink: SinkName) -> Result<(), ForgetError> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Forget(sink, answer)).await.map_err(|_| ForgetError::Stopping)?;
        answered.await.unwrap_or(Err(ForgetError::Stopping))
    }

    /// Pauses or resumes a sink, restarts included.
    pub async fn set_paused(&self, sink: &SinkName, paused: bool) -> Result<(), PauseError> {
        let views = self.sinks.load_full();
        let view = views.iter().find(|view| view.name == *sink).ok_or(PauseError::Unknown)?;
        self.journal.set_paused(sink, paused).await?;
        if paused {
            view.status.pause();
        } else {
            view.status.resume();
        }
        tracing::info!(%sink, paused, "sink paused or resumed by an operator");
        Ok(())
    }

    /// Takes effect at once, until a reload with another `log.filter`, or a restart.
    pub fn set_log_filter(&self, filter: &str) -> Result<(), FilterError> {
        self.log.set(filter)?;
        tracing::info!(filter, "log filter set by an operator");
        Ok(())
    }

    /// The whole config in effect, masked.
    pub fn effective(&self) -> Value {
        self.in_effect.load().effective.clone()
    }
}
