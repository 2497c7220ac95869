//! Sink kinds with their types erased, so that kinds with different settings stand in one list.
//!
//! A kind is written once, as a typed [`SinkKind`]; [`Kind::of`] erases it. The config reads and checks settings through it without
//! knowing any kind, and the gateway builds sinks from what was read.

use std::marker::PhantomData;
use std::sync::Arc;

use sink_api::{BuildError, Context, Sink, SinkKind};

use super::value::{Fault, Node};

/// Settings of a sink that were read: only their kind knows their type.
pub trait Settings: Send + Sync {
    /// What is wrong with them, paths below `settings`. Pure.
    fn check(&self, context: &Context) -> Vec<sink_api::Problem>;

    /// All of them, defaults filled in, secrets masked.
    fn effective(&self) -> Result<toml::Table, toml::ser::Error>;

    /// Makes the sink. Opens nothing yet.
    fn build(self: Box<Self>, context: Context) -> Result<Arc<dyn Sink>, BuildError>;
}

/// One attempt at reading the settings of a kind.
pub type ReadSettings = fn(Node) -> Result<Box<dyn Settings>, serde_path_to_error::Error<Fault>>;

/// A kind of sink.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// What `type` says.
    pub name: &'static str,
    /// Denies unknown keys and fills in defaults.
    pub read: ReadSettings,
}

impl Kind {
    pub fn of<K: SinkKind>() -> Self {
        Self { name: K::KIND, read: read::<K> }
    }
}

/// The kinds that this gateway has.
#[derive(Debug, Clone)]
pub struct Kinds(Vec<Kind>);

impl Kinds {
    pub fn new(kinds: Vec<Kind>) -> Self {
        Self(kinds)
    }

    pub fn find(&self, name: &str) -> Option<Kind> {
        self.0.iter().copied().find(|kind| kind.name == name)
    }

    /// What `type` can say.
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|kind| kind.name).collect()
    }
}

struct Typed<K: SinkKind> {
    settings: K::Settings,
    kind: PhantomData<fn() -> K>,
}

impl<K: SinkKind> Settings for Typed<K> {
    fn check(&self, context: &Context) -> Vec<sink_api::Problem> {
        K::check(&self.settings, context)
    }

    fn effective(&self) -> Result<toml::Table, toml::ser::Error> {
        toml::Table::try_from(&self.settings)
    }

    fn build(self: Box<Self>, context: Context) -> Result<Arc<dyn Sink>, BuildError> {
        K::build(self.settings, context)
    }
}

fn read<K: SinkKind>(node: Node) -> Result<Box<dyn Settings>, serde_path_to_error::Error<Fault>> {
    let settings = serde_path_to_error::deserialize(node)?;
    Ok(Box::new(Typed::<K> { settings, kind: PhantomData }))
}
