//! The sender against a real server that answers as a script says.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;

use super::*;

const OK: &str = r#"{"ErrCode":0,"ErrMsg":"ok"}"#;

/// What the receiver does with one attempt.
#[derive(Debug, Clone, Copy)]
enum Step {
    Reply(u16, &'static str),
    /// Reads the request and hangs up.
    HangUp,
    /// Never answers.
    Hang,
}

/// An attempt as it arrived.
#[derive(Debug, Clone)]
struct Arrived {
    push_id: Option<String>,
    target: String,
    content_type: String,
    body: Bytes,
}

/// Follows its script, one step an attempt; after the last all are acknowledged.
struct Receiver {
    addr: SocketAddr,
    arrived: Arc<Mutex<Vec<Arrived>>>,
}

impl Receiver {
    async fn start(script: &[Step]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let (script, seen) = (script.to_vec(), Arc::clone(&arrived));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (script, seen) = (script.clone(), Arc::clone(&seen));
                let service = service_fn(move |request| answer(request, script.clone(), Arc::clone(&seen)));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { addr, arrived }
    }

    fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }
}

async fn answer(
    request: Request<Incoming>,
    script: Vec<Step>,
    seen: Arc<Mutex<Vec<Arrived>>>,
) -> Result<Response<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let arrived = Arrived {
        push_id: header("x-tccc-push-uuid"),
        target: request.uri().to_string(),
        content_type: header("content-type").unwrap(),
        body: request.into_body().collect().await?.to_bytes(),
    };
    let step = {
        let mut seen = seen.lock().unwrap();
        seen.push(arrived);
        script.get(seen.len() - 1).copied().unwrap_or(Step::Reply(200, OK))
    };
    match step {
        Step::Reply(status, body) => {
            let response = Response::builder().status(StatusCode::from_u16(status)?);
            Ok(response.body(Full::new(Bytes::from_static(body.as_bytes())))?)
        }
        Step::HangUp => Err("hung up".into()),
        Step::Hang => std::future::pending::<Result<_, Infallible>>().await.map_err(Into::into),
    }
}

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    send: SendArgs,
}

/// Sends `{"SessionId":"s1","n":1}` with quick retries and the options of `line`.
async fn sent(addr: SocketAddr, line: &str) -> Sent {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("body.json");
    std::fs::write(&file, r#"{"SessionId":"s1","n":1}"#).unwrap();
    let line = format!("send --url http://{addr}/push --retry-delay 1ms {line}{}", file.display());
    let args = Command::try_parse_from(line.split(' ')).unwrap().send;
    send(&args).await.unwrap()
}

#[tokio::test]
async fn a_push_has_the_vendors_form() {
    let receiver = Receiver::start(&[]).await;
    let sent = sent(receiver.addr, "--action cdr ").await;
    assert_eq!(sent.exit(), Exit::Fine);
    let arrived = &receiver.arrived()[0];
    assert_eq!(arrived.target, "/push?action=cdr&version=1");
    assert_eq!(arrived.content_type, "application/json; charset=utf8");
    assert_eq!(arrived.body, r#"{"SessionId":"s1","n":1}"#);
    assert_eq!(arrived.push_id.as_ref().unwrap().len(), 36);
}

#[tokio::test]
async fn a_push_keeps_its_id_until_it_is_acknowledged() {
    let receiver = Receiver::start(&[
        Step::Reply(503, r#"{"ErrCode":5030,"ErrMsg":"full"}"#),
        Step::Reply(200, r#"{"ErrCode":"0","ErrMsg":"ok"}"#),
        Step::HangUp,
    ])
    .await;
    let sent = sent(receiver.addr, "--action cdr ").await;
    assert_eq!(sent.exit(), Exit::Fine);
    let summary = sent.tally.summary(sent.elapsed);
    assert_eq!((summary.sent, summary.accepted, summary.retries), (1, 1, 3));
    let ids: Vec<_> = receiver.arrived().into_iter().map(|arrived| arrived.push_id).collect();
    assert_eq!(ids.len(), 4);
    assert!(ids.iter().all(|id| *id == ids[0]));
}

#[tokio::test]
async fn a_push_is_given_up_after_three_retries_and_says_why() {
    let receiver = Receiver::start(&[Step::Reply(200, "<html>hello</html>"); 4]).await;
    let sent = sent(receiver.addr, "--action cdr ").await;
    assert_eq!(sent.exit(), Exit::Failed);
    assert_eq!(receiver.arrived().len(), 4);
    assert_eq!(sent.tally.reasons(), [(1, "status 200, a reply that is not JSON".to_owned())]);
}

#[tokio::test]
async fn a_slow_reply_is_retried() {
    let receiver = Receiver::start(&[Step::Hang]).await;
    let sent = sent(receiver.addr, "--action cdr --timeout 200ms ").await;
    assert_eq!(sent.exit(), Exit::Fine);
    assert_eq!(receiver.arrived().len(), 2);
}

#[tokio::test]
async fn no_reply_at_all_is_not_reachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let sent = sent(addr, "--action cdr --count 3 ").await;
    assert_eq!(sent.exit(), Exit::NotReachable);
    let reasons = sent.tally.reasons();
    assert!(reasons[0].0 == 3 && reasons[0].1.starts_with("not reachable: "), "{reasons:?}");
}

#[tokio::test]
async fn an_open_loop_keeps_its_pace_while_replies_hang() {
    let receiver = Receiver::start(&[Step::Hang; 10]).await;
    let sent = sent(receiver.addr, "--action cdr --count 200 --rate 1000 --timeout 400ms ").await;
    assert_eq!(sent.exit(), Exit::Fine);
    let latency = sent.tally.summary(sent.elapsed).latency_ms;
    assert!(latency.max.unwrap() >= 400.0, "{latency:?}");
    assert!(sent.elapsed >= Duration::from_millis(199), "{:?}", sent.elapsed);
    assert_eq!(receiver.arrived().len(), 210);
}

#[tokio::test]
async fn the_log_says_what_was_acknowledged() {
    let receiver = Receiver::start(&[Step::Reply(400, r#"{"ErrCode":4002,"ErrMsg":"no"}"#)]).await;
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log.ndjson");
    let line = format!("--action cdr --count 50 --sessions 4 --retries 0 --log {} ", log.display());
    let sent = sent(receiver.addr, &line).await;
    assert_eq!(sent.exit(), Exit::Failed);
    let lines: Vec<Value> =
        std::fs::read_to_string(&log).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 50);
    let failed: Vec<_> = lines.iter().filter(|line| line["accepted"] == false).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!((&failed[0]["err_code"], &failed[0]["attempts"]), (&4002.into(), &1.into()));
    let arrived = receiver.arrived();
    for line in &lines {
        let id = line["push_id"].as_str();
        let push = arrived.iter().find(|push| push.push_id.as_deref() == id).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&push.body).unwrap()["SessionId"], line["session_id"]);
    }
    let sessions: std::collections::BTreeSet<_> = lines.iter().map(|line| line["session_id"].to_string()).collect();
    assert_eq!(sessions.len(), 4);
}

#[tokio::test]
async fn a_given_push_id_is_on_all_pushes_and_an_empty_one_on_none() {
    let receiver = Receiver::start(&[]).await;
    sent(receiver.addr, "--action cdr --count 2 --push-id again ").await;
    sent(receiver.addr, "--action cdr --push-id= ").await;
    let ids: Vec<_> = receiver.arrived().into_iter().map(|arrived| arrived.push_id).collect();
    assert_eq!(ids, [Some("again".to_owned()), Some("again".to_owned()), None]);
}

/// Body and `Authorization` field.
type TokenRequest = (String, Option<String>);

/// A receiver of pushes that wants tokens: each is good for so many pushes.
struct Guarded {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<TokenRequest>>>,
}

impl Guarded {
    async fn start(pushes_a_token: usize, token_reply: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, asked) = (listener.local_addr().unwrap(), Arc::default());
        let guarded = Self { addr, asked: Arc::clone(&asked) };
        let pushes = Arc::new(Mutex::new(0));
        let answer = move |request: Request<Incoming>| {
            let (asked, pushes) = (Arc::clone(&asked), Arc::clone(&pushes));
            async move {
                let field = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
                let is_token_request = request.uri().path() == "/token";
                let body = request.into_body().collect().await?.to_bytes();
                let mut asked = asked.lock().unwrap();
                if is_token_request {
                    asked.push((String::from_utf8(body.to_vec())?, field));
                    let reply = token_reply.replace('N', &asked.len().to_string());
                    *pushes.lock().unwrap() = 0;
                    return Ok(Response::new(Full::new(Bytes::from(reply))));
                }
                let mut pushes = pushes.lock().unwrap();
                *pushes += 1;
                let good = field == Some(format!("Bearer token-{}", asked.len())) && *pushes <= pushes_a_token;
                let (status, reply) = if good { (200, OK) } else { (401, r#"{"ErrCode":4010,"ErrMsg":"no"}"#) };
                let response = Response::builder().status(StatusCode::from_u16(status)?);
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(response.body(Full::new(Bytes::from(reply)))?)
            }
        };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = service_fn(answer.clone());
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        guarded
    }

    /// The search path of this machine's programs stands in for a secret, since it is set everywhere.
    async fn sent(&self, line: &str) -> Sent {
        let addr = self.addr;
        let oauth = "--oauth-client-id my:id --oauth-client-secret-env PATH";
        sent(addr, &format!("--action cdr --oauth-token-url http://{addr}/token {oauth} {line}")).await
    }
}

const TOKEN_REPLY: &str = r#"{"access_token":"token-N","token_type":"bearer","expires_in":900}"#;

#[tokio::test]
async fn pushes_share_a_token_until_it_is_refused() {
    let guarded = Guarded::start(10, TOKEN_REPLY).await;
    let sent = guarded.sent("--count 25 --concurrency 1 --retries 0 ").await;
    assert_eq!(sent.exit(), Exit::Fine);
    let asked = guarded.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 3);
    assert_eq!(asked[0].0, "grant_type=client_credentials");
    let pair = asked[0].1.as_ref().unwrap().strip_prefix("Basic ").unwrap().to_owned();
    let pair = String::from_utf8(base64::Engine::decode(&base64::prelude::BASE64_STANDARD, pair).unwrap()).unwrap();
    assert!(pair.starts_with("my%3Aid:%2F"), "id and secret are form-encoded: {pair}");
}

#[tokio::test]
async fn a_token_that_is_refused_at_once_is_not_fetched_for_ever() {
    let guarded = Guarded::start(0, TOKEN_REPLY).await;
    let sent = guarded.sent("--retries 0 --oauth-client-auth form ").await;
    assert_eq!(sent.tally.reasons(), [(1, "status 401, ErrCode 4010: no".to_owned())]);
    let asked = guarded.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 2);
    assert!(asked[0].0.contains("&client_id=my%3Aid&client_secret=%2F") && asked[0].1.is_none());
}

#[tokio::test]
async fn a_token_that_ends_is_fetched_anew() {
    let guarded = Guarded::start(10, r#"{"access_token":"token-N","expires_in":1}"#).await;
    assert_eq!(guarded.sent("--count 3 --concurrency 1 ").await.exit(), Exit::Fine);
    assert_eq!(guarded.asked.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn without_a_token_nothing_is_sent_and_it_says_why() {
    for (reply, reason) in [
        (r#"{"error":"invalid_client"}"#, "no token: status 200, invalid_client"),
        ("<html>", "no token: status 200, a reply without a token"),
        (r#"{"access_token":"token-N","token_type":"mac"}"#, "no token: the token is no bearer token"),
    ] {
        let sent = Guarded::start(1, reply).await.sent("--retries 0 ").await;
        assert_eq!(sent.tally.reasons(), [(1, reason.to_owned())]);
    }
}
