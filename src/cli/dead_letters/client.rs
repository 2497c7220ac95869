//! The admin API, as the commands need it.

use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::options::Selection;
use crate::cli::admin_client::{AdminClient, AdminError};

const PAGE_MAX: u64 = 1000;

pub(super) struct Client(pub(super) AdminClient);

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

impl Page {
    pub(super) fn ids(&self) -> Vec<String> {
        let id = |item: &RawValue| serde_json::from_str::<Identified>(item.get()).ok().map(|item| item.id);
        self.items.iter().filter_map(|item| id(item)).collect()
    }
}

impl Client {
    pub(super) async fn list(
        &self,
        selection: &Selection,
        after: Option<&str>,
        limit: Option<u64>,
    ) -> Result<Page, AdminError> {
        let query = selection.query(after, limit.map_or(PAGE_MAX, |limit| limit.min(PAGE_MAX)));
        self.0.ask(Method::GET, &format!("/api/v1/dead-letters?{query}"), None).await
    }

    /// One letter, whole, as one line of JSON.
    pub(super) async fn show(&self, id: &str) -> Result<String, AdminError> {
        let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
        let path = format!("/api/v1/dead-letters/{}", id.replace('+', "%20"));
        let letter: Box<RawValue> = self.0.ask(Method::GET, &path, None).await?;
        Ok(letter.get().to_owned())
    }

    /// Replays or purges; says how many letters are meant.
    pub(super) async fn act(&self, action: &str, body: &Value) -> Result<u64, AdminError> {
        let path = format!("/api/v1/dead-letters/{action}");
        let Selected { selected } = self.0.ask(Method::POST, &path, Some(body)).await?;
        Ok(selected)
    }

    pub(super) async fn progress(&self) -> Result<Progress, AdminError> {
        let Replays { items } = self.0.ask(Method::GET, "/api/v1/dead-letters/replay", None).await?;
        Ok(items.iter().fold(Progress::default(), |all, one| Progress {
            delivered: all.delivered + one.delivered,
            failed: all.failed + one.failed,
            running: all.running + one.running,
        }))
    }
}
