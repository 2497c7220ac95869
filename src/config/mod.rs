//! The config: read, checked as a whole, typed.

pub mod model;

pub use model::Config;
