//! The admin API, as the commands need it.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{RequestBuilder, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::options::Selection;
use crate::cli::Exit;

const TOKEN: &str = "TRUNKLINE_ADMIN_TOKEN";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two pieces of an answer. A purge of very many letters answers when all are gone.
const READ_TIMEOUT: Duration = Duration::from_secs(300);

const PAGE_MAX: u64 = 1000;

#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("the gateway at {url} is not reachable: {cause}")]
    NotReachable { url: String, cause: String },
    #[error("the gateway refuses with {status}: {detail}")]
    Refused { status: u16, detail: String },
    #[error("the gateway's answer was not understood: {0}")]
    Broken(String),
    #[error("the token in TRUNKLINE_ADMIN_TOKEN cannot be sent: it is not visible ASCII")]
    Token,
}

impl ClientError {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::NotReachable { .. } => Exit::NotReachable,
            Self::Refused { .. } | Self::Broken(_) | Self::Token => Exit::Failed,
        }
    }
}

pub(super) struct Client {
    http: reqwest::Client,
    url: String,
    authorization: Option<HeaderValue>,
}

/// A page of the list; items as the gateway wrote them.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    pub(super) items: Vec<Box<RawValue>>,
    pub(super) next: Option<String>,
}

/// Over all sinks, since the gateway's start.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) struct Progress {
    pub(super) delivered: u64,
    pub(super) failed: u64,
    pub(super) running: u64,
}

#[derive(Deserialize)]
struct Replays {
    items: Vec<Progress>,
}

#[derive(Deserialize)]
struct Identified {
    id: String,
}

#[derive(Deserialize)]
struct Selected {
    selected: u64,
}

#[derive(Deserialize)]
struct Problem {
    detail: String,
}

impl Page {
    pub(super) fn ids(&self) -> Vec<String> {
        let id = |item: &RawValue| serde_json::from_str::<Identified>(item.get()).ok().map(|item| item.id);
        self.items.iter().filter_map(|item| id(item)).collect()
    }
}

impl Client {
    /// `url` is the admin listener's, without a path. Pure.
    pub(super) fn new(url: &str) -> Result<Self, ClientError> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .build()
            .map_err(|error| ClientError::Broken(error.to_string()))?;
        let token = std::env::var(TOKEN).ok().filter(|token| !token.is_empty());
        let authorization = token.map(|token| HeaderValue::from_str(&format!("Bearer {token}"))).transpose();
        let mut authorization = authorization.map_err(|_| ClientError::Token)?;
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        Ok(Self { http, url: url.to_owned(), authorization })
    }

    pub(super) async fn list(
        &self,
        selection: &Selection,
        after: Option<&str>,
        limit: Option<u64>,
    ) -> Result<Page, ClientError> {
        let query = selection.query(after, limit.map_or(PAGE_MAX, |limit| limit.min(PAGE_MAX)));
        self.get(&format!("/api/v1/dead-letters?{query}")).await
    }

    /// One letter, whole, as one line of JSON.
    pub(super) async fn show(&self, id: &str) -> Result<String, ClientError> {
        let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
        let letter: Box<RawValue> = self.get(&format!("/api/v1/dead-letters/{}", id.replace('+', "%20"))).await?;
        Ok(letter.get().to_owned())
    }

    /// Replays or purges; says how many letters are meant.
    pub(super) async fn act(&self, action: &str, body: &Value) -> Result<u64, ClientError> {
        let request = self.http.post(format!("{}/api/v1/dead-letters/{action}", self.url));
        let request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        let Selected { selected } = self.ask(request).await?;
        Ok(selected)
    }

    pub(super) async fn progress(&self) -> Result<Progress, ClientError> {
        let Replays { items } = self.get("/api/v1/dead-letters/replay").await?;
        Ok(items.iter().fold(Progress::default(), |all, one| Progress {
            delivered: all.delivered + one.delivered,
            failed: all.failed + one.failed,
            running: all.running + one.running,
        }))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(self.http.get(format!("{}{path}", self.url))).await
    }

    async fn ask<T: DeserializeOwned>(&self, mut request: RequestBuilder) -> Result<T, ClientError> {
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let response = request.send().await.map_err(|error| self.not_reachable(error))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| self.not_reachable(error))?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| ClientError::Broken(error.to_string()));
        }
        let said = serde_json::from_slice::<Problem>(&body).map(|problem| problem.detail);
        let detail = match said {
            Ok(detail) if status == StatusCode::UNAUTHORIZED => format!("{detail} (the token is taken from {TOKEN})"),
            Ok(detail) => detail,
            Err(_) => "no reason given".to_owned(),
        };
        Err(ClientError::Refused { status: status.as_u16(), detail })
    }

    fn not_reachable(&self, error: reqwest::Error) -> ClientError {
        let error = error.without_url();
        let mut cause = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            cause = inner.to_string();
            source = inner.source();
        }
        ClientError::NotReachable { url: self.url.clone(), cause }
    }
}
