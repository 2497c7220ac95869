//! The sinks `object` and `recordings`.

pub mod store;
