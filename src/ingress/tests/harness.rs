//! An ingress on a free port, a journal that answers as scripted, and clients that write bytes.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sink_api::settings::Period;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::model;
use crate::ingress::{Ingress, Sources};
use crate::journal::*;
use crate::metrics::Metrics;
use crate::names::{Offset, SinkName, SourceName};
use crate::serve::tls::Tls;

pub const SHORT: Duration = Duration::from_millis(200);
pub const PATIENCE: Duration = Duration::from_secs(10);

/// De-duplicates in memory; fails and waits as told.
pub struct Scripted {
    pub pushes: Mutex<Vec<Push>>,
    pub kept: Mutex<Vec<DeadLetter>>,
    /// What accepts and keeps fail with.
    pub error: Mutex<Option<AcceptError>>,
    /// An accept takes one and gives it back.
    pub gate: Semaphore,
    pub begun: Semaphore,
}

impl Scripted {
    fn new() -> Self {
        Self {
            pushes: Mutex::default(),
            kept: Mutex::default(),
            error: Mutex::default(),
            gate: Semaphore::new(10_000),
            begun: Semaphore::new(0),
        }
    }

    pub fn bodies(&self) -> Vec<Vec<u8>> {
        self.pushes.lock().unwrap().iter().map(|push| push.body.to_vec()).collect()
    }

    /// Lets accepts wait until [`Self::open`].
    pub fn shut(&self) {
        self.gate.forget_permits(10_000);
    }

    pub fn open(&self) {
        self.gate.add_permits(10_000);
    }
}

#[async_trait]
impl Journal for Scripted {
    fn backend(&self) -> &'static str {
        "scripted"
    }
    fn shards(&self) -> u16 {
        1
    }
    async fn accept(&self, push: Push) -> Result<Accepted, AcceptError> {
        self.begun.add_permits(1);
        let _open = self.gate.acquire().await.unwrap();
        let mut pushes = self.pushes.lock().unwrap();
        if let Some(at) = pushes.iter().position(|known| known.id == push.id) {
            return Ok(Accepted::Duplicate { offset: Offset(at as u64 + 1), same_body: pushes[at].body == push.body });
        }
        if let Some(error) = self.error.lock().unwrap().clone() {
            return Err(error);
        }
        pushes.push(push);
        Ok(Accepted::New { offset: Offset(pushes.len() as u64) })
    }
    async fn keep_refused(&self, letter: DeadLetter, limit: u64) -> Result<(), Error> {
        assert_eq!(limit, 10_000);
        if let Some(error) = self.error.lock().unwrap().clone() {
            return Err(Error::Unavailable { cause: error.to_string() });
        }
        self.kept.lock().unwrap().push(letter);
        Ok(())
    }
    fn dead_letters_len(&self, _: &SinkName) -> u64 {
        self.kept.lock().unwrap().len() as u64
    }
    async fn register_sink(&self, _: &SinkName, _: Start) -> Result<(), Error> {
        unreachable!()
    }
    async fn forget_sink(&self, _: &SinkName) -> Result<(), Error> {
        unreachable!()
    }
    async fn sinks(&self) -> Result<Vec<SinkName>, Error> {
        unreachable!()
    }
    async fn set_paused(&self, _sink: &SinkName, _paused: bool) -> Result<(), Error> {
        Ok(())
    }

    async fn paused_sinks(&self) -> Result<Vec<SinkName>, Error> {
        Ok(Vec::new())
    }

    async fn lease(&self, _: &SinkName, _: u16) -> Result<Option<Lease>, Error> {
        unreachable!()
    }
    async fn release(&self, _: &Fence) -> Result<(), Error> {
        unreachable!()
    }
    async fn read(&self, _: u16, _: Offset, _: ReadLimits) -> Result<Page, Error> {
        unreachable!()
    }
    async fn wait_past(&self, _: u16, _: Offset, _: Duration) {
        unreachable!()
    }
    async fn commit(&self, _: &Fence, _: &Checkpoint) -> Result<(), Error> {
        unreachable!()
    }
    async fn dead_letter(&self, _: &Fence, _: Vec<DeadLetter>, _: u64, _: &Checkpoint) -> Result<(), Error> {
        unreachable!()
    }
    async fn dead_letters(&self, _: &Selection, _: Option<&DeadLetterId>, _: usize) -> Result<DeadLetterPage, Error> {
        unreachable!()
    }
    async fn dead_letter_of(&self, _: &DeadLetterId) -> Result<Option<DeadLetter>, Error> {
        unreachable!()
    }
    async fn update_dead_letters(&self, _: Vec<DeadLetter>) -> Result<u64, Error> {
        unreachable!()
    }
    async fn purge_dead_letters(&self, _: &[DeadLetterId]) -> Result<u64, Error> {
        unreachable!()
    }
    async fn backlog(&self, _: &SinkName) -> Option<Backlog> {
        unreachable!()
    }
    fn health(&self) -> Health {
        Health::default()
    }
    async fn close(&self) {}
}

pub struct Running {
    pub addr: SocketAddr,
    pub journal: Arc<Scripted>,
    pub metrics: Metrics,
    pub sources: Sources,
    pub leaving: CancellationToken,
    pub stop: CancellationToken,
    pub force: CancellationToken,
    pub serving: JoinHandle<()>,
}

pub fn source(path: &str, auth: model::Auth) -> model::Source {
    model::Source { path: path.to_owned(), actions: None, auth, allow_unauthenticated: false }
}

pub fn basic() -> model::Auth {
    model::Auth::Basic { username: "tccc".to_owned(), password: "secret".into() }
}

/// `Authorization` of [`basic`].
pub const RIGHT: &str = "Authorization: Basic dGNjYzpzZWNyZXQ=\r\n";
pub const WRONG: &str = "Authorization: Basic dGNjYzp3cm9uZw==\r\n";

/// An ingress with `/push` open, `/guarded` behind [`basic`], `/records` taking `record` alone.
pub async fn ingress(adapt: impl FnOnce(&mut model::Ingress)) -> Running {
    start(adapt, None).await
}

/// The same with certificates that are looked at more often.
pub async fn ingress_with_tls(tls: Tls) -> Running {
    start(|_| {}, Some(tls)).await
}

async fn start(adapt: impl FnOnce(&mut model::Ingress), tls: Option<Tls>) -> Running {
    let records = model::Source { actions: Some(vec!["Record".to_owned()]), ..source("/records", model::Auth::None) };
    let sources = BTreeMap::from([
        (SourceName::from("main"), source("/push", model::Auth::None)),
        (SourceName::from("guarded"), source("/guarded", basic())),
        (SourceName::from("records"), records),
    ]);
    start_with(adapt, tls, &sources).await
}

/// An ingress with these sources.
pub async fn ingress_with(sources: &BTreeMap<SourceName, model::Source>) -> Running {
    start_with(|_| {}, None, sources).await
}

async fn start_with(
    adapt: impl FnOnce(&mut model::Ingress),
    tls: Option<Tls>,
    sources: &BTreeMap<SourceName, model::Source>,
) -> Running {
    let mut config = model::Ingress { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..model::Ingress::default() };
    config.idle_timeout = Period::from_secs(30);
    adapt(&mut config);
    let journal = Arc::new(Scripted::new());
    let metrics = Metrics::new();
    let mut ingress = Ingress::bind(&config, sources, journal.clone(), &metrics).unwrap();
    if let Some(tls) = tls {
        ingress.use_tls(tls);
    }
    let (addr, sources) = (ingress.local_addr(), ingress.sources());
    let [leaving, stop, force] = std::array::from_fn(|_| CancellationToken::new());
    let serving = tokio::spawn(ingress.leave_on(leaving.clone()).serve(stop.clone(), force.clone()));
    Running { addr, journal, metrics, sources, leaving, stop, force, serving }
}

impl Running {
    pub async fn connect(&self) -> Client<TcpStream> {
        Client::new(TcpStream::connect(self.addr).await.unwrap())
    }

    /// One request on a connection of its own.
    pub async fn ask(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut client = self.connect().await;
        client.send(request).await;
        client.reply().await
    }

    pub fn metric(&self, line_start: &str) -> String {
        let text = String::from_utf8(self.metrics.render()).unwrap();
        let line = text.lines().find(|line| line.starts_with(line_start));
        line.unwrap_or_else(|| panic!("{line_start} in {text}")).rsplit(' ').next().unwrap().to_owned()
    }

    pub async fn stopped(self) {
        tokio::time::timeout(PATIENCE, self.serving).await.unwrap().unwrap();
    }
}

pub struct Client<S> {
    pub stream: S,
    ahead: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Reply {
    pub fn err_code(&self) -> i64 {
        let value: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert!(value["ErrMsg"].is_string());
        assert_eq!(self.headers["content-type"], "application/json");
        value["ErrCode"].as_i64().unwrap()
    }

    /// `(status, ErrCode)`
    pub fn said(&self) -> (u16, i64) {
        (self.status, self.err_code())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// More of what comes; false at the end.
    async fn more(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.ahead)).await.expect("in time");
        read.expect("no reset") > 0
    }

    pub async fn reply(&mut self) -> Reply {
        let end = loop {
            if let Some(at) = self.ahead.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more().await, "ended in a header: {:?}", String::from_utf8_lossy(&self.ahead));
        };
        let head = String::from_utf8(self.ahead.drain(..end).collect()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: HashMap<String, String> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let size = headers.get("content-length").map_or(0, |size| size.parse().unwrap());
        while self.ahead.len() < size {
            assert!(self.more().await, "ended in a body");
        }
        let body = String::from_utf8(self.ahead.drain(..size).collect()).unwrap();
        Reply { status, headers, body }
    }

    /// Waits for the end of what the server sends, which must come without a reset and without further bytes.
    pub async fn ended(&mut self) {
        while self.more().await {}
        assert_eq!(String::from_utf8_lossy(&self.ahead), "");
    }
}

/// A push as the vendor sends it, with more header lines (each ending in CRLF).
pub fn push_with(target: &str, id: &str, lines: &str, body: &str) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json; charset=utf8\r\nX-TCCC-PUSH-UUID: {id}\r\n{lines}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub fn push(id: &str, body: &str) -> String {
    push_with("/push?action=cdr&version=1", id, "", body)
}

pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
