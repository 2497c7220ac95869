//! Only who is let in can push: by tokens of the gateway's own, fetched by independent clients, or of a foreign provider.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{GatewayBuilder, Sender, folder, trunkline, wait_for_events};

const OAUTH: &str = "[sources.oauth]\npath = \"/oauth\"\n[sources.oauth.auth]\ntype = \"oauth2\"\nclient_id = \"tccc\"\n\
                     client_secret = [{ env = \"SECRET\" }, { env = \"OLD_SECRET\" }]\n";
const SECRET: &str = "s +%&=:%41/secret";

fn gateway(dir: &Path) -> GatewayBuilder {
    GatewayBuilder::new(dir).config(OAUTH).env("SECRET", SECRET).env("OLD_SECRET", "old")
}

/// What the clients of `clients/oauth.py` say.
fn clients(gateway: std::net::SocketAddr, secret: &str) -> Vec<Value> {
    let urls = [format!("http://{gateway}/oauth/token"), format!("http://{gateway}/oauth?action=cdr")];
    python("oauth.py", &[&urls[0], &urls[1], "tccc"], secret)
}

/// The lines that a script of `clients` prints.
fn python(script: &str, args: &[&str], secret: &str) -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/servers/python/bin/python");
    assert!(python.exists(), "{} is missing: run tests/servers/install", python.display());
    let output = Command::new(python)
        .arg(root.join("tests/it/clients").join(script))
        .args(args)
        .env("CLIENT_SECRET", secret)
        .env("NO_PROXY", "*")
        .output()
        .expect("python starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} failed (run tests/servers/install if a module is missing): {said}");
    let lines = String::from_utf8(output.stdout).expect("text");
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test]
async fn independent_clients_fetch_tokens_and_push_with_them() {
    let dir = folder();
    let gateway = gateway(dir.path()).start().await;
    for secret in [SECRET, "old"] {
        let lines = clients(gateway.ingress, secret);
        assert_eq!(lines.len(), 4);
        for line in lines {
            assert_eq!((&line["status"], &line["err_code"]), (&json!(200), &json!(0)), "{line}");
            assert_eq!((&line["token"]["token_type"], &line["token"]["expires_in"]), (&json!("Bearer"), &json!(900)));
        }
    }
    for line in clients(gateway.ingress, "wrong") {
        assert_eq!(line["error"], "invalid_client", "{line}");
    }
    assert_eq!(wait_for_events(&dir.path().join("events.ndjson"), 4).await.len(), 4);
    gateway.stop().await;
}

#[tokio::test]
async fn the_sender_pushes_with_tokens() {
    let dir = folder();
    let gateway = gateway(dir.path()).start().await;
    let send = |secret: &str, auth: &str| {
        std::fs::write(dir.path().join("body.json"), r#"{"SessionId":"s"}"#).unwrap();
        let url = |path: &str| format!("http://{}{path}", gateway.ingress);
        trunkline()
            .args(["send", "--action", "cdr", "--count", "20", "--retries", "0", "--url", &url("/oauth"), "--json"])
            .args(["--oauth-token-url", &url("/oauth/token"), "--oauth-client-id", "tccc", "--oauth-client-auth", auth])
            .args(["--oauth-client-secret-env", "CLIENT_SECRET", "body.json"])
            .env("CLIENT_SECRET", secret)
            .current_dir(dir.path())
            .output()
            .unwrap()
    };
    for auth in ["basic", "form"] {
        let output = send(SECRET, auth);
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&summary["accepted"], &summary["failed"]), (&json!(20), &json!(0)), "{output:?}");
    }
    let output = send("wrong", "basic");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("no token: status 401, invalid_client") && !said.contains("wrong"), "{said}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_token_of_one_gateway_is_good_at_another_with_the_same_config() {
    let (one, other) = (folder(), folder());
    let (one, other) = (gateway(one.path()).start().await, gateway(other.path()).start().await);
    let token = fetch(one.ingress, SECRET).await;
    let client = reqwest::Client::new();
    let push =
        |addr, token: &str| client.post(format!("http://{addr}/oauth?action=cdr")).bearer_auth(token).body("{}").send();
    for gateway in [&one, &other] {
        assert_eq!(push(gateway.ingress, &token).await.unwrap().status(), 200);
    }
    assert_eq!(Sender::new(&format!("http://{}/oauth", one.ingress)).once("cdr", "p", "{}").await.unwrap().0, 401);
    one.stop().await;
    other.stop().await;
}

async fn fetch(gateway: std::net::SocketAddr, secret: &str) -> String {
    let response = reqwest::Client::new()
        .post(format!("http://{gateway}/oauth/token"))
        .basic_auth("tccc", Some(secret))
        .header("content-type", "application/x-www-form-urlencoded")
        .body("grant_type=client_credentials")
        .send()
        .await
        .expect("a reply");
    let body: Value = serde_json::from_str(&response.text().await.expect("a body")).expect("JSON");
    body["access_token"].as_str().expect("a token").to_owned()
}

#[tokio::test]
async fn tokens_of_an_independent_provider_are_judged() {
    let dir = folder();
    let jwks = dir.path().join("jwks.json");
    let tokens = python("jwt.py", &[&jwks.display().to_string()], "");
    assert!(tokens.len() >= 20, "{tokens:?}");
    let jwt = "[sources.jwt]\npath = \"/jwt\"\n[sources.jwt.auth]\ntype = \"jwt\"\nissuer = \"https://idp\"\n\
               audience = \"trunkline\"\njwks_file = \"jwks.json\"\n\
               algorithms = [\"RS256\", \"RS384\", \"RS512\", \"PS256\", \"PS384\", \"PS512\", \"ES256\", \"ES384\", \"EdDSA\"]";
    let gateway = GatewayBuilder::new(dir.path()).config(jwt).start().await;
    for token in tokens {
        let bearer = token["token"].as_str().unwrap();
        let request = reqwest::Client::new().post(format!("http://{}/jwt?action=cdr", gateway.ingress));
        let reply = request.bearer_auth(bearer).body("{}").send().await.unwrap();
        let status = if token["good"] == true { 200 } else { 401 };
        assert_eq!(reply.status(), status, "{}", token["name"]);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn keys_that_cannot_be_used_are_told_at_the_start() {
    let dir = folder();
    std::fs::write(dir.path().join("jwks.json"), r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#).unwrap();
    let jwt = "[sources.jwt]\npath = \"/jwt\"\nauth = { type = \"jwt\", issuer = \"i\", audience = \"a\", jwks_file = \"jwks.json\" }";
    let key = "[sources.key]\npath = \"/key\"\n[sources.key.auth]\ntype = \"oauth2\"\nclient_id = \"a\"\n\
               client_secret = \"b\"\nsigning_key = \"hunter2\"";
    for (config, reason) in [(jwt, "holds no key"), (key, "no Ed25519 private key")] {
        let output = GatewayBuilder::new(dir.path()).config(config).expect_errors().output();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(!output.status.success() && said.contains(reason) && !said.contains("hunter2"), "{said}");
    }
}
