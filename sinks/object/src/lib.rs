//! The sinks `object` and `recordings`.
