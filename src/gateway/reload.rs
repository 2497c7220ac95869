//! Takes a new config over while the gateway runs: on SIGHUP, on request, and when a file has changed.
//!
//! Files are compared by their content every [`LOOK_EVERY`], so that a swapped symlink counts, and taken when two looks in a row
//! find the same, so that one that is just being written does not. A config with a fault is refused as a whole and said in one
//! ERROR line; the earlier one stays. What cannot change while the gateway runs is named in a WARN line and left as it was.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokio::signal::unix::Signal;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::control::{Command, ForgetError, InEffect, ReloadError, Reloaded};
use super::origin::{ConfigOrigin, Digest, Files, Reading};
use super::sinks::Sinks;
use super::warn_of_forgotten;
use crate::admin::auth::Guard;
use crate::config::Config;
use crate::ingress::Sources;
use crate::journal::Journal;
use crate::logging::FilterHandle;
use crate::metrics::{Metrics, SourceMetrics};
use crate::names::{SinkName, SourceName};

/// Two looks fit well into the ten seconds within which a change is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// The keys, or tables, that take effect at once; all others need a restart.
const AT_ONCE: [&str; 5] = ["sources", "sinks", "drain", "admin.token", "log.filter"];

/// The task `control`: the only one that changes what runs.
pub(super) struct Reloader {
    pub(super) origin: ConfigOrigin,
    pub(super) files: Files,
    pub(super) in_effect: Arc<ArcSwap<InEffect>>,
    pub(super) sinks: Arc<Mutex<Sinks>>,
    pub(super) sources: Sources,
    pub(super) source_views: Arc<ArcSwap<Vec<(SourceName, SourceMetrics)>>>,
    pub(super) guard: Arc<Guard>,
    pub(super) log: FilterHandle,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) metrics: Metrics,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) hangup: Signal,
}

impl Reloader {
    /// Runs until `stop`; what was begun is finished first.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = self.files.seen();
        let mut candidate: Option<Vec<Digest>> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(command) = self.commands.recv() => match command {
                    // A caller that has gone away needs no answer.
                    Command::Reload(answer) => drop(answer.send(self.reload("request", &mut seen).await)),
                    Command::Forget(sink, answer) => drop(answer.send(self.forget(&sink).await)),
                },
                Some(()) = self.hangup.recv() => drop(self.reload("signal", &mut seen).await),
                _ = looks.tick() => {
                    let now = self.look().await;
                    if now == seen {
                        candidate = None;
                    } else if candidate.as_ref() == Some(&now) {
                        candidate = None;
                        drop(self.reload("file", &mut seen).await);
                    } else {
                        candidate = Some(now);
                    }
                }
            }
        }
    }

    async fn look(&self) -> Vec<Digest> {
        let files = self.files.clone();
        tokio::task::spawn_blocking(move || files.look()).await.expect("reading does not panic")
    }

    /// `cause` is what asked for it. `seen` becomes what the files held that were read, so that only a later change is news.
    async fn reload(&mut self, cause: &str, seen: &mut Vec<Digest>) -> Result<Reloaded, ReloadError> {
        let before = self.look().await;
        let taken = self.take_over().await;
        *seen = if taken.is_ok() { self.files.seen() } else { before };
        match &taken {
            Ok(Reloaded { added, changed, removed, needs_restart }) => {
                tracing::info!(cause, ?added, ?changed, ?removed, "config reloaded");
                if !needs_restart.is_empty() {
                    tracing::warn!(keys = needs_restart.join(" "), "these keys take effect with the next start alone");
                }
            }
            Err(error) => tracing::error!(cause, %error, "config not reloaded, the earlier one stays"),
        }
        taken
    }

    async fn take_over(&mut self) -> Result<Reloaded, ReloadError> {
        let origin = self.origin.clone();
        let read = tokio::task::spawn_blocking(move || origin.read()).await.expect("reading does not panic");
        let refused = |problem: String| ReloadError::Refused(vec![problem]);
        let mut reading =
            read.map_err(|problems| ReloadError::Refused(problems.iter().map(ToString::to_string).collect()))?;
        let token = token_of(reading.config()).map_err(|error| refused(format!("admin.token: {error}")))?;
        let earlier = self.in_effect.load_full();

        let sinks = Arc::clone(&self.sinks);
        let mut sinks = sinks.lock().await;
        let prepared = sinks.prepare(&mut reading).await.map_err(|error| refused(error.to_string()))?;
        // New sinks are registered by now: a push to a new source misses none of them.
        self.sources.replace(&reading.config().sources).map_err(|error| refused(error.to_string()))?;
        // From here on nothing fails.
        self.source_views.store(Arc::new(views_of(reading.config(), &self.metrics)));
        self.guard.replace(token.as_deref());
        let filter = &reading.config().log.filter;
        if *filter != earlier.config.log.filter
            && let Err(error) = self.log.set(filter)
        {
            tracing::warn!(%error, "the log filter stays");
        }
        let needs_restart = differing(&earlier.effective, &reading.effective);
        let deadline = Instant::now() + earlier.config.drain.deadline.0;
        self.in_effect.store(Arc::new(merged(&earlier, &reading)));
        self.files = reading.files;
        let changes = sinks.switch(prepared, deadline).await;
        if !changes.removed.is_empty() {
            warn_of_forgotten(&self.in_effect.load().config, &*self.journal).await;
        }
        Ok(Reloaded { added: changes.added, changed: changes.changed, removed: changes.removed, needs_restart })
    }

    async fn forget(&self, sink: &SinkName) -> Result<(), ForgetError> {
        if self.in_effect.load().config.sinks.contains_key(sink) {
            return Err(ForgetError::Configured);
        }
        if !self.journal.sinks().await?.contains(sink) {
            return Err(ForgetError::Unknown);
        }
        self.journal.forget_sink(sink).await?;
        tracing::info!(%sink, "sink forgotten by an operator");
        Ok(())
    }
}

/// The admin token, resolved.
pub(super) fn token_of(config: &Config) -> Result<Option<String>, sink_api::settings::SecretError> {
    let token = config.admin.token.as_ref().map(|token| token.resolve()).transpose()?;
    Ok(token.map(|token| token.expose_secret().to_owned()))
}

pub(super) fn views_of(config: &Config, metrics: &Metrics) -> Vec<(SourceName, SourceMetrics)> {
    config.sources.keys().map(|name| (name.clone(), metrics.source(name))).collect()
}

/// The earlier config with all that takes effect at once.
fn merged(earlier: &InEffect, reading: &Reading) -> InEffect {
    let (mut config, new) = (earlier.config.clone(), reading.config());
    config.sources = new.sources.clone();
    config.sinks = new.sinks.clone();
    config.drain = new.drain.clone();
    config.admin.token = new.admin.token.clone();
    config.log.filter = new.log.filter.clone();
    let mut effective = earlier.effective.clone();
    for dotted in AT_ONCE {
        let (table, key) = dotted.rsplit_once('.').unwrap_or(("", dotted));
        let at = |value: &Value| if table.is_empty() { Some(value.clone()) } else { value.get(table).cloned() };
        let value = at(&reading.effective).and_then(|value| value.get(key).cloned());
        let target = if table.is_empty() { Some(&mut effective) } else { effective.get_mut(table) };
        let Some(target) = target.and_then(Value::as_object_mut) else { continue };
        match value {
            Some(value) => target.insert(key.to_owned(), value),
            None => target.remove(key),
        };
    }
    InEffect { config, effective }
}

/// The dotted paths that differ and need a restart. Masked values that differ in secret only are not seen.
fn differing(earlier: &Value, later: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    compare(earlier, later, "", &mut paths);
    let is_at_once =
        |path: &str| AT_ONCE.iter().any(|at_once| path == *at_once || path.starts_with(&format!("{at_once}.")));
    paths.retain(|path| !is_at_once(path));
    paths
}

fn compare(earlier: &Value, later: &Value, at: &str, paths: &mut Vec<String>) {
    if earlier == later {
        return;
    }
    let (Some(a), Some(b)) = (earlier.as_object(), later.as_object()) else {
        paths.push(at.to_owned());
        return;
    };
    let added = b.keys().filter(|key| !a.contains_key(*key));
    for key in a.keys().chain(added) {
        let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        compare(a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), &path, paths);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_that_need_a_restart_are_named_and_others_not() {
        let earlier = json!({"ingress": {"listen": "a", "http2": false}, "sinks": {"x": 1}, "admin": {"listen": "b"}, "log": {"filter": "info", "format": "auto"}});
        let later = json!({"ingress": {"listen": "c", "http2": false, "tls": {"cert_file": "d"}}, "sinks": {"y": 1},
            "admin": {"listen": "b", "token": "***"}, "log": {"filter": "debug", "format": "json"}});
        assert_eq!(differing(&earlier, &later), ["ingress.listen", "ingress.tls", "log.format"]);
        assert!(differing(&earlier, &earlier).is_empty());
    }
}
