use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use sink_api::settings::{Period, Secret};

use super::harness::*;
use crate::config::model;
use crate::names::SourceName;

const GRANT: &str = "grant_type=client_credentials";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

fn oauth2(token_path: &str, secrets: &[&str]) -> model::Auth {
    model::Auth::OAuth2(model::OAuth2 {
        token_path: token_path.to_owned(),
        client_id: "tccc".to_owned(),
        client_secret: model::Secrets(secrets.iter().map(|secret| Secret::from(*secret)).collect()),
        token_ttl: Period::from_secs(900),
        signing_key: None,
    })
}

fn sources(secrets: &[&str]) -> BTreeMap<SourceName, model::Source> {
    BTreeMap::from([
        (SourceName::from("main"), source("/push", oauth2("/oauth/token", secrets))),
        (SourceName::from("other"), source("/other", oauth2("/other/token", secrets))),
    ])
}

fn basic_field(pair: &str) -> String {
    format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(pair))
}

fn token_request(target: &str, lines: &str, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn json(reply: &Reply) -> Value {
    assert_eq!(reply.headers["content-type"], "application/json");
    assert_eq!((&*reply.headers["cache-control"], &*reply.headers["pragma"]), ("no-store", "no-cache"));
    serde_json::from_str(&reply.body).unwrap()
}

/// `(status, error)` of a reply of a token endpoint.
fn error(reply: &Reply) -> (u16, String) {
    let body = json(reply);
    assert!(body["error_description"].is_string() && body.get("access_token").is_none());
    (reply.status, body["error"].as_str().unwrap().to_owned())
}

async fn token(running: &Running, path: &str, secret: &str) -> String {
    let lines = format!("{FORM}{}", basic_field(&format!("tccc:{secret}")));
    let reply = running.ask(token_request(path, &lines, GRANT)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let body = json(&reply);
    assert_eq!((&body["token_type"], &body["expires_in"]), (&"Bearer".into(), &900.into()));
    body["access_token"].as_str().unwrap().to_owned()
}

fn push_with_token(path: &str, token: &str) -> String {
    push_with(&format!("{path}?action=cdr"), "p", &format!("Authorization: Bearer {token}\r\n"), "{}")
}

#[tokio::test]
async fn a_token_fetched_by_header_or_form_lets_a_push_in() {
    let running = ingress_with(&sources(&["s"])).await;
    let by_header = token(&running, "/oauth/token", "s").await;
    let body = format!("{GRANT}&client_id=tccc&client_secret=s&scope=any");
    let reply = running.ask(token_request("/oauth/token?tenant=1", FORM, &body)).await;
    let by_form = json(&reply)["access_token"].as_str().unwrap().to_owned();
    for token in [by_header, by_form] {
        assert_eq!(running.ask(push_with_token("/push", &token)).await.said(), (200, 0));
        let refused = running.ask(push_with_token("/other", &token)).await;
        assert_eq!(refused.said(), (401, 4010), "a token of one source is none of another's");
    }
}

#[tokio::test]
async fn a_push_without_a_good_token_is_told_to_bring_one() {
    let running = ingress_with(&sources(&["s"])).await;
    let missing = running.ask(push_with("/push?action=cdr", "p", "", "{}")).await;
    assert_eq!(missing.said(), (401, 4010));
    assert_eq!(missing.headers["www-authenticate"], "Bearer realm=\"trunkline\"");
    let wrong = running.ask(push_with_token("/push", "hunter2")).await;
    assert_eq!(wrong.said(), (401, 4010));
    assert_eq!(wrong.headers["www-authenticate"], "Bearer realm=\"trunkline\", error=\"invalid_token\"");
    assert_eq!(wrong.body, missing.body);
    let by_password = running.ask(push_with("/push?action=cdr", "p", &basic_field("tccc:s"), "{}")).await;
    assert_eq!(by_password.said(), (401, 4010));
}

#[tokio::test]
async fn the_token_endpoint_refuses_by_the_book() {
    let running = ingress_with(&sources(&["s"])).await;
    let (right, wrong) = (basic_field("tccc:s"), basic_field("tccc:wrong"));
    let with_basic = format!("{FORM}{right}");
    let in_form = format!("{GRANT}&client_id=tccc&client_secret=s");
    let large = format!("{in_form}&x={}", "y".repeat(8 << 10));
    let cases = [
        (token_request("/oauth/token", &format!("{FORM}{wrong}"), GRANT), 401, "invalid_client"),
        (token_request("/oauth/token", &format!("{FORM}{}", basic_field("other:s")), GRANT), 401, "invalid_client"),
        (token_request("/oauth/token", FORM, GRANT), 401, "invalid_client"),
        (token_request("/oauth/token", FORM, &in_form.replace("=s", "=t")), 401, "invalid_client"),
        (token_request("/oauth/token", &with_basic, "grant_type=password"), 400, "unsupported_grant_type"),
        (token_request("/oauth/token", &with_basic, ""), 400, "invalid_request"),
        (token_request("/oauth/token", &with_basic, &in_form), 400, "invalid_request"),
        (token_request("/oauth/token", &with_basic, &format!("{GRANT}&{GRANT}")), 400, "invalid_request"),
        (token_request("/oauth/token", "Content-Type: application/json\r\n", "{}"), 400, "invalid_request"),
        (token_request("/oauth/token", &right, GRANT), 400, "invalid_request"),
        (token_request("/oauth/token?client_secret=s", FORM, GRANT), 400, "invalid_request"),
        (token_request("/oauth/token?client_id=tccc&client_secret=s", FORM, GRANT), 400, "invalid_request"),
        (token_request("/oauth/token", FORM, &large), 413, "invalid_request"),
        ("GET /oauth/token HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 405, "invalid_request"),
    ];
    for (request, status, code) in cases {
        let reply = running.ask(&request).await;
        assert_eq!(error(&reply), (status, code.to_owned()), "{request}");
        assert_eq!(status == 401, reply.headers.get("www-authenticate").is_some_and(|it| it.starts_with("Basic ")));
        assert_eq!(status == 405, reply.headers.get("allow").is_some_and(|allow| allow == "POST"));
    }
}

#[tokio::test]
async fn a_secret_is_rotated_without_a_gap() {
    let running = ingress_with(&sources(&["old"])).await;
    let before = token(&running, "/oauth/token", "old").await;
    running.sources.replace(&sources(&["new", "old"])).unwrap();
    let during = [token(&running, "/oauth/token", "old").await, token(&running, "/oauth/token", "new").await];
    for token in [&before, &during[0], &during[1]] {
        assert_eq!(running.ask(push_with_token("/push", token)).await.said(), (200, 0));
    }
    running.sources.replace(&sources(&["new"])).unwrap();
    assert_eq!(running.ask(push_with_token("/push", &during[0])).await.said(), (200, 0));
    assert_eq!(running.ask(push_with_token("/push", &before)).await.said(), (401, 4010));
    let lines = format!("{FORM}{}", basic_field("tccc:old"));
    let reply = running.ask(token_request("/oauth/token", &lines, GRANT)).await;
    assert_eq!(error(&reply), (401, "invalid_client".to_owned()));
}

#[tokio::test]
async fn guessing_secrets_or_tokens_is_slowed_and_right_ones_pass() {
    let running = ingress_with(&sources(&["s"])).await;
    let good = token(&running, "/oauth/token", "s").await;
    let mut client = running.connect().await;
    let guess = token_request("/oauth/token", &format!("{FORM}{}", basic_field("tccc:guess")), GRANT);
    for _ in 0..60 {
        client.send(&guess).await;
        assert_eq!(error(&client.reply().await), (401, "invalid_client".to_owned()));
    }
    client.send(&guess).await;
    let reply = client.reply().await;
    assert_eq!(error(&reply), (429, "invalid_client".to_owned()));
    assert!(reply.headers["retry-after"].parse::<u64>().unwrap() <= 60);
    assert_eq!(running.ask(push_with_token("/push", "guess")).await.said(), (429, 4290));
    assert_eq!(running.ask(push_with_token("/push", &good)).await.said(), (200, 0));
    assert_eq!(
        running.ask(push_with_token("/push", &token(&running, "/oauth/token", "s").await)).await.said(),
        (200, 0)
    );
}
