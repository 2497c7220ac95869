//! The ingress: everything between the socket and the journal.
//!
//! A push is checked in this order, cheapest and least revealing first: path → method → credentials → content encoding → action →
//! size → body → JSON. It is then given to the journal, and the reply says what the journal said. Nothing of a body is looked at
//! before the credentials are right, and a body is read only when nothing refuses the push without it.
//!
//! What it promises: `ErrCode` 0 leaves only after [`crate::journal::Journal::accept`] said that the push is durable. A push whose
//! body was read whole is given to the journal, whether or not the peer still waits for the reply; one whose body did not come
//! whole never is. Only [`Ingress::serve`]'s `force` (and a reset stream of HTTP/2) drops an accept that was begun, which may then
//! still take effect and is not acknowledged.
//!
//! What it refuses: to look into a body beyond its head, to know of sinks, to log anything that a peer sent.
//!
//! In reading order: [`server`] binds and serves, [`handler`] is the way of one push, [`request`] reads line and header fields,
//! [`sources`] are the addresses, [`auth`] judges credentials and gives out tokens, [`client`] says whose they
//! are, [`body`] reads, [`reply`] answers; [`replay`] gives dead letters to the journal again.

pub mod server;
mod handler;
mod request;
pub mod sources;
mod auth;
mod client;
mod body;
mod reply;
mod replay;
#[cfg(test)]
mod tests;

pub use replay::Replayer;
pub use server::{BindError, Ingress};
pub use sources::{SourceError, Sources};
