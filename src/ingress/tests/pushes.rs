use super::harness::*;
use crate::config::model;
use crate::names::{PushId, SessionId, SourceName};
use std::collections::BTreeMap;

#[tokio::test]
async fn an_accepted_push_is_stored_as_it_came() {
    let running = ingress(|_| {}).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let body = "{ \"SessionId\": \"s-1\", \"n\": 9007199254740993123 }";
    let lines = format!("traceparent: {trace}\r\n");
    let reply = running.ask(push_with("/push?version=1&x=y&action=CDR", "p-1", &lines, body)).await;
    assert_eq!((reply.status, &*reply.body), (200, r#"{"ErrCode":0,"ErrMsg":"ok"}"#));
    let push = running.journal.pushes.lock().unwrap()[0].clone();
    assert_eq!(push.id, PushId::from("p-1"));
    assert_eq!((push.source.as_str(), &*push.action, push.version.as_deref()), ("main", "cdr", Some("1")));
    assert_eq!(push.session, Some(SessionId::from("s-1")));
    assert_eq!(push.traceparent.as_deref(), Some(trace));
    assert_eq!(push.body, body);
    assert_eq!(push.received_at.as_nanosecond() % 1_000_000, 0);
    assert_eq!(
        running.metric("trunkline_ingress_pushes_total{action=\"cdr\",outcome=\"accepted\",source=\"main\"}"),
        "1"
    );
    assert_eq!(running.metric("trunkline_ingress_ack_seconds_count{source=\"main\"}"), "1");
}

#[tokio::test]
async fn a_duplicate_is_answered_as_the_first() {
    let running = ingress(|_| {}).await;
    for _ in 0..2 {
        assert_eq!(running.ask(push("p-1", "{}")).await.said(), (200, 0));
    }
    assert_eq!(running.journal.bodies().len(), 1);
    assert!(running.journal.kept.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_known_id_with_another_body_is_acknowledged_and_kept() {
    let running = ingress(|_| {}).await;
    running.ask(push("p-1", "{}")).await;
    assert_eq!(running.ask(push("p-1", "{\"other\":1}")).await.said(), (200, 0));
    let kept = running.journal.kept.lock().unwrap().clone();
    assert_eq!((&*kept[0].code, &kept[0].push.body[..]), ("conflict", &b"{\"other\":1}"[..]));
    assert_eq!(running.metric("trunkline_ingress_dead_letters"), "1");
    assert_eq!(
        running.metric("trunkline_ingress_pushes_total{action=\"cdr\",outcome=\"conflict\",source=\"main\"}"),
        "1"
    );
}

#[tokio::test]
async fn a_push_without_a_usable_id_gets_the_same_derived_one_again() {
    let running = ingress(|_| {}).await;
    let bare = "POST /push?action=cdr HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(running.ask(bare).await.said(), (200, 0));
    assert_eq!(running.ask(push_with("/push?action=cdr", &"a".repeat(129), "", "{}")).await.said(), (200, 0));
    let ids: Vec<_> = running.journal.pushes.lock().unwrap().iter().map(|push| push.id.clone()).collect();
    assert!(ids.len() == 1 && ids[0].as_str().starts_with("sha256-"), "{ids:?}");
    assert_eq!(running.metric("trunkline_ingress_derived_ids_total{source=\"main\"}"), "2");
}

#[tokio::test]
async fn unknown_actions_and_deep_bodies_are_taken() {
    let running = ingress(|_| {}).await;
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(running.ask(push_with("/push?action=brandNew", "p-1", "", &deep)).await.said(), (200, 0));
    assert_eq!(running.ask(push("p-2", "{\"a\":\"\\ud800\"}")).await.said(), (200, 0));
    assert_eq!(running.journal.pushes.lock().unwrap()[0].action, "brandNew");
}

#[tokio::test]
async fn sources_have_paths_and_credentials_of_their_own() {
    let running = ingress(|_| {}).await;
    assert_eq!(running.ask(push_with("/guarded?action=cdr", "p-1", RIGHT, "{}")).await.said(), (200, 0));
    assert_eq!(running.ask(push_with("/guarded?action=cdr", "p-2", "", "{}")).await.said(), (401, 4010));
    assert_eq!(running.ask(push_with("/records?action=RECORD", "p-3", "", "{}")).await.said(), (200, 0));
    assert_eq!(running.ask(push_with("/records?action=cdr", "p-4", "", "{}")).await.said(), (400, 4006));
}

#[tokio::test]
async fn replaced_sources_hold_for_open_connections() {
    let running = ingress(|_| {}).await;
    let mut client = running.connect().await;
    client.send(push("p-1", "{}")).await;
    assert_eq!(client.reply().await.said(), (200, 0));
    let moved = BTreeMap::from([(SourceName::from("main"), source("/moved", model::Auth::None))]);
    running.sources.replace(&moved).unwrap();
    client.send(push("p-2", "{}")).await;
    assert_eq!(client.reply().await.said(), (404, 4040));
    client.send(push_with("/moved?action=cdr", "p-2", "", "{}")).await;
    assert_eq!(client.reply().await.said(), (200, 0));
    let missing = model::Auth::Basic {
        username: "u".into(),
        password: sink_api::settings::Secret::Env("TRUNKLINE_NO_SUCH_VARIABLE".into()),
    };
    assert!(running.sources.replace(&BTreeMap::from([(SourceName::from("main"), source("/x", missing))])).is_err());
    client.send(push_with("/moved?action=cdr", "p-3", "", "{}")).await;
    assert_eq!(client.reply().await.said(), (200, 0));
}
