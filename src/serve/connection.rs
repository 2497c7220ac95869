//! The life of one connection: handshake, choice of protocol, then hyper under our deadlines until it is done.
//!
//! hyper's own header timeout also runs while a kept connection is idle and ends without a reply, so it is off, and
//! [`Activity`] says which deadline holds:
//!
//! | phase | left when | deadline | when it passes |
//! |---|---|---|---|
//! | `Fresh`: nothing came yet | bytes come | header timeout from the start | closed |
//! | `Header`: some of a header came | the handler begins | header timeout from the first byte (fresh: from the start) | 408, closed |
//! | `InHand`: requests at the handler | the last one ends | none: the handler's own | – |
//! | `Idle`: between requests, reply perhaps not taken yet | bytes come | idle timeout | closed |
//!
//! HTTP/2 frames of the peer say nothing of requests, so there bytes change no phase: `Fresh` and `Idle` alone bound it.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::IntGauge;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::pace::Pace;
use super::socket::{Socket, Stream};
use super::tls::Tls;
use super::{HEADER_SIZE_MAX, Limits, late_reply};

/// How long a connection that is fresh at `stop` may still take to begin its request.
const FRESH_GRACE: Duration = Duration::from_secs(1);

/// Requests of one HTTP/2 connection at the same time.
const STREAMS_MAX: u32 = 128;

/// What hyper reads at once, at most; bounds what a connection holds in memory.
const READ_BUFFER_MAX: usize = 64 << 10;

/// What all connections of a listener share.
pub struct Served {
    pub limits: Arc<Limits>,
    pub tls: Option<Tls>,
    pub streams: Streams,
    pub pace: Pace,
    late_reply: Bytes,
    leaving: CancellationToken,
    stop: CancellationToken,
}

impl Served {
    pub fn new(limits: Limits, tls: Option<Tls>, leaving: CancellationToken, stop: CancellationToken) -> Self {
        let late_reply = late_reply(limits.late_body);
        let streams = Streams { tasks: TaskTracker::new(), end: CancellationToken::new() };
        Self { limits: Arc::new(limits), tls, streams, pace: Pace::new(), late_reply, leaving, stop }
    }

    /// Serves one connection to its end.
    pub fn connection<H, F, B>(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
        handler: H,
    ) -> impl Future<Output = ()> + Send + use<H, F, B>
    where
        H: Fn(SocketAddr, Request<Incoming>) -> F + Clone + Send + Sync + Unpin + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let acceptor = self.tls.as_ref().map(|tls| TlsAcceptor::from(tls.current()));
        let connection = Connection {
            limits: self.limits.clone(),
            activity: Arc::new(Activity::new()),
            leaving: self.leaving.clone(),
            stop: self.stop.clone(),
            late_reply: self.late_reply.clone(),
            streams: self.streams.clone(),
            peer,
        };
        let open = Open::new(self.limits.open.clone());
        async move {
            // Held until the socket is closed.
            let _held = (permit, open);
            // The reply to a small request must not wait for the acknowledgement of the one before.
            let _best_effort = stream.set_nodelay(true);
            if let Some((socket, speaks_http2)) = connection.open(stream, acceptor).await {
                connection.run(socket, speaks_http2, handler).await;
            }
        }
    }
}

struct Connection {
    limits: Arc<Limits>,
    activity: Arc<Activity>,
    leaving: CancellationToken,
    stop: CancellationToken,
    late_reply: Bytes,
    streams: Streams,
    peer: SocketAddr,
}

/// How hyper's part of a connection ended.
enum End {
    Finished,
    /// A header was begun and not finished in time.
    Late,
    /// Nothing came in time.
    Quiet,
}

impl Connection {
    /// Up to the first byte of HTTP: the socket, and whether its peer speaks HTTP/2.
    async fn open(&self, stream: TcpStream, acceptor: Option<TlsAcceptor>) -> Option<(Socket, bool)> {
        let Some(acceptor) = acceptor else {
            let mut socket = Socket::new(Stream::Plain(stream), self.activity.clone());
            if !self.limits.http2 {
                return Some((socket, false));
            }
            return match self.within(self.limits.header_timeout, socket.begins_as_http2()).await {
                Some(Ok(http2)) => Some((socket, http2)),
                _late_or_broken => None,
            };
        };
        match self.within(self.limits.handshake_timeout, acceptor.accept(stream)).await {
            Some(Ok(stream)) => {
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                self.activity.restart();
                Some((Socket::new(Stream::Tls(Box::new(stream)), self.activity.clone()), http2))
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "tls handshake failed");
                None
            }
            None => {
                tracing::debug!("tls handshake took too long");
                None
            }
        }
    }

    /// What comes before hyper, in `patience`; from `stop` on in [`FRESH_GRACE`].
    async fn within<T>(&self, patience: Duration, step: impl Future<Output = T>) -> Option<T> {
        let stopped = async {
            self.stop.cancelled().await;
            tokio::time::sleep(FRESH_GRACE).await;
        };
        tokio::select! {
            in_time = timeout(patience, step) => in_time.ok(),
            () = stopped => None,
        }
    }

    async fn run<H, F, B>(self, socket: Socket, speaks_http2: bool, handler: H)
    where
        H: Fn(SocketAddr, Request<Incoming>) -> F + Clone + Send + Sync + Unpin + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (peer, activity, leaving) = (self.peer, self.activity.clone(), self.leaving.clone());
        let service = service_fn(move |request| {
            let in_hand = InHand::new(activity.clone());
            let reply = handler(peer, request);
            let leaving = leaving.clone();
            async move {
                let mut reply = reply.await;
                drop(in_hand);
                if leaving.is_cancelled() && !speaks_http2 {
                    // hyper closes then. HTTP/2 knows no such field, and tells its peer at the stop, which no request can miss.
                    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(reply)
            }
        });
        let io = TokioIo::new(socket);
        if speaks_http2 {
            self.activity.ignore_bytes();
            let mut http2 = http2::Builder::new(self.streams.clone())
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS_MAX)
                .max_header_list_size(u32::try_from(HEADER_SIZE_MAX).expect("a small constant"))
                .serve_connection(io, service);
            // Late or quiet: dropping it closes the socket.
            let _end = self.drive(&mut http2).await;
            return;
        }
        let mut http1 = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_header_size(HEADER_SIZE_MAX)
            .max_buf_size(READ_BUFFER_MAX)
            // A peer that has sent all it wants may close its side and still gets its reply.
            .half_close(true)
            .serve_connection(io, service);
        if let End::Late = self.drive(&mut http1).await {
            let mut socket = http1.into_parts().io.into_inner();
            let told = async {
                socket.write_all(&self.late_reply).await?;
                socket.shutdown().await
            };
            // Whether a slow peer takes it is its own affair.
            let _told = timeout(self.limits.header_timeout, told).await;
        }
    }

    /// Polls hyper, and after each step looks which deadline holds now.
    async fn drive<C: Driven>(&self, connection: &mut C) -> End {
        let mut stopped = pin!(self.stop.cancelled());
        let mut stopped_at = None;
        let mut told = false;
        let mut alarm = pin!(sleep_until(self.activity.began_at() + self.limits.header_timeout));
        poll_fn(|cx| {
            loop {
                if Pin::new(&mut *connection).poll(cx).is_ready() {
                    return Poll::Ready(End::Finished);
                }
                let phase = self.activity.settle();
                if stopped_at.is_none() && stopped.as_mut().poll(cx).is_ready() {
                    stopped_at = Some(Instant::now());
                }
                if stopped_at.is_some() && !told && matches!(phase, Phase::InHand(_) | Phase::Idle(_)) {
                    told = true;
                    self.activity.set_closed_idle(matches!(phase, Phase::Idle(_)));
                    connection.finish();
                    continue;
                }
                let Some(deadline) = self.deadline(phase, stopped_at) else { return Poll::Pending };
                // An alarm that is set too early only looks again, which spares setting it anew for every request.
                if alarm.deadline() > deadline || (alarm.is_elapsed() && alarm.deadline() < deadline) {
                    alarm.as_mut().reset(deadline);
                }
                if alarm.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                if Instant::now() >= deadline {
                    return Poll::Ready(if matches!(phase, Phase::Header(_)) { End::Late } else { End::Quiet });
                }
            }
        })
        .await
    }

    fn deadline(&self, phase: Phase, stopped_at: Option<Instant>) -> Option<Instant> {
        match phase {
            Phase::Fresh(at) => {
                let usual = at + self.limits.header_timeout;
                Some(stopped_at.map_or(usual, |stopped_at| usual.min(stopped_at + FRESH_GRACE)))
            }
            Phase::Header(at) => Some(at + self.limits.header_timeout),
            Phase::InHand(_) => None,
            Phase::Idle(at) => Some(at + self.limits.idle_timeout),
        }
    }
}

/// What both protocols' connections can be told.
trait Driven: Future<Output = hyper::Result<()>> + Unpin {
    /// Take no further request; end when those in hand are answered.
    fn finish(&mut self);
}

impl<I, S, B> Driven for http1::Connection<I, S>
where
    Self: Future<Output = hyper::Result<()>> + Unpin,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(&mut self) {
        Pin::new(self).graceful_shutdown();
    }
}

impl<I, S, B, E> Driven for http2::Connection<I, S, E>
where
    Self: Future<Output = hyper::Result<()>> + Unpin,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
{
    fn finish(&mut self) {
        Pin::new(self).graceful_shutdown();
    }
}

/// Where a connection stands; see the module's table.
#[derive(Clone, Copy)]
enum Phase {
    Fresh(Instant),
    Header(Instant),
    /// How many requests. At none it becomes `Idle` when hyper next rests, so that the rest of a body which hyper reads away is
    /// not taken for a header.
    InHand(usize),
    Idle(Instant),
}

/// What the socket, the handler and the deadlines know of one another.
pub struct Activity {
    began_at: Instant,
    phase: Mutex<Phase>,
    bytes_ignored: AtomicBool,
    closed_idle: AtomicBool,
}

impl Activity {
    fn new() -> Self {
        let began_at = Instant::now();
        let phase = Mutex::new(Phase::Fresh(began_at));
        Self { began_at, phase, bytes_ignored: AtomicBool::new(false), closed_idle: AtomicBool::new(false) }
    }

    fn began_at(&self) -> Instant {
        self.began_at
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handshake is over: the time for the first header begins.
    fn restart(&self) {
        *self.phase() = Phase::Fresh(Instant::now());
    }

    fn ignore_bytes(&self) {
        self.bytes_ignored.store(true, Ordering::Relaxed);
        let mut phase = self.phase();
        if let Phase::Header(at) = *phase {
            *phase = Phase::Fresh(at);
        }
    }

    pub fn bytes_came(&self) {
        if self.bytes_ignored.load(Ordering::Relaxed) {
            return;
        }
        let mut phase = self.phase();
        match *phase {
            Phase::Fresh(at) => *phase = Phase::Header(at),
            Phase::Idle(_) => *phase = Phase::Header(Instant::now()),
            Phase::Header(_) | Phase::InHand(_) => {}
        }
    }

    fn settle(&self) -> Phase {
        let mut phase = self.phase();
        if let Phase::InHand(0) = *phase {
            *phase = Phase::Idle(Instant::now());
        }
        *phase
    }

    fn set_closed_idle(&self, idle: bool) {
        self.closed_idle.store(idle, Ordering::Relaxed);
    }

    /// It was closed by us between two requests: nothing of the peer is on its way that a reply belongs to.
    pub fn is_closed_idle(&self) -> bool {
        self.closed_idle.load(Ordering::Relaxed)
    }
}

/// A request at the handler, until dropped.
struct InHand(Arc<Activity>);

impl InHand {
    fn new(activity: Arc<Activity>) -> Self {
        let mut phase = activity.phase();
        *phase = Phase::InHand(if let Phase::InHand(others) = *phase { others + 1 } else { 1 });
        drop(phase);
        Self(activity)
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        let mut phase = self.0.phase();
        if let Phase::InHand(requests) = *phase {
            *phase = Phase::InHand(requests.saturating_sub(1));
        }
    }
}

/// One in the gauge of open connections, until dropped.
struct Open(IntGauge);

impl Open {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Runs the streams of HTTP/2 connections, and knows when the last is gone.
#[derive(Clone)]
pub struct Streams {
    tasks: TaskTracker,
    end: CancellationToken,
}

impl Streams {
    /// Ends what is left, which no connection can carry any more.
    pub async fn end(&mut self) {
        self.end.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let end = self.end.clone();
        self.tasks.spawn(async move {
            end.run_until_cancelled(stream).await;
        });
    }
}
