//! A receiver that answers by a script, remembers what came, and can be taken away and brought back at the same address.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use sink_api::{Context, Format, Outcome, Sink, SinkKind as _};
use sink_http::{Http, Settings};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Received {
    pub method: Method,
    pub path: String,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub status: u16,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers)).to_str().unwrap()
    }
}

pub enum Answer {
    Reply(u16, Vec<(&'static str, String)>, Bytes),
    /// Says nothing, for ever.
    Hang,
    /// Closes the connection in place of a reply.
    HangUp,
}

impl Answer {
    pub fn status(status: u16) -> Self {
        Self::Reply(status, Vec::new(), Bytes::new())
    }
}

type Script = Arc<dyn Fn(&Received) -> Answer + Send + Sync>;

#[derive(Clone)]
struct Shared {
    script: Script,
    log: Arc<Mutex<Vec<Received>>>,
    opened: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    tls: Option<TlsAcceptor>,
}

pub struct Receiver {
    pub address: SocketAddr,
    shared: Shared,
    running: Mutex<Option<JoinHandle<()>>>,
}

impl Receiver {
    pub async fn start(script: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_with(None, script).await
    }

    pub async fn start_with(
        tls: Option<TlsAcceptor>,
        script: impl Fn(&Received) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (log, opened, open) = <(Arc<_>, Arc<_>, Arc<_>)>::default();
        let shared = Shared { script: Arc::new(script), log, opened, open, tls };
        let running = tokio::spawn(accept(listener, shared.clone()));
        Self { address, shared, running: Mutex::new(Some(running)) }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook?token=hunter2", self.address)
    }

    /// Everything that came, in the order of its answers.
    pub fn received(&self) -> Vec<Received> {
        self.shared.log.lock().unwrap().clone()
    }

    pub fn posted(&self) -> Vec<Received> {
        self.received().into_iter().filter(|received| received.method == Method::POST).collect()
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.shared.opened.load(Ordering::SeqCst)
    }

    /// How many there still are, once they no longer change or are none.
    pub async fn still_open(&self) -> usize {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let open = self.shared.open.load(Ordering::SeqCst);
            if open == 0 || Instant::now() > deadline {
                return open;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Closes the port and every connection.
    pub async fn stop(&self) {
        let running = self.running.lock().unwrap().take();
        if let Some(running) = running {
            running.abort();
            assert!(running.await.unwrap_err().is_cancelled());
        }
        assert_eq!(self.still_open().await, 0);
    }

    pub async fn go_on(&self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        *self.running.lock().unwrap() = Some(tokio::spawn(accept(listener, self.shared.clone())));
    }
}

/// Its connections end with it.
async fn accept(listener: TcpListener, shared: Shared) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, shared.clone()));
        while connections.try_join_next().is_some() {}
    }
}

struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn serve(stream: TcpStream, shared: Shared) {
    shared.opened.fetch_add(1, Ordering::SeqCst);
    shared.open.fetch_add(1, Ordering::SeqCst);
    let _open = Open(Arc::clone(&shared.open));
    let service = service_fn(|request| answer(request, shared.clone()));
    let server = auto::Builder::new(TokioExecutor::new());
    let ended = match &shared.tls {
        None => server.serve_connection(TokioIo::new(stream), service).await,
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => server.serve_connection(TokioIo::new(stream), service).await,
            Err(_) => return,
        },
    };
    // Clients go away as they like.
    drop(ended);
}

async fn answer(request: Request<Incoming>, shared: Shared) -> Result<Response<Full<Bytes>>, &'static str> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| "no whole request")?.to_bytes();
    let path = parts.uri.path().to_owned();
    let mut received =
        Received { method: parts.method, path, version: parts.version, headers: parts.headers, body, status: 0 };
    let answer = (shared.script)(&received);
    if let Answer::Reply(status, ..) = &answer {
        received.status = *status;
    }
    shared.log.lock().unwrap().push(received);
    match answer {
        Answer::Reply(status, headers, body) => {
            let mut response = Response::new(Full::new(body));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            Ok(response)
        }
        Answer::Hang => std::future::pending::<Result<_, Infallible>>().await.map_err(|never| match never {}),
        Answer::HangUp => Err("hangs up"),
    }
}

/// A sink on `url` with further settings, in TOML. Loopback is allowed.
pub fn sink_in(format: Format, url: &str, more: &str) -> Arc<dyn Sink> {
    let toml = format!("url = {url:?}\nallow_networks = [\"127.0.0.0/8\"]\n{more}");
    let settings: Settings = toml::from_str(&toml).unwrap();
    let context = Context { name: "hook".into(), format };
    assert_eq!(Http::check(&settings, &context), []);
    Http::build(settings, context).unwrap()
}

pub fn sink(url: &str, more: &str) -> Arc<dyn Sink> {
    sink_in(Format::CloudEvents, url, more)
}

pub async fn deliver(sink: &dyn Sink) -> Outcome {
    use sink_api::conformance::{batch, event};
    sink.deliver(&batch(0, 1, vec![event("p-1", "s")])).await.remove(0)
}

/// Kind of outcome and code, and that the reason gives nothing away.
pub fn told(outcome: &Outcome) -> (&'static str, &str) {
    let (kind, fault) = match outcome {
        Outcome::Delivered { .. } => return ("delivered", ""),
        Outcome::Retry { fault, burns_attempt: true, .. } => ("retry", fault),
        Outcome::Retry { fault, .. } => ("patience", fault),
        Outcome::Rejected { fault } => ("rejected", fault),
        Outcome::Unavailable { fault, .. } => ("away", fault),
    };
    for private in ["hunter2", "token=", "/hook"] {
        assert!(!fault.reason.contains(private), "{fault:?}");
    }
    (kind, &fault.code)
}
