//! Who delivers: the [`Sink`] itself, and the [`SinkKind`] that makes one from its settings.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Archive, Batch, Fault, Format, Outcome};

/// The sink as a whole cannot deliver just now.
pub type Unavailable = Fault;

/// A destination. One instance serves all pipelines of its name; batches of different shards and sessions come side by side.
///
/// The contract, which [`crate::conformance`] checks:
///
/// - `deliver` MUST answer with exactly one outcome per event, in the order of the batch.
/// - It MUST answer `Delivered` only after the destination confirmed that it holds the event durably.
/// - It MUST try the events of one `partitionkey` in the order of the batch, and MUST NOT deliver an event after an earlier one of
///   the same `partitionkey` in the batch was not delivered: it answers `Retry` (burning no attempt) or `Unavailable` for the rest.
/// - It MUST be safe to deliver an event again: what was answered may be lost in a crash. The event's id is sent every time.
/// - Its futures MUST be safe to drop: nothing but the answer may be lost.
/// - It MUST NOT retry, sleep before trying, gather further events, spawn work that outlives the call, or count: the pipeline does.
///   Each call MUST end in bounded time; a destination that hangs is `Unavailable` after the sink's own timeout.
///   Only a system call that cannot be taken back may end after its call was dropped or timed out; the next call waits for it.
/// - When the destination comes back after an outage, the same instance MUST deliver again without being told.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Delivers `batch`, as the contract above says.
    async fn deliver(&self, batch: &Batch) -> Vec<Outcome>;

    /// Whether the destination can be reached and would take events. It MUST change nothing there. Called at start, before an open
    /// breaker closes, and by `trunkline check --connect`.
    async fn probe(&self) -> Result<(), Unavailable>;

    /// What this sink asks of its pipeline. Asked once.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Told once, before anything else, which journal the offsets come from. Of use to sinks that keep positions.
    fn belong_to(&self, _origin: &Origin) {}

    /// The last offset of `shard` that the destination itself remembers as delivered, for sinks whose
    /// [`Needs::resumes_positions`] is set: the pipeline goes on after it, whatever its own checkpoint says.
    async fn resume(&self, _shard: u16) -> Result<Option<u64>, Unavailable> {
        Ok(None)
    }

    /// What this sink has archived, for sinks that archive what events only name.
    fn archive(&self) -> Option<&dyn Archive> {
        None
    }

    /// Gives back connections and files. Nothing is delivered afterwards.
    async fn close(&self) {}
}

/// What a sink can ask of its pipeline, so that it need not keep state of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// A batch that is tried again holds the same events as the first time, across restarts too: its bounds are in the checkpoint
    /// before the first try. Such batches go out one at a time per shard.
    pub stable_batches: bool,
    /// The destination remembers positions of its own: [`Sink::resume`] is asked at start.
    pub resumes_positions: bool,
}

/// The journal that a sink's offsets come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// What names of the gateway's own at a destination begin with.
    pub prefix: String,
    /// Another one when the journal was made anew, so that its offsets begin anew; empty where the journal does not say.
    pub journal: String,
}

impl Default for Origin {
    fn default() -> Self {
        Self { prefix: "trunkline".to_owned(), journal: String::new() }
    }
}

/// A kind of sink: what `type` in the config names.
pub trait SinkKind: 'static {
    /// The word in the config: `file`, `http`, ….
    const KIND: &'static str;

    /// The table `[sinks.<name>.settings]`. It denies unknown fields and fills in defaults; serialising it shows the effective
    /// settings, secrets masked.
    type Settings: DeserializeOwned + Serialize + Send + Sync + 'static;

    /// What is wrong with these settings, all of it. Pure: touches neither disk nor network.
    fn check(settings: &Self::Settings, context: &Context) -> Vec<Problem>;

    /// Makes a sink. Pure: connections and files are opened by the first `probe` or `deliver`, so that a destination that is away
    /// does not keep the gateway from starting.
    fn build(settings: Self::Settings, context: Context) -> Result<Arc<dyn Sink>, BuildError>;
}

/// What a sink is told of its surroundings.
#[derive(Debug, Clone, Serialize)]
pub struct Context {
    /// The sink's name in the config.
    pub name: String,
    /// In which shape it writes payloads.
    pub format: Format,
}

/// A mistake in a sink's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The dotted path below `settings`, such as `tls.ca_file`.
    pub path: String,
    /// What was found and what is allowed.
    pub message: String,
}

/// A sink could not be made from settings that passed [`SinkKind::check`], such as a certificate file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BuildError(pub String);
