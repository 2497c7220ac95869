//! The real servers that tests run against.
//!
//! Each is started on free ports of loopback, keeps its files in a temporary folder, and is gone with the value that stands for
//! it, or with the test's process at the latest. `install` beside this crate brings the programs; a test whose program is missing
//! fails with the command that installs it. Nothing here is part of the gateway.

pub mod process;
pub mod kafka;
pub mod rabbitmq;
pub mod cos;
pub mod recorder;
pub mod s3;
pub mod redis;
