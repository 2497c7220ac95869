//! Whom an http sink delivers to: takes CloudEvents, answers each by a script, and can be taken away and brought back.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// One delivery, in the order of their answers.
#[derive(Debug, Clone)]
pub struct Delivered {
    pub event: Value,
    pub status: u16,
}

type Script = Arc<dyn Fn(&Value) -> u16 + Send + Sync>;
type Log = Arc<Mutex<Vec<Delivered>>>;

pub struct Receiver {
    pub address: SocketAddr,
    script: Script,
    log: Log,
    running: JoinHandle<()>,
}

impl Receiver {
    /// A receiver on loopback. `script` gives the status for an event.
    pub async fn start(script: impl Fn(&Value) -> u16 + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let (script, log): (Script, Log) = (Arc::new(script), Arc::default());
        let running = tokio::spawn(accept(listener, Arc::clone(&script), Arc::clone(&log)));
        Self { address, script, log, running }
    }

    pub fn deliveries(&self) -> Vec<Delivered> {
        self.log.lock().expect("no panic while locked").clone()
    }

    /// Closes the port and every connection.
    pub async fn stop(&mut self) {
        self.running.abort();
        let ended = (&mut self.running).await;
        assert!(ended.is_err_and(|error| error.is_cancelled()), "it ran until now");
    }

    /// Listens again, at the same address.
    pub async fn go_on(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("nobody took the port");
        self.running = tokio::spawn(accept(listener, Arc::clone(&self.script), Arc::clone(&self.log)));
    }

    /// The table of an http sink that delivers here, with quick retries.
    pub fn sink(&self, name: &str) -> String {
        format!(
            "[sinks.{name}]\ntype = \"http\"\nstart = \"oldest\"\nbatch.linger = \"5ms\"\nretry = {{ delay_min = \"20ms\", delay_max = \"200ms\" }}\n\
             settings = {{ url = \"http://{}/hook?key=canarytoken\", allow_networks = [\"127.0.0.0/8\"] }}\n",
            self.address
        )
    }
}

/// Its connections end with it.
async fn accept(listener: TcpListener, script: Script, log: Log) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (script, log) = (Arc::clone(&script), Arc::clone(&log));
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&script), Arc::clone(&log)));
            let server = auto::Builder::new(TokioExecutor::new());
            // Clients go away as they like.
            drop(server.serve_connection(TokioIo::new(stream), service).await);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(request: Request<Incoming>, script: Script, log: Log) -> Result<Response<Empty<Bytes>>, Infallible> {
    let mut response = Response::new(Empty::new());
    if request.method() == Method::POST
        && let Ok(body) = request.into_body().collect().await
    {
        let event: Value = serde_json::from_slice(&body.to_bytes()).expect("an event in structured mode");
        let status = script(&event);
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        log.lock().expect("no panic while locked").push(Delivered { event, status });
    }
    Ok(response)
}
