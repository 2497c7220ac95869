//! Journals of the real servers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::super::{Durability, Mode, Options, Place, RedisJournal};
use crate::journal::conformance::{self, WINDOW};
use crate::journal::{Accepted, Journal, Push};
use crate::metrics::Metrics;
use crate::names::Offset;

pub fn place(mode: Mode, urls: Vec<String>) -> Place {
    let master = test_servers::redis::MASTER_NAME.to_owned();
    Place { master, ..Place::new(mode, urls.into_iter().map(Into::into).collect()) }
}

pub fn options(place: Place, durability: Durability) -> Options {
    Options {
        place,
        prefix: "t".to_owned(),
        shards: 3,
        durability,
        replicas: 1,
        replica_timeout: Duration::from_millis(500),
        allow_weaker: false,
        size_max: 64 << 20,
        dedup_window: WINDOW,
    }
}

/// An open journal and what runs beside it, until it is dropped.
pub struct Opened {
    pub journal: Arc<RedisJournal>,
    pub tasks: JoinSet<()>,
}

pub async fn open(options: Options) -> Opened {
    let opened = RedisJournal::open(options, Metrics::new().journal).await;
    let (journal, futures) = opened.unwrap_or_else(|error| panic!("{error}"));
    let mut tasks = JoinSet::new();
    for (_, future) in futures {
        tasks.spawn(future);
    }
    Opened { journal, tasks }
}

/// Waits until `condition` holds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(Instant::now() < deadline, "this did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Takes the push as soon as the journal can.
pub async fn accept_soon(journal: &dyn Journal, push: &Push) -> Accepted {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match journal.accept(push.clone()).await {
            Ok(accepted) => return accepted,
            Err(error) => assert!(Instant::now() < deadline, "not taken for a long time: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn offset_of(accepted: Accepted) -> Offset {
    match accepted {
        Accepted::New { offset } | Accepted::Duplicate { offset, .. } => offset,
    }
}

/// The ids of all entries in all shards.
pub async fn ids(journal: &dyn Journal) -> Vec<String> {
    let mut ids = Vec::new();
    for shard in 0..journal.shards() {
        let items = conformance::read_all(journal, shard, Offset::ZERO).await;
        ids.extend(items.iter().map(|item| item.entry().push.id.as_str().to_owned()));
    }
    ids
}

/// Stands before a server: can be led to another one, and can swallow replies.
pub struct Proxy {
    pub url: String,
    state: watch::Sender<Way>,
    _serving: JoinSet<()>,
}

#[derive(Clone, Copy, PartialEq)]
struct Way {
    port: u16,
    /// Replies are swallowed, and the connection ends with the first one.
    is_deaf: bool,
}

impl Proxy {
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let (state, watched) = watch::channel(Way { port, is_deaf: false });
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                connections.spawn(carry(client, watched.clone()));
            }
        });
        Self { url, state, _serving: serving }
    }

    /// Ends all connections; new ones lead to another server.
    pub fn lead_to(&self, port: u16) {
        self.state.send_replace(Way { port, is_deaf: false });
    }

    /// From now on replies are swallowed and end their connection; those of the connections made later come through.
    pub fn swallow_replies_once(&self) {
        self.state.send_modify(|way| way.is_deaf = true);
    }

    pub fn hear_again(&self) {
        self.state.send_modify(|way| way.is_deaf = false);
    }
}

async fn carry(client: TcpStream, mut way: watch::Receiver<Way>) {
    let begun = *way.borrow_and_update();
    let Ok(server) = TcpStream::connect(("127.0.0.1", begun.port)).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let replies = {
        let way = way.clone();
        async move {
            let mut bytes = vec![0; 1 << 16];
            while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
                let is_deaf = way.borrow().is_deaf;
                if is_deaf || to_client.write_all(&bytes[..count]).await.is_err() {
                    return;
                }
            }
        }
    };
    tokio::select! {
        () = replies => {}
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        _ = way.wait_for(|now| now.port != begun.port) => {}
    }
}
