//! The accept loop that the ingress and the admin listener share: from a socket to whole HTTP requests, within limits.
//!
//! ```text
//! accept ─▶ TLS handshake ─▶ [h2 or h1?] ─▶ hyper ─▶ handler(peer, request)
//!   │ a permit per connection    └ socket.rs ┘  └ connection.rs: deadlines, stop
//! ```
//!
//! What it promises: no peer holds a connection without bringing whole requests within the timeouts; no more than
//! `connections_max` are open; the list of header fields is at most [`HEADER_SIZE_MAX`]; a reply is not lost to a reset because
//! the peer was still sending; a panic in a handler ends its connection and nothing else; when [`Listener::serve`] returns, every
//! task that it started is gone.
//!
//! What it refuses to know: what the requests mean. Time limits of bodies are the handler's part.

pub mod pace;
pub mod throttle;
pub mod not_after;
pub mod tls;
mod socket;
mod connection;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use prometheus::IntGauge;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use self::connection::Served;
use self::pace::Pace;
use self::tls::Tls;

/// Bytes of a request's line and header fields; more is answered with 431.
pub const HEADER_SIZE_MAX: usize = 16 << 10;

/// Connections that wait in the kernel while all permits are taken.
const BACKLOG: u32 = 1024;

/// How long replies in hand may still take to leave after `force`.
const FORCE_GRACE: Duration = Duration::from_millis(500);

/// Shortest and longest pause after accepting failed for want of descriptors or memory.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// What a listener grants its peers.
#[derive(Clone)]
pub struct Limits {
    /// Connections served at the same time; more wait in the backlog.
    pub connections_max: usize,
    /// For the TLS handshake.
    pub handshake_timeout: Duration,
    /// For a request's whole header, counted from its first byte; on a fresh connection from its start.
    pub header_timeout: Duration,
    /// How long a kept connection may stay without a request.
    pub idle_timeout: Duration,
    /// Also speak HTTP/2: by ALPN under TLS, by its preface without.
    pub http2: bool,
    /// JSON that goes with status 408 when a header is late.
    pub late_body: &'static str,
    /// Counts open connections.
    pub open: IntGauge,
}

/// A listener could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}: {source}")]
pub struct BindError {
    pub addr: SocketAddr,
    pub source: io::Error,
}

/// A bound socket, not accepting yet: what connects waits in the backlog.
pub struct Listener {
    socket: TcpListener,
    limits: Limits,
    tls: Option<Tls>,
    leaving: CancellationToken,
}

impl Listener {
    /// Binds `addr`. Needs a tokio runtime around it.
    pub fn bind(addr: SocketAddr, limits: Limits, tls: Option<Tls>) -> Result<Self, BindError> {
        let bound = || {
            let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.set_reuseaddr(true)?;
            socket.bind(addr)?;
            socket.listen(BACKLOG)
        };
        let socket = bound().map_err(|source| BindError { addr, source })?;
        Ok(Self { socket, limits, tls, leaving: CancellationToken::new() })
    }

    /// From `leaving` on every reply ends its HTTP/1.1 connection, and says so: peers go elsewhere by themselves, and few connections
    /// are left that a request could be on its way on when they are closed at the stop.
    #[must_use]
    pub fn leave_on(self, leaving: CancellationToken) -> Self {
        Self { leaving, ..self }
    }

    /// Where it listens; tells the port where 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr().expect("a bound socket has an address")
    }

    #[cfg(test)]
    pub(crate) fn use_tls(&mut self, tls: Tls) {
        self.tls = Some(tls);
    }

    /// Serves until `stop`: then it accepts no more, idle connections close at once, and requests in hand are finished. On
    /// `force` what is left has [`FORCE_GRACE`] to go and is then aborted. Returns when everything is gone.
    ///
    /// An axum router is served as a [`hyper_util::service::TowerToHyperService`], whose error is infallible.
    pub async fn serve<H, F, B>(self, handler: H, stop: CancellationToken, force: CancellationToken)
    where
        H: Fn(SocketAddr, Request<Incoming>) -> F + Clone + Send + Sync + Unpin + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Self { socket, limits, tls, leaving } = self;
        let mut served = Served::new(limits, tls, leaving, stop.clone());
        let mut connections = JoinSet::new();
        let accepting = accept_until_stopped(socket, &served, &mut connections, &handler, &stop);
        match &served.tls {
            Some(tls) => tokio::select! { () = accepting => {}, never = tls.watch() => match never {} },
            None => accepting.await,
        }
        tokio::select! {
            () = wait_for_all(&mut connections, &served.pace) => {}
            () = force.cancelled() => {
                // Whoever does not make it is aborted below.
                let _in_time = tokio::time::timeout(FORCE_GRACE, wait_for_all(&mut connections, &served.pace)).await;
            }
        }
        connections.shutdown().await;
        served.streams.end().await;
    }
}

async fn accept_until_stopped<H, F, B>(
    socket: TcpListener,
    served: &Served,
    connections: &mut JoinSet<()>,
    handler: &H,
    stop: &CancellationToken,
) where
    H: Fn(SocketAddr, Request<Incoming>) -> F + Clone + Send + Sync + Unpin + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let permits = Arc::new(Semaphore::new(served.limits.connections_max));
    let mut pause = BACK_OFF.0;
    loop {
        let accepted = tokio::select! {
            accepted = accept_one(&socket, &permits) => accepted,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                report(ended, &served.pace);
                continue;
            }
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                pause = BACK_OFF.0;
                connections.spawn(served.connection(stream, peer, permit, handler.clone()));
            }
            // The peer went away before it was accepted; the next one is not affected.
            Err(error) if is_about_the_peer(&error) => {}
            Err(error) => {
                if let Some(held_back) = served.pace.pass("accept") {
                    tracing::error!(%error, held_back, "cannot accept connections");
                }
                tokio::select! { () = tokio::time::sleep(pause) => {}, () = stop.cancelled() => break }
                pause = (pause * 2).min(BACK_OFF.1);
            }
        }
    }
    // What the kernel has completed already would be reset by closing the socket; its requests may be on their way.
    while let Some(Ok((stream, peer, permit))) = accept_one(&socket, &permits).now_or_never() {
        connections.spawn(served.connection(stream, peer, permit, handler.clone()));
    }
}

/// Takes a permit first: at the limit nothing is accepted.
async fn accept_one(
    socket: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
    let (stream, peer) = socket.accept().await?;
    Ok((stream, peer, permit))
}

fn is_about_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

async fn wait_for_all(connections: &mut JoinSet<()>, pace: &Pace) {
    while let Some(ended) = connections.join_next().await {
        report(ended, pace);
    }
}

fn report(ended: Result<(), JoinError>, pace: &Pace) {
    if ended.is_err_and(|error| error.is_panic())
        && let Some(held_back) = pace.pass("panic")
    {
        tracing::error!(held_back, "a handler panicked, its connection was closed");
    }
}

/// The reply to a header that did not come in time, whole.
fn late_reply(body: &str) -> Bytes {
    Bytes::from(format!(
        "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    ))
}
