//! The sink `http` against real sockets: a scripted receiver, real TLS, and the libraries that consumers use.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod receiver;
mod contract;
mod outcomes;
mod tls;
mod oauth;
mod libraries;
