//! The journal in Redis, for any number of gateways side by side.

mod options;
pub mod connect;

pub use self::options::{Durability, Mode, OpenError, Options, Place, TlsFiles};
