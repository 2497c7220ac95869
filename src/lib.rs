//! Trunkline: a push-relay gateway.

pub mod names;
pub mod config;
pub mod sinks;
pub mod metrics;
pub mod crash;
pub mod journal;
pub mod tccc;
pub mod pipeline;
