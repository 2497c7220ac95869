//! The ingress over real sockets, before a scripted journal.

mod harness;
mod pushes;
mod refusals;
mod wire;
mod stopping;
mod tls;
mod oauth2;
mod jwt;
