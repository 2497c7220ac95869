//! What each answer of a receiver, or none, means.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use hyper::Version;
use sink_api::Outcome;
use sink_api::conformance::{batch, event};

use crate::receiver::{Answer, Receiver, deliver, sink, told};

#[tokio::test]
async fn every_class_of_status_has_its_outcome() {
    let status = Arc::new(AtomicU16::new(0));
    let answered = Arc::clone(&status);
    let body = Bytes::from_static(b"hunter2 says no");
    let receiver =
        Receiver::start(move |_| Answer::Reply(answered.load(Ordering::SeqCst), Vec::new(), body.clone())).await;
    let sink = sink(&receiver.url(), "");
    for (expected, statuses) in [
        ("delivered", &[200, 201, 202, 204, 226][..]),
        ("patience", &[429]),
        ("retry", &[408, 425, 500, 502, 503, 504, 599]),
        ("away", &[300, 301, 302, 303, 304, 307, 308, 401, 403, 404, 410]),
        ("rejected", &[400, 402, 405, 406, 409, 411, 413, 415, 422, 451, 499]),
    ] {
        for &code in statuses {
            status.store(code, Ordering::SeqCst);
            let outcome = deliver(&*sink).await;
            let expected_code = match code {
                200..300 => String::new(),
                300..400 => "redirect".to_owned(),
                _ => format!("http-{code}"),
            };
            assert_eq!(told(&outcome), (expected, expected_code.as_str()), "{code}");
        }
    }
}

#[tokio::test]
async fn a_receiver_says_when_to_come_again_in_seconds_or_by_a_date() {
    let in_a_minute = httpdate(SystemTime::now() + Duration::from_secs(60));
    let long_ago = httpdate(SystemTime::UNIX_EPOCH);
    let answers = Arc::new(Mutex::new((0, String::new())));
    let script = Arc::clone(&answers);
    let receiver = Receiver::start(move |_| {
        let (status, after) = script.lock().unwrap().clone();
        Answer::Reply(status, vec![("retry-after", after)], Bytes::new())
    })
    .await;
    let sink = sink(&receiver.url(), "");
    for status in [429, 503, 408, 401, 302] {
        for (text, seconds) in [
            ("7".to_owned(), Some(7..=7)),
            (in_a_minute.clone(), Some(50..=60)),
            (long_ago.clone(), Some(0..=0)),
            ("soon".to_owned(), None),
        ] {
            *answers.lock().unwrap() = (status, text.clone());
            let outcome = deliver(&*sink).await;
            let (Outcome::Retry { after, .. } | Outcome::Unavailable { after, .. }) = outcome else {
                panic!("{status}: {outcome:?}");
            };
            let is_right = match (&seconds, after) {
                (Some(range), Some(after)) => range.contains(&after.as_secs()),
                (None, None) => true,
                _ => false,
            };
            assert!(is_right, "{status} {text}: {after:?}");
        }
    }
}

fn httpdate(at: SystemTime) -> String {
    httpdate::fmt_http_date(at)
}

#[tokio::test]
async fn no_reply_in_time_is_the_event_s_trouble() {
    let receiver = Receiver::start(|_| Answer::Hang).await;
    let sink = sink(&receiver.url(), "timeout = \"300ms\"\nconnect_timeout = \"200ms\"");
    let begun = Instant::now();
    assert_eq!(told(&deliver(&*sink).await), ("retry", "timeout"));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(sink.probe().await.unwrap_err().code, "timeout");
}

#[tokio::test]
async fn a_connection_lost_before_the_reply_is_the_event_s_trouble() {
    let receiver = Receiver::start(|_| Answer::HangUp).await;
    assert_eq!(told(&deliver(&*sink(&receiver.url(), "")).await), ("retry", "connection-lost"));
}

#[tokio::test]
async fn a_refused_connection_is_an_outage() {
    let receiver = Receiver::start(|_| Answer::status(200)).await;
    receiver.stop().await;
    let sink = sink(&receiver.url(), "");
    let outcome = deliver(&*sink).await;
    assert_eq!(told(&outcome), ("away", "connect"));
    assert_eq!(sink.probe().await.unwrap_err().code, "connect");
}

#[tokio::test]
async fn a_connection_that_is_not_made_in_time_is_an_outage() {
    // Takes connections and says nothing, so that TLS never begins.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/hook?token=hunter2", silent.local_addr().unwrap());
    let sink = sink(&url, "timeout = \"60s\"\nconnect_timeout = \"200ms\"");
    let begun = Instant::now();
    assert_eq!(told(&deliver(&*sink).await), ("away", "connect"));
    assert_eq!(sink.probe().await.unwrap_err().code, "connect");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn what_does_not_speak_tls_is_an_outage() {
    let receiver = Receiver::start(|_| Answer::status(200)).await;
    let sink = sink(&receiver.url().replace("http:", "https:"), "");
    assert_eq!(told(&deliver(&*sink).await), ("away", "tls"));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Receiver::start(|_| Answer::status(200)).await;
    let location = elsewhere.url();
    let receiver =
        Receiver::start(move |_| Answer::Reply(307, vec![("location", location.clone())], Bytes::new())).await;
    assert_eq!(told(&deliver(&*sink(&receiver.url(), "")).await), ("away", "redirect"));
    assert_eq!((receiver.connections(), elsewhere.connections()), (1, 0));
}

#[tokio::test]
async fn after_an_outage_the_rest_of_the_batch_is_not_tried() {
    let receiver = Receiver::start(|_| Answer::status(401)).await;
    let events = (0..400).map(|n| event(&format!("p-{n}"), &format!("s-{}", n % 100))).collect();
    let outcomes = sink(&receiver.url(), "").deliver(&batch(0, 1, events)).await;
    assert_eq!(outcomes.len(), 400);
    assert!(outcomes.iter().all(|outcome| told(outcome) == ("away", "http-401")));
    assert!(receiver.received().len() <= 16, "{}", receiver.received().len());
}

#[tokio::test]
async fn a_failed_event_holds_up_its_session_alone_and_order_is_kept() {
    let receiver =
        Receiver::start(|received| Answer::status(if received.header("webhook-id") == "s1-3" { 500 } else { 200 }))
            .await;
    let events: Vec<_> =
        (0..10).flat_map(|n| (0..3).map(move |s| event(&format!("s{s}-{n}"), &format!("s{s}")))).collect();
    let outcomes = sink(&receiver.url(), "").deliver(&batch(0, 1, events.clone())).await;
    for (event, outcome) in events.iter().zip(&outcomes) {
        let expected = match event.id.strip_prefix("s1-").map(|n| n.parse::<u8>().unwrap()) {
            Some(3) => ("retry", "http-500"),
            Some(4..) => ("patience", "waits"),
            _ => ("delivered", ""),
        };
        assert_eq!(told(outcome), expected, "{}", event.id);
    }
    for session in ["s0", "s1", "s2"] {
        let ids = receiver.posted().into_iter().map(|received| received.header("webhook-id").to_owned());
        let ids: Vec<_> = ids.filter(|id| id.starts_with(session)).collect();
        assert!(ids.is_sorted() && ids.len() == if session == "s1" { 4 } else { 10 }, "{ids:?}");
    }
}

#[tokio::test]
async fn connections_are_used_again() {
    let receiver = Receiver::start(|_| Answer::Reply(200, Vec::new(), Bytes::from(vec![b'x'; 60 << 10]))).await;
    let sink = sink(&receiver.url(), "");
    sink.probe().await.unwrap();
    for n in 0..50 {
        let outcomes = sink.deliver(&batch(0, n, vec![event(&format!("p-{n}"), "s")])).await;
        assert_eq!(outcomes, [Outcome::delivered()]);
    }
    assert_eq!(receiver.connections(), 1);
    assert!(receiver.posted().iter().all(|received| received.version == Version::HTTP_11));
}

#[tokio::test]
async fn a_long_reply_is_not_read_to_its_end() {
    let receiver = Receiver::start(|_| Answer::Reply(200, Vec::new(), Bytes::from(vec![b'x'; 64 << 20]))).await;
    let begun = Instant::now();
    assert_eq!(told(&deliver(&*sink(&receiver.url(), "")).await).0, "delivered");
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(receiver.still_open().await, 0, "the connection is given up");
}

#[tokio::test]
async fn a_probe_asks_for_options_and_takes_any_reply_but_that_of_a_proxy_without_a_receiver() {
    for (status, is_there) in [
        (200, true),
        (204, true),
        (400, true),
        (401, true),
        (404, true),
        (405, true),
        (501, true),
        (502, false),
        (503, false),
        (504, false),
    ] {
        let receiver = Receiver::start(move |_| Answer::status(status)).await;
        let probed = sink(&receiver.url(), "headers = { X-Key = \"k\" }").probe().await;
        assert_eq!(probed.is_ok(), is_there, "{status}: {probed:?}");
        let received = receiver.received();
        assert_eq!((received.len(), received[0].method.as_str(), received[0].header("x-key")), (1, "OPTIONS", "k"));
        assert!(received[0].body.is_empty());
    }
}

#[tokio::test]
async fn headers_and_credentials_of_the_config_are_sent() {
    let receiver = Receiver::start(|_| Answer::status(200)).await;
    let with_user = receiver.url().replace("http://", "http://Aladdin:open%20sesame@");
    for (url, more, authorization) in [
        (receiver.url(), "auth = { type = \"bearer\", token = \"t-1\" }", "Bearer t-1"),
        (
            receiver.url(),
            "auth = { type = \"basic\", username = \"Aladdin\", password = \"open sesame\" }",
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        ),
        (with_user, "", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        (receiver.url(), "headers = { Authorization = \"Key k\", User-Agent = \"u\", X-A = \"b\" }", "Key k"),
    ] {
        assert_eq!(told(&deliver(&*sink(&url, more)).await).0, "delivered");
        let received = receiver.posted().pop().unwrap();
        assert_eq!(received.header("authorization"), authorization);
        assert!(received.headers.get("webhook-signature").is_none());
        let agent = if more.contains("User-Agent") { "u" } else { "trunkline/" };
        assert!(received.header("user-agent").starts_with(agent));
    }
    assert_eq!(receiver.posted().pop().unwrap().header("x-a"), "b");
}
