//! The gateway as its users meet it: the real program, real files, real sockets. One file per promise.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

mod accepts;
mod admin;
mod amqp;
mod archives;
mod authenticates;
mod brokers;
mod cli;
mod controls;
mod dead_letters;
mod dedups;
mod deploys;
mod drains;
mod forwards;
mod isolates_sinks;
mod kafka;
mod keeps_privacy;
mod layering;
mod recordings;
mod journals_in_redis;
mod reloads;
mod rolls;
mod replicas;
mod replicas_trial;
mod samples;
mod selects_and_masks;
mod shared_dedup;
mod survives_crash;
mod traces;
mod upgrades;
