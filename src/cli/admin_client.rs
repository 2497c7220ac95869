//! The admin API of a running gateway, as the commands speak to it.
//!
//! Whatever goes wrong is said on stderr here, problem details (RFC 9457) in their own words, and becomes the exit code.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::{Exit, Global};
use crate::config;
use crate::sinks::kinds;

const TOKEN_ENV: &str = "TRUNKLINE_ADMIN_TOKEN";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A reload may wait for sinks that finish what is in hand.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// A client of one gateway's admin listener.
pub struct AdminClient {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl AdminClient {
    /// Where `--admin` says, else where the config says; with the token of the environment. Connects to nothing yet.
    pub fn new(global: &Global) -> Result<Self, Exit> {
        let base = address(global)?;
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| {
                eprintln!("trunkline: no HTTP client can be made: {error}");
                Exit::Failed
            })?;
        let token = std::env::var(TOKEN_ENV).ok().filter(|token| !token.is_empty());
        Ok(Self { http, base, token })
    }

    pub async fn get(&self, path: &str) -> Result<Value, Exit> {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Exit> {
        self.call(Method::POST, path, Some(body)).await
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Exit> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let not_reachable = |error: reqwest::Error| {
            eprintln!("trunkline: the gateway's admin listener at {} does not answer: {}", self.base, cause(&error));
            Exit::NotReachable
        };
        let response = request.send().await.map_err(not_reachable)?;
        let status = response.status();
        let text = response.text().await.map_err(not_reachable)?;
        let answer = serde_json::from_str::<Value>(&text).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(answer);
        }
        eprintln!("trunkline: {}", told(status.as_u16(), &answer));
        Err(Exit::Failed)
    }
}

/// Where the gateway's admin listener is: as `--admin` says, else as the config does.
pub(super) fn address(global: &Global) -> Result<String, Exit> {
    match &global.admin {
        Some(url) => Ok(url.trim_end_matches('/').to_owned()),
        None => configured(global),
    }
}

/// The admin listener of the config.
fn configured(global: &Global) -> Result<String, Exit> {
    let loaded = config::load(&global.config, &global.set, std::env::vars_os(), &kinds()).map_err(|problems| {
        eprintln!("{problems}\nname the gateway with --admin URL to do without the config");
        Exit::BadConfig
    })?;
    Ok(format!("http://{}", reachable(loaded.config.admin.listen)))
}

/// An address that listens everywhere is reached on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The innermost reason, without the URL that the outer ones repeat.
fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// What a refusal says: its detail, and the problems or reasons that it lists, a line each.
fn told(status: u16, answer: &Value) -> String {
    let without_detail = if answer["ready"] == false { "not ready" } else { "the gateway gives no reason" };
    let detail = answer["detail"].as_str().unwrap_or(without_detail);
    let mut text = format!("{detail} ({status})");
    if status == 401 {
        text.push_str(&format!("; the token is taken from the environment variable {TOKEN_ENV}"));
    }
    let listed = ["problems", "reasons"].map(|key| answer[key].as_array());
    for line in listed.into_iter().flatten().flatten().filter_map(Value::as_str) {
        text.push_str("\n  ");
        text.push_str(line);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_is_told_with_all_its_problems() {
        let told = told(422, &json!({"detail": "refused", "problems": ["a: wrong", "b: wrong"]}));
        assert_eq!(told, "refused (422)\n  a: wrong\n  b: wrong");
    }

    #[test]
    fn a_gateway_that_is_not_ready_says_why() {
        assert_eq!(told(503, &json!({"ready": false, "reasons": ["draining"]})), "not ready (503)\n  draining");
    }

    #[test]
    fn an_address_that_listens_everywhere_is_reached_on_loopback() {
        for (listen, reached) in [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), reached);
        }
    }
}
