//! Tokens of a provider that lives in the test.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize, PublicKeyComponents};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::harness::*;
use crate::config::model;
use crate::names::SourceName;

/// One key of the provider.
struct Rsa {
    id: &'static str,
    pair: KeyPair,
}

impl Rsa {
    fn new(id: &'static str) -> Self {
        Self { id, pair: KeyPair::generate(KeySize::Rsa2048).unwrap() }
    }

    fn jwk(&self) -> Value {
        let public = PublicKeyComponents::<Vec<u8>>::from(self.pair.public_key());
        let encode = |number: Vec<u8>| URL_SAFE_NO_PAD.encode(number);
        json!({"kty": "RSA", "use": "sig", "kid": self.id, "n": encode(public.n), "e": encode(public.e)})
    }

    fn sign(&self, header: &Header, claims: &Value) -> String {
        let private: Pkcs8V1Der<'_> = self.pair.as_der().unwrap();
        let pem = pem_of("PRIVATE KEY", private.as_ref());
        jsonwebtoken::encode(header, claims, &EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap()).unwrap()
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(&header(Algorithm::RS256, Some(self.id)), claims)
    }
}

fn header(algorithm: Algorithm, kid: Option<&str>) -> Header {
    Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) }
}

fn in_seconds(seconds: i64) -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + seconds
}

/// Good claims, changed by `change`.
fn claims(change: Value) -> Value {
    let mut claims =
        json!({"iss": "https://idp", "aud": "trunkline", "exp": in_seconds(300), "nbf": in_seconds(-1), "sub": "tccc"});
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

fn set(keys: &[&Rsa]) -> String {
    json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()}).to_string()
}

fn sources(file: Option<&Path>, url: Option<&str>) -> BTreeMap<SourceName, model::Source> {
    let auth = model::Auth::Jwt(model::Jwt {
        issuer: "https://idp".to_owned(),
        audience: "trunkline".to_owned(),
        jwks_file: file.map(Path::to_owned),
        jwks_url: url.map(str::to_owned),
        algorithms: vec![model::Algorithm::RS256],
    });
    BTreeMap::from([(SourceName::from("main"), source("/push", auth))])
}

async fn said(running: &Running, token: &str) -> (u16, i64) {
    let lines = format!("Authorization: Bearer {token}\r\n");
    let reply = running.ask(push_with("/push?action=cdr", "p", &lines, "{}")).await;
    if reply.status == 401 {
        assert_eq!(reply.headers["www-authenticate"], "Bearer realm=\"trunkline\", error=\"invalid_token\"");
    }
    reply.said()
}

#[tokio::test]
async fn a_token_is_taken_only_as_the_provider_made_it_for_us_and_now() {
    let (key, second, stranger) = (Rsa::new("a"), Rsa::new("b"), Rsa::new("a"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("jwks.json");
    std::fs::write(&file, set(&[&key, &second])).unwrap();
    let running = ingress_with(&sources(Some(&file), None)).await;

    for good in [
        claims(json!({})),
        claims(json!({"aud": ["other", "trunkline"]})),
        claims(json!({"exp": in_seconds(-30), "nbf": in_seconds(30)})),
        claims(json!({"nbf": null})),
    ] {
        let token = key.token(&good);
        assert_eq!(said(&running, &token).await, (200, 0), "{good}");
        assert_eq!(said(&running, &token).await, (200, 0), "again, {good}");
    }
    assert_eq!(said(&running, &second.token(&claims(json!({})))).await, (200, 0));

    for bad in [
        json!({"exp": in_seconds(-62)}),
        json!({"exp": null}),
        json!({"exp": "soon"}),
        json!({"nbf": in_seconds(90)}),
        json!({"nbf": "later"}),
        json!({"aud": "other"}),
        json!({"aud": null}),
        json!({"iss": "https://other"}),
        json!({"iss": null}),
    ] {
        assert_eq!(said(&running, &key.token(&claims(bad.clone()))).await, (401, 4010), "{bad}");
    }

    let good = claims(json!({}));
    let public: PublicKeyX509Der<'_> = key.pair.public_key().as_der().unwrap();
    let pem = pem_of("PUBLIC KEY", public.as_ref());
    let signed = key.token(&good);
    let parts: Vec<&str> = signed.split('.').collect();
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT","kid":"a"}"#);
    let hmac = |secret: &[u8]| {
        jsonwebtoken::encode(&header(Algorithm::HS256, Some("a")), &good, &EncodingKey::from_secret(secret)).unwrap()
    };
    let mut critical = header(Algorithm::RS256, Some("a"));
    critical.crit = Some(vec!["exp".to_owned()]);
    for (what, token) in [
        ("alg none", format!("{none}.{}.", parts[1])),
        ("alg none with a signature", format!("{none}.{}.{}", parts[1], parts[2])),
        ("hmac under the public key, pem", hmac(pem.as_bytes())),
        ("hmac under the public key, der", hmac(public.as_ref())),
        ("another algorithm of the same key", key.sign(&header(Algorithm::RS512, Some("a")), &good)),
        ("no key named among several", key.sign(&header(Algorithm::RS256, None), &good)),
        ("another key named", key.sign(&header(Algorithm::RS256, Some("b")), &good)),
        ("a stranger's key of that name", stranger.token(&good)),
        ("an unknown extension", key.sign(&critical, &good)),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("other claims", format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(good.to_string() + " "), parts[2])),
        ("no token", "x".to_owned()),
        ("an unknown key", key.sign(&header(Algorithm::RS256, Some("c")), &good)),
    ] {
        assert_eq!(said(&running, &token).await, (401, 4010), "{what}");
    }
    assert_eq!(
        running.metric("trunkline_auth_failures_total{reason=\"expired\",source=\"main\"}"),
        "1",
        "an expired token is no guess"
    );
    assert_eq!(said(&running, &signed).await, (200, 0));
}

fn pem_of(label: &str, der: &[u8]) -> String {
    let text = base64::prelude::BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[tokio::test]
async fn a_token_that_names_no_key_is_taken_where_there_is_only_one() {
    let key = Rsa::new("a");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("jwks.json");
    std::fs::write(&file, set(&[&key])).unwrap();
    let running = ingress_with(&sources(Some(&file), None)).await;
    let token = key.sign(&header(Algorithm::RS256, None), &claims(json!({})));
    assert_eq!(said(&running, &token).await, (200, 0));
}

#[tokio::test]
async fn a_changed_file_is_read_when_a_token_names_a_new_key() {
    let (old, new) = (Rsa::new("old"), Rsa::new("new"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("jwks.json");
    std::fs::write(&file, set(&[&old])).unwrap();
    let running = ingress_with(&sources(Some(&file), None)).await;
    let (of_old, of_new) = (old.token(&claims(json!({}))), new.token(&claims(json!({}))));
    assert_eq!(said(&running, &of_old).await, (200, 0));
    std::fs::write(&file, set(&[&new])).unwrap();
    assert_eq!(said(&running, &of_new).await, (200, 0));
    assert_eq!(said(&running, &of_old).await, (401, 4010), "a key that is gone is gone for remembered tokens too");
    std::fs::write(&file, "not a set").unwrap();
    said(&running, &old.token(&claims(json!({})))).await;
    assert_eq!(said(&running, &of_new).await, (200, 0), "what cannot be read leaves the earlier keys in use");
}

/// Serves a document to whoever asks, or hangs.
struct Provider {
    url: String,
    /// None hangs.
    document: Arc<Mutex<Option<String>>>,
    fetches: Arc<AtomicUsize>,
}

impl Provider {
    async fn start(document: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys?secret=canary", listener.local_addr().unwrap());
        let provider = Self { url, document: Arc::new(Mutex::new(Some(document))), fetches: Arc::default() };
        let (document, fetches) = (Arc::clone(&provider.document), Arc::clone(&provider.fetches));
        tokio::spawn(async move {
            let mut hanging = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _read = stream.read(&mut [0; 4096]).await.unwrap();
                fetches.fetch_add(1, Ordering::Relaxed);
                let reply = document.lock().unwrap().clone();
                match reply {
                    None => hanging.push(stream),
                    Some(body) => {
                        let head =
                            format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
                        stream.write_all((head + &body).as_bytes()).await.unwrap();
                    }
                }
            }
        });
        provider
    }

    fn gives(&self, document: Option<String>) {
        *self.document.lock().unwrap() = document;
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn fetched_keys_are_there_from_the_start_and_new_ones_when_they_are_needed() {
    let (old, new) = (Rsa::new("old"), Rsa::new("new"));
    let provider = Provider::start(set(&[&old])).await;
    let running = ingress_with(&sources(None, Some(&provider.url))).await;
    let (of_old, of_new) = (old.token(&claims(json!({}))), new.token(&claims(json!({}))));
    assert_eq!(said(&running, &of_old).await, (200, 0));
    assert_eq!(provider.fetches(), 1);
    provider.gives(Some(set(&[&old, &new])));
    assert_eq!(said(&running, &of_new).await, (200, 0));
    provider.gives(Some("{}".to_owned()));
    said(&running, &Rsa::new("c").token(&claims(json!({})))).await;
    assert_eq!(said(&running, &of_new).await, (200, 0), "a failed fetch keeps the keys");
    running.sources.replace(&sources(None, Some(&provider.url))).unwrap();
    assert_eq!(said(&running, &of_old).await, (200, 0), "so does a reload");
}

#[tokio::test]
async fn tokens_with_unknown_keys_cause_one_fetch_a_second_and_hold_up_nobody() {
    let (key, stranger) = (Rsa::new("a"), Rsa::new("b"));
    let provider = Provider::start(set(&[&key])).await;
    let running = Arc::new(ingress_with(&sources(None, Some(&provider.url))).await);
    let (good, unknown) = (key.token(&claims(json!({}))), stranger.token(&claims(json!({}))));
    assert_eq!(said(&running, &good).await, (200, 0));
    provider.gives(None);
    let begun = Instant::now();
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let (running, unknown) = (Arc::clone(&running), unknown.clone());
            tokio::spawn(async move { said(&running, &unknown).await })
        })
        .collect();
    eventually("a fetch hangs", || provider.fetches() == 2).await;
    assert_eq!(said(&running, &good).await, (200, 0));
    assert!(asking.iter().all(|asked| !asked.is_finished()), "the fetch hangs still");
    for asked in asking {
        assert_eq!(asked.await.unwrap(), (401, 4010));
    }
    let most = 2 + begun.elapsed().as_secs() as usize;
    assert!(provider.fetches() <= most, "{} fetches in {:?}", provider.fetches(), begun.elapsed());
}
