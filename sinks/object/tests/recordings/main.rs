//! The kind `recordings` against a server of recordings that misbehaves, a disk, and a real S3 server.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod archive;
mod contract;
mod fetches;
mod refuses;
mod support;
