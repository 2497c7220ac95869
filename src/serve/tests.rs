//! The accept loop by itself; what it does for pushes is tested with the ingress.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use futures::FutureExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use prometheus::IntGauge;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{Limits, Listener};

fn listener() -> Listener {
    let limits = Limits {
        connections_max: 8,
        handshake_timeout: Duration::from_secs(5),
        header_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(5),
        http2: false,
        late_body: "{}",
        open: IntGauge::new("open", "open").unwrap(),
    };
    Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), limits, None).unwrap()
}

async fn ask(addr: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply
}

#[tokio::test]
async fn an_axum_router_is_served_and_a_panic_ends_one_connection_only() {
    async fn panics() -> &'static str {
        panic!("on purpose")
    }
    let router: Router = Router::new().route("/livez", get(|| async { "alive" })).route("/panics", get(panics));
    let listener = listener();
    let addr = listener.local_addr();
    let (stop, force) = (CancellationToken::new(), CancellationToken::new());
    let router = TowerToHyperService::new(router);
    let handler = move |_, request| router.call(request).map(|reply| reply.expect("a router does not fail"));
    let serving = tokio::spawn(listener.serve(handler, stop.clone(), force));
    assert_eq!(ask(addr, "/panics").await, "");
    assert!(ask(addr, "/livez").await.ends_with("\r\n\r\nalive"));
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), serving).await.unwrap().unwrap();
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn an_address_in_use_is_said() {
    let first = listener();
    let limits = first.limits.clone();
    let error = Listener::bind(first.local_addr(), limits, None).err().unwrap();
    assert!(error.to_string().starts_with(&format!("cannot listen on {}", first.local_addr())));
}
