//! The contract between the gateway's pipelines and its sinks.
//!
//! A sink knows how to bring a [`Batch`] of [`Event`]s to one kind of destination and to say, event by event, what became of
//! them. It knows nothing else: retrying, backing off, batching, ordering, counting and keeping dead letters is done once, by the
//! pipeline, for all sinks. A sink crate imports this crate and nothing else of the gateway.
//!
//! In reading order: what is delivered ([`event`]), how it is handed over ([`batch`]), what is answered ([`outcome`]), who answers
//! ([`sink`]), what a sink has archived ([`archive`]), the value types that settings are written in ([`settings`]), names made of an event
//! ([`template`]), and, behind features of their names, which addresses a sink may connect to (`guard`), what sinks that speak HTTP share (`http`), and the order
//! in which single events go out (`lanes`).

pub mod event;
pub mod batch;
pub mod outcome;
pub mod sink;
pub mod archive;
pub mod settings;
pub mod template;
#[cfg(feature = "guard")]
pub mod guard;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "lanes")]
pub mod lanes;
#[cfg(feature = "conformance")]
pub mod conformance;

pub use archive::{Archive, Archived};
pub use batch::{Batch, BatchEvent};
pub use event::{Event, Format};
pub use outcome::{DerivedPush, Fault, Outcome};
pub use sink::{BuildError, Context, Needs, Origin, Problem, Sink, SinkKind, Unavailable};
