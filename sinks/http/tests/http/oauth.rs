//! Access tokens: fetched once, kept, renewed, and fetched anew when one is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use sink_api::conformance::{batch, event};

use crate::receiver::{Answer, Received, Receiver, deliver, sink, told};

/// A receiver that gives tokens `t-1`, `t-2`, … of so many seconds at `/token`, and takes those that `accepts` says yes to.
async fn receiver(life: u32, accepts: fn(usize) -> bool) -> Receiver {
    let given = Arc::new(AtomicUsize::new(0));
    Receiver::start(move |received| {
        if received.path == "/token" {
            let number = given.fetch_add(1, Ordering::SeqCst) + 1;
            return granted(&format!(
                r#"{{"access_token":"t-{number}","token_type":"Bearer","expires_in":{life},"scope":"events"}}"#
            ));
        }
        let token = received.header("authorization").strip_prefix("Bearer t-").expect("a token of ours");
        Answer::status(if accepts(token.parse().unwrap()) { 200 } else { 401 })
    })
    .await
}

fn granted(json: &str) -> Answer {
    Answer::Reply(200, vec![("content-type", "application/json".to_owned())], Bytes::copy_from_slice(json.as_bytes()))
}

fn auth(receiver: &Receiver) -> String {
    format!(
        "auth = {{ type = \"oauth2\", token_url = \"http://{}/token\", client_id = \"me & co\", client_secret = \"hunter2%\", scope = \"events\" }}",
        receiver.address
    )
}

fn tokens_asked_for(receiver: &Receiver) -> Vec<Received> {
    receiver.posted().into_iter().filter(|received| received.path == "/token").collect()
}

#[tokio::test]
async fn one_token_is_fetched_for_all_and_kept() {
    let receiver = receiver(3600, |_| true).await;
    let sink = sink(&receiver.url(), &auth(&receiver));
    sink.probe().await.unwrap();
    let events = (0..100).map(|n| event(&format!("p-{n}"), &format!("s-{n}"))).collect();
    let outcomes = sink.deliver(&batch(0, 1, events)).await;
    assert!(outcomes.iter().all(|outcome| told(outcome).0 == "delivered"));
    let asked = tokens_asked_for(&receiver);
    assert_eq!(asked.len(), 1);
    // RFC 6749 section 2.3.1: "me & co" and "hunter2%", form-encoded, then Basic.
    assert_eq!(asked[0].header("authorization"), "Basic bWUrJTI2K2NvOmh1bnRlcjIlMjU=");
    assert_eq!(&asked[0].body[..], b"grant_type=client_credentials&scope=events");
}

#[tokio::test]
async fn a_token_at_its_end_is_renewed() {
    let receiver = receiver(0, |_| true).await;
    let sink = sink(&receiver.url(), &auth(&receiver));
    for _ in 0..3 {
        assert_eq!(told(&deliver(&*sink).await).0, "delivered");
    }
    assert_eq!(tokens_asked_for(&receiver).len(), 3);
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once() {
    let receiver_once = receiver(3600, |number| number > 1).await;
    let events = (0..100).map(|n| event(&format!("p-{n}"), &format!("s-{n}"))).collect();
    let outcomes = sink(&receiver_once.url(), &auth(&receiver_once)).deliver(&batch(0, 1, events)).await;
    assert!(outcomes.iter().all(|outcome| told(outcome).0 == "delivered"));
    assert_eq!(tokens_asked_for(&receiver_once).len(), 2, "all who were refused share the new one");

    let never = receiver(3600, |_| false).await;
    assert_eq!(told(&deliver(&*sink(&never.url(), &auth(&never))).await), ("away", "http-401"));
    assert_eq!(tokens_asked_for(&never).len(), 2);
}

#[tokio::test]
async fn without_a_token_nothing_is_sent() {
    let refusal = br#"{"error":"invalid_client","error_description":"hunter2"}"#;
    for (code, said) in [
        ("token-401", "invalid_client"),
        ("token-reply", "without a usable bearer token"),
        ("connection-lost", "no access token"),
    ] {
        let receiver = Receiver::start(move |_| match code {
            "token-401" => Answer::Reply(401, Vec::new(), Bytes::from_static(refusal)),
            "token-reply" => granted("{}"),
            _ => Answer::HangUp,
        })
        .await;
        let sink = sink(&receiver.url(), &auth(&receiver));
        assert_eq!(told(&deliver(&*sink).await), ("away", code));
        let fault = sink.probe().await.unwrap_err();
        assert!(fault.reason.contains(said), "{fault:?}");
        assert!(receiver.received().iter().all(|received| received.path == "/token"));
    }
}
