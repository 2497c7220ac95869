//! The guard where it matters: names that resolve to several addresses, or to others a moment later, and no way around it.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;

use sink_api::Format;
use sink_api::conformance::{batch, event};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// Gives each answer once, in turn, and the last for ever.
struct Changing(Mutex<VecDeque<Vec<IpAddr>>>);

impl Changing {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let addresses = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        Arc::new(Self(Mutex::new(answers.iter().map(addresses).collect())))
    }
}

#[async_trait]
impl Lookup for Changing {
    async fn lookup(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        assert_eq!(host, "receiver.test");
        let mut answers = self.0.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Ok(answer.unwrap_or_default().into_iter().map(|address| SocketAddr::new(address, 0)).collect())
    }
}

/// Knows no name.
struct Failing;

#[async_trait]
impl Lookup for Failing {
    async fn lookup(&self, _host: &str) -> io::Result<Vec<SocketAddr>> {
        Err(io::Error::other("no such name"))
    }
}

/// A receiver on 127.0.0.1 that takes everything and closes each connection after one request. Gives its port.
async fn receiver() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            // No body is to be left unread, or closing would take the reply back.
            while !request.ends_with(b"}") {
                stream.read_buf(&mut request).await.unwrap();
            }
            stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await.unwrap();
        }
    });
    port
}

fn sink(url: &str, allow: &[&str], lookup: Arc<dyn Lookup>) -> HttpSink {
    let settings: Settings = toml::from_str(&format!("url = {url:?}\nallow_networks = {allow:?}")).unwrap();
    HttpSink::new(&settings, &Context { name: "hook".into(), format: Format::CloudEvents }, lookup).unwrap()
}

async fn deliver(sink: &HttpSink) -> Outcome {
    sink.deliver(&batch(0, 1, vec![event("p-1", "s")])).await.remove(0)
}

fn refusal(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Unavailable { fault, .. } if fault.code == "address-refused" => &fault.reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_name_that_changes_between_look_ups_is_judged_each_time() {
    let url = format!("http://receiver.test:{}/hook?token=hunter2", receiver().await);
    let answers = Changing::new(&[&["127.0.0.1"], &["10.0.0.1"], &["127.0.0.1"], &["::1", "169.254.169.254"]]);
    let sink = sink(&url, &["127.0.0.1/32"], answers);
    assert_eq!(deliver(&sink).await, Outcome::delivered());
    let refused = deliver(&sink).await;
    assert!(refusal(&refused).contains("10.0.0.1 is a private address"), "{refused:?}");
    assert_eq!(deliver(&sink).await, Outcome::delivered());
    let refused = deliver(&sink).await;
    assert!(refusal(&refused).contains("::1 is a loopback address"), "{refused:?}");
    assert!(!refusal(&refused).contains("hunter2"));
    assert_eq!(sink.probe().await.unwrap_err().code, "address-refused");
}

#[tokio::test]
async fn of_several_addresses_only_the_allowed_ones_are_tried() {
    let url = format!("http://receiver.test:{}/", receiver().await);
    let answers = Changing::new(&[&["127.0.0.2", "10.0.0.1", "::1", "127.0.0.1"]]);
    assert_eq!(deliver(&sink(&url, &["127.0.0.1/32"], answers)).await, Outcome::delivered());
    let none = Changing::new(&[&[]]);
    refusal(&deliver(&sink(&url, &["127.0.0.1/32"], none)).await);
}

#[tokio::test]
async fn an_address_in_the_url_does_not_get_around_the_guard() {
    let port = receiver().await;
    for host in
        ["127.0.0.1", "127.1", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0", "[::]"]
    {
        let url = format!("http://{host}:{port}/");
        let closed = sink(&url, &["10.0.0.0/8"], Changing::new(&[]));
        refusal(&deliver(&closed).await);
        assert_eq!(closed.probe().await.unwrap_err().code, "address-refused", "{host}");
    }
    let open = sink(&format!("http://127.1:{port}/"), &["127.0.0.0/8"], Changing::new(&[]));
    assert_eq!(deliver(&open).await, Outcome::delivered());
}

#[tokio::test]
async fn the_system_s_names_are_judged_too() {
    let url = format!("http://localhost:{}/", receiver().await);
    refusal(&deliver(&sink(&url, &[], Arc::new(System))).await);
    assert_eq!(deliver(&sink(&url, &["127.0.0.0/8"], Arc::new(System))).await, Outcome::delivered());
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_an_outage() {
    let outcome = deliver(&sink("https://receiver.test/?hunter2", &[], Arc::new(Failing))).await;
    let Outcome::Unavailable { fault, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(fault.code, "dns");
    assert_eq!(fault.reason, "the name of receiver.test:443 cannot be looked up: no such name");
}

#[tokio::test]
async fn a_closed_sink_sends_nothing() {
    let sink = sink(&format!("http://127.0.0.1:{}/", receiver().await), &["127.0.0.0/8"], Changing::new(&[]));
    sink.close().await;
    assert!(matches!(deliver(&sink).await, Outcome::Unavailable { fault, .. } if fault.code == "closed"));
}
