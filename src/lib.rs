//! Trunkline: a push-relay gateway.
//!
//! # The life of a push
//!
//! 1. [`serve`] takes the connection and hands the request to
//! 2. [`ingress`], which checks credentials, action, size and JSON, and gives the push to
//! 3. [`journal`], which looks its id up and appends what is new in one act, and answers once that is on stable storage; only then
//!    the sender is answered.
//! 4. [`pipeline`], one per sink, reads the push back, lets [`tccc`] make an event of it, selects and masks ([`event`]), keeps
//!    sessions in order, and delivers batches to
//! 5. a sink (crate `sink_api` holds the contract, [`sinks`] the list), whose outcome settles the event, parks it for another
//!    attempt, or makes it a dead letter.
//!
//! Dead letters come back through [`replay`], which hands them to the pipeline or the ingress again.
//!
//! [`gateway`] puts these together. [`config`] is read before anything is opened; [`admin`], [`metrics`], [`logging`] and [`trace`] let
//! an operator see; [`cli`] is what a person types. The modules below stand in reading order.

pub mod names;
pub mod crash;
pub mod config;
pub mod metrics;
pub mod logging;
pub mod trace;
pub mod serve;
pub mod ingress;
pub mod journal;
pub mod tccc;
pub mod event;
pub mod replay;
pub mod pipeline;
pub mod sinks;
pub mod admin;
pub mod gateway;
pub mod cli;
