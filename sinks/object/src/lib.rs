//! The sinks `object` and `recordings`: events and recordings in S3, COS or on a disk.
//!
//! In reading order: where objects are kept ([`store`]), under which names (`key`), and the kinds of sinks that keep something there ([`object`],
//! [`recordings`]).

pub mod store;
mod key;
pub mod object;
pub mod recordings;

pub use object::Object;
pub use recordings::{Recordings, RecordingsSettings};
