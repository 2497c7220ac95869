//! The gateway as its users meet it: the real program, real files, real sockets. One file per promise.

mod support;

mod accepts;
mod admin;
mod authenticates;
mod cli;
mod dedups;
mod drains;
mod isolates_sinks;
mod keeps_privacy;
mod layering;
mod samples;
mod survives_crash;
