//! Log lines: text on a terminal, JSON elsewhere, on stderr, never in the way of the work.
//!
//! Lines go through a bounded buffer and a thread of their own; when the reader of stderr is slower than the gateway, lines are
//! dropped rather than pushes delayed. Stdout is left to the `file` sink and to what commands print.

use std::io::IsTerminal;

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config::model::{Log, LogFormat};

/// Lines that wait to be written.
const LINES_MAX: usize = 16_384;

/// Libraries whose lines are never written, whatever the filter says: `reqsign` shows credentials at `debug`, `lapin` whole messages
/// at `warn`. Their sinks tell their troubles.
const WITHHELD: [&str; 2] = ["reqsign", "lapin"];

/// Keeps the writing thread; dropping it writes what is left.
pub struct Logging {
    pub filter: FilterHandle,
    _writer: WorkerGuard,
}

/// Replaces the filter while the process runs; clones share it.
#[derive(Clone)]
pub struct FilterHandle(reload::Handle<EnvFilter, Registry>);

/// The filter stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("the filter is not understood: {0}; directives look like \"info\" or \"info,trunkline::ingress=debug\"")]
    Directives(#[from] tracing_subscriber::filter::ParseError),
    #[error("logging has ended: {0}")]
    Ended(#[from] reload::Error),
}

impl FilterHandle {
    /// Takes effect at once. `filter` is written as `log.filter` is.
    pub fn set(&self, filter: &str) -> Result<(), FilterError> {
        Ok(self.0.reload(EnvFilter::builder().parse(filter)?)?)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("log.filter is not understood: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("logging was set up before: {0}")]
    Twice(#[from] TryInitError),
}

/// Sets logging up for the whole process, panics included. Call it once.
pub fn init(settings: &Log) -> Result<Logging, Error> {
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(&settings.filter)?);
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_MAX)
        .lossy(true)
        .thread_name("log-writer")
        .finish(std::io::stderr());
    let text = match settings.format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    start(filter, writer, text)?;
    log_panics();
    Ok(Logging { filter: FilterHandle(handle), _writer: guard })
}

fn start(filter: reload::Layer<EnvFilter, Registry>, writer: NonBlocking, text: bool) -> Result<(), TryInitError> {
    let withheld = filter_fn(|line| !WITHHELD.iter().any(|library| line.target().starts_with(library)));
    let registry = tracing_subscriber::registry().with(filter).with(withheld);
    if text {
        let ansi = std::io::stderr().is_terminal();
        registry.with(tracing_subscriber::fmt::layer().with_ansi(ansi).with_writer(writer)).try_init()
    } else {
        let json = tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(false);
        registry.with(json.with_span_list(false).with_writer(writer)).try_init()
    }
}

/// A panic becomes an ERROR line. Only a literal message is shown: a formatted one could hold what came in a push.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload().downcast_ref::<&str>().copied().unwrap_or("(message withheld)");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, message, "panic");
    }));
}
