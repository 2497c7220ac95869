//! The admin API of a running gateway, as the commands speak to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Exit, Global};
use crate::config;
use crate::sinks::kinds;

const TOKEN_ENV: &str = "TRUNKLINE_ADMIN_TOKEN";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two pieces of an answer. A reload may wait for sinks that finish what is in hand, and a purge of very many dead letters
/// answers when all are gone.
const READ_TIMEOUT: Duration = Duration::from_secs(300);

/// The gateway did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdminError {
    #[error("the gateway's admin listener at {base} does not answer: {cause}")]
    NotReachable { base: String, cause: String },
    /// In the words of its problem details (RFC 9457).
    #[error("{told}")]
    Refused { status: u16, told: String },
    #[error("the gateway's answer was not understood: {0}")]
    Broken(String),
    #[error("the token in {TOKEN_ENV} cannot be sent: it is not visible ASCII")]
    Token,
    #[error("no HTTP client can be made: {0}")]
    Client(String),
}

impl AdminError {
    /// Says it on stderr; gives the exit code.
    fn say(&self) -> Exit {
        eprintln!("trunkline: {self}");
        self.exit()
    }

    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::NotReachable { .. } => Exit::NotReachable,
            Self::Refused { .. } | Self::Broken(_) | Self::Token | Self::Client(_) => Exit::Failed,
        }
    }
}

/// A client of one gateway's admin listener.
pub struct AdminClient {
    http: reqwest::Client,
    base: String,
    authorization: Option<HeaderValue>,
}

impl AdminClient {
    /// Where `--admin` says, else where the config says; with the token of the environment. Connects to nothing yet. What is wrong
    /// is said on stderr.
    pub fn new(global: &Global) -> Result<Self, Exit> {
        Self::at(address(global)?).map_err(|error| error.say())
    }

    /// At `base`, a URL without a path.
    fn at(base: String) -> Result<Self, AdminError> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| AdminError::Client(error.to_string()))?;
        let token = std::env::var(TOKEN_ENV).ok().filter(|token| !token.is_empty());
        let authorization = token.map(|token| HeaderValue::from_str(&format!("Bearer {token}"))).transpose();
        let mut authorization = authorization.map_err(|_| AdminError::Token)?;
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        Ok(Self { http, base, authorization })
    }

    /// The answer to a GET; what goes wrong is said on stderr.
    pub async fn get(&self, path: &str) -> Result<Value, Exit> {
        self.ask(Method::GET, path, None).await.map_err(|error| error.say())
    }

    /// The answer to a POST; what goes wrong is said on stderr.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Exit> {
        self.ask(Method::POST, path, Some(body)).await.map_err(|error| error.say())
    }

    /// The answer to a request; `null` where it is empty.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, AdminError> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let not_reachable =
            |error: reqwest::Error| AdminError::NotReachable { base: self.base.clone(), cause: cause(&error) };
        let response = request.send().await.map_err(not_reachable)?;
        let status = response.status();
        let answer = response.bytes().await.map_err(not_reachable)?;
        let answer = if answer.is_empty() { &b"null"[..] } else { &answer[..] };
        if status.is_success() {
            return serde_json::from_slice(answer).map_err(|error| AdminError::Broken(error.to_string()));
        }
        let problem = serde_json::from_slice::<Value>(answer).unwrap_or(Value::Null);
        let status = status.as_u16();
        Err(AdminError::Refused { status, told: told(status, &problem) })
    }
}

/// Where the gateway's admin listener is: as `--admin` says, else as the config does.
fn address(global: &Global) -> Result<String, Exit> {
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

/// What a refusal says: its detail, and the problems that it lists, a line each.
fn told(status: u16, answer: &Value) -> String {
    let detail = answer["detail"].as_str().unwrap_or("the gateway gives no reason");
    let mut text = format!("{detail} ({status})");
    if status == 401 {
        text.push_str(&format!("; the token is taken from the environment variable {TOKEN_ENV}"));
    }
    for problem in answer["problems"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        text.push_str("\n  ");
        text.push_str(problem);
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
    fn an_address_that_listens_everywhere_is_reached_on_loopback() {
        for (listen, reached) in [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), reached);
        }
    }
}
