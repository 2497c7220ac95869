//! The sink against real brokers: the contract, every kind of trouble, and what independent clients read.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod harness;

mod contract;
mod outcomes;
mod replicas;
mod security;
mod transactions;
