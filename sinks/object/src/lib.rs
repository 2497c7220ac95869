//! The sinks `object` and `recordings`.

pub mod store;
pub mod recordings;

pub use recordings::{Recordings, RecordingsSettings};
