//! Trunkline: a push-relay gateway.

pub mod names;
pub mod config;
pub mod metrics;
pub mod journal;
pub mod tccc;
pub mod serve;
pub mod ingress;
