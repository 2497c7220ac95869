//! What is not fetched, or not kept, and with which reason.

use std::time::Duration;

use serde_json::json;
use sink_api::Outcome;
use test_servers::recorder::{Recorder, Reply};

use crate::support::{SHORT, deliver, fault, home, named, noise, record, sink_on};

const LEN: usize = 100_000;

#[tokio::test]
async fn every_answer_has_its_reason() {
    let recorder = Recorder::start(|request| {
        let path = request.path.split('?').next().unwrap();
        let number = path.trim_start_matches('/').parse::<u16>();
        match path {
            "/html" => {
                Reply::whole(b"<html><body>expired</body></html>".to_vec().into()).header("content-type", "audio/mpeg")
            }
            "/json" => Reply::whole(b"{\"error\":\"expired\"}".to_vec().into()),
            "/empty" => Reply::whole(Vec::new().into()),
            "/gzip" => Reply::file(request, noise("a", LEN), "1").header("content-encoding", "gzip"),
            "/large" => Reply::file(request, noise("a", 3 * LEN), "1"),
            "/endless" => Reply::whole(noise("a", 3 * LEN)).chunked(),
            "/lies" => Reply::whole(noise("a", LEN)).header("etag", "\"1\"").saying_length(LEN as u64 + 9),
            "/stalls" => Reply::file(request, noise("a", LEN), "1").cut_at(0).stalling(),
            "/nowhere" => Reply::status(302),
            "/circle" => Reply::redirect("/circle"),
            _ => Reply::status(number.unwrap()),
        }
    });
    let home = home(&format!("size_max = {}\ntimeout = '{}ms'", 2 * LEN, SHORT.as_millis()));
    for (path, kind, code) in [
        ("/403", "rejected", "http-403"),
        ("/410", "rejected", "http-410"),
        ("/401", "rejected", "http-401"),
        ("/404", "retry", "http-404"),
        ("/500", "retry", "http-500"),
        ("/503", "retry", "http-503"),
        ("/206", "retry", "http-206"),
        ("/429", "patience", "http-429"),
        ("/html", "retry", "not-a-recording"),
        ("/json", "retry", "not-a-recording"),
        ("/empty", "retry", "not-a-recording"),
        ("/gzip", "retry", "content-encoding"),
        ("/large", "rejected", "too-large"),
        ("/endless", "rejected", "too-large"),
        ("/lies", "retry", "connection-lost"),
        ("/stalls", "retry", "timeout"),
        ("/nowhere", "retry", "redirect"),
        ("/circle", "rejected", "redirects"),
    ] {
        let (found_kind, found_code, reason) = fault(&home.sink, record(&recorder, path)).await;
        assert_eq!((found_kind, found_code.as_str()), (kind, code), "{path}: {reason}");
        assert!(reason.contains(&recorder.address().to_string()) && !reason.contains(path), "{reason}");
    }
    assert_eq!(home.files(), 0, "nothing was kept");
}

#[tokio::test]
async fn a_server_that_asks_for_patience_gets_it() {
    let recorder = Recorder::start(|_| Reply::status(503).header("retry-after", "7"));
    let home = home("");
    match deliver(&home.sink, record(&recorder, "/a.mp3")).await {
        Outcome::Retry { after, .. } => assert_eq!(after, Some(Duration::from_secs(7))),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn no_redirect_leads_inside() {
    let recorder = Recorder::start(|request| {
        let (_, to) = request.path.split_once("?to=").unwrap();
        Reply::redirect(to)
    });
    let home = home("");
    for (to, code) in [
        ("http://169.254.169.254/latest/meta-data", "address-refused"),
        ("http://10.0.0.1/", "address-refused"),
        ("http://[::1]:80/", "address-refused"),
        ("http://elsewhere.test/canarysign", "host-refused"),
        ("http://127.0.0.1.elsewhere.test/", "host-refused"),
        ("http://2130706434/", "host-refused"),
        ("file:///etc/passwd", "bad-url"),
        ("http://canarysign:canarysign@127.0.0.1/", "bad-url"),
    ] {
        let event = named("record", "r-1", "s-1", json!({ "url": recorder.url(&format!("/a?to={to}")) }));
        let (kind, found, reason) = fault(&home.sink, event).await;
        assert_eq!((kind, found.as_str()), ("rejected", code), "{to}: {reason}");
    }
}

#[tokio::test]
async fn a_url_of_an_event_gets_no_further_than_a_redirect() {
    let home = home("");
    let port = Recorder::start(|_| Reply::status(404)).address().port();
    for (url, code) in [
        (json!("http://10.0.0.1/a"), "address-refused"),
        (json!("http://elsewhere.test/a"), "host-refused"),
        (json!("http://127.1.elsewhere.test/a"), "host-refused"),
        (json!("ftp://127.0.0.1/a"), "bad-url"),
        (json!("not a url"), "bad-url"),
        (json!("http://u:p@127.0.0.1/a"), "bad-url"),
        (json!(null), "no-url"),
        (json!({}), "bad-data"),
    ] {
        let (kind, found, reason) = fault(&home.sink, named("record", "r-1", "s-1", json!({ "url": url }))).await;
        assert_eq!((kind, found.as_str()), ("rejected", code), "{url}: {reason}");
    }
    // A name is judged by what it resolves to, when it is connected to.
    let closed = sink_on(home.dir.path(), "allow_networks = ['10.0.0.0/8']");
    let by_name = named("record", "r-1", "s-1", json!({ "url": format!("http://localhost:{port}/a") }));
    let (kind, code, _) = fault(&closed, by_name).await;
    assert_eq!((kind, code.as_str()), ("rejected", "address-refused"));
    let (kind, code, _) =
        fault(&home.sink, named("record", "r-1", "s-1", json!({ "url": "http://127.0.0.1:1/" }))).await;
    assert_eq!((kind, code.as_str()), ("retry", "connect"), "a server that is away is no fault of the link");
}

#[tokio::test]
async fn trouble_of_our_own_is_no_fault_of_a_recording() {
    let recorder = Recorder::start(|request| Reply::file(request, noise("a", LEN), "1"));
    let home = home("spool_dir = '/nonexistent'");
    let (kind, code, _) = fault(&home.sink, record(&recorder, "/a.mp3")).await;
    assert_eq!((kind, code.as_str()), ("away", "spool"));
    let sink = sink_on(home.dir.path(), "");
    std::fs::write(home.dir.path().join("archive"), "in the way").unwrap();
    let (kind, code, _) = fault(&sink, record(&recorder, "/a.mp3")).await;
    assert_eq!((kind, code.as_str()), ("away", "not-a-directory"));
    assert!(sink.probe().await.is_err());
    sink.close().await;
    let (kind, code, _) = fault(&sink, record(&recorder, "/a.mp3")).await;
    assert_eq!((kind, code.as_str()), ("away", "closed"));
}

#[tokio::test]
async fn a_stalled_recording_holds_up_its_own_session_alone() {
    let recorder = Recorder::start(|request| match request.path.as_str() {
        "/stalls" => Reply::file(request, noise("a", LEN), "1").cut_at(0).stalling(),
        _ => Reply::file(request, noise("b", LEN), "1"),
    });
    let home = home(&format!("timeout = '{}ms'", SHORT.as_millis()));
    let of = |recording: &str, session: &str, path: &str| {
        named("record", recording, session, json!({ "url": recorder.url(path) }))
    };
    let events = vec![of("r-1", "s-1", "/stalls"), of("r-2", "s-1", "/b"), of("r-3", "s-2", "/b")];
    let outcomes = home.sink.deliver(&sink_api::conformance::batch(0, 1, events)).await;
    assert!(matches!(&outcomes[0], Outcome::Retry { burns_attempt: true, .. }), "{outcomes:?}");
    assert!(matches!(&outcomes[1], Outcome::Retry { burns_attempt: false, .. }), "{outcomes:?}");
    assert!(matches!(&outcomes[2], Outcome::Delivered { derived: Some(_) }), "{outcomes:?}");
}
