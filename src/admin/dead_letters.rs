//! `/api/v1/dead-letters`: what is stuck, and putting it right. Lists show no payload; what shows one or changes something is in
//! [`protected`].
//!
//! It promises that nothing is replayed or purged by mistake: letters are named by id, narrowed by a filter, or asked for with
//! `all`. However many are meant, they are looked at a page at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sink_api::Event;

use super::{Admin, problem};
use crate::journal::{self, DeadLetterHead, DeadLetterId, Selection};
use crate::names::{INGRESS, PushId, SessionId, SinkName, SourceName};
use crate::replay::{AskError, What};
use crate::tccc;

const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1000;

/// More is no rate.
const RATE_MAX: f64 = 1e6;

/// Routes that anybody who reaches the listener may use.
pub(super) fn open() -> Router<Arc<Admin>> {
    Router::new().route("/api/v1/dead-letters", get(list))
}

/// Routes that show a payload or change something.
pub(super) fn protected() -> Router<Arc<Admin>> {
    Router::new()
        .route("/api/v1/dead-letters/{id}", get(show))
        .route("/api/v1/dead-letters/replay", post(replay).get(progress))
        .route("/api/v1/dead-letters/purge", post(purge))
}

/// Why a request is not carried out.
struct Problem {
    status: StatusCode,
    detail: String,
}

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }

    fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    fn missing(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        problem(self.status, &self.detail)
    }
}

impl From<journal::Error> for Problem {
    fn from(error: journal::Error) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        let status = match error {
            AskError::NotRunning(_) => StatusCode::CONFLICT,
            AskError::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    sink: Option<String>,
    action: Option<String>,
    code: Option<String>,
    since: Option<String>,
    until: Option<String>,
    limit: Option<String>,
    after: Option<String>,
}

/// What narrows a selection; empty texts count as absent.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Filter {
    sink: Option<String>,
    action: Option<String>,
    code: Option<String>,
    since: Option<String>,
    until: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    sink: Option<String>,
    ids: Option<Vec<String>>,
    filter: Option<Filter>,
    #[serde(default)]
    all: bool,
    rate: Option<f64>,
    #[serde(default)]
    dry_run: bool,
}

/// A dead letter as lists show it.
#[derive(Debug, Serialize)]
struct Item {
    id: String,
    sink: SinkName,
    event_id: PushId,
    action: String,
    source: SourceName,
    session_id: Option<SessionId>,
    code: String,
    reason: String,
    attempts: u32,
    first_attempt_at: Timestamp,
    last_attempt_at: Timestamp,
    received_at: Timestamp,
    size_bytes: u64,
}

/// A page of the list.
#[derive(Debug, Serialize)]
struct List {
    items: Vec<Item>,
    next: Option<String>,
}

/// A dead letter, whole. Of the two payloads the one is there that can hold the bytes.
#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    item: Item,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    event: Event,
}

/// The letters of one sink that a request means.
struct Chosen {
    sink: SinkName,
    what: What,
    count: u64,
}

impl From<DeadLetterHead> for Item {
    fn from(head: DeadLetterHead) -> Self {
        Self {
            id: head.id.to_string(),
            sink: head.id.sink,
            event_id: head.push_id,
            action: head.action,
            source: head.source,
            session_id: head.session,
            code: head.code,
            reason: head.reason,
            attempts: head.attempts,
            first_attempt_at: head.first_attempt_at,
            last_attempt_at: head.last_attempt_at,
            received_at: head.received_at,
            size_bytes: head.size_bytes,
        }
    }
}

impl Filter {
    fn is_empty(&self) -> bool {
        let parts = [&self.sink, &self.action, &self.code, &self.since, &self.until];
        parts.into_iter().flatten().all(String::is_empty)
    }

    fn selection(self) -> Result<Selection, Problem> {
        let at = |name: &str, text: Option<String>| match present(text) {
            None => Ok(None),
            Some(text) => text.parse::<Timestamp>().map(Some).map_err(|_| {
                Problem::bad(format!("{name} is not a time as RFC 3339 writes it, such as 2026-11-25T18:00:00Z"))
            }),
        };
        Ok(Selection {
            sink: present(self.sink).map(SinkName::new),
            action: present(self.action),
            code: present(self.code),
            since: at("since", self.since)?,
            until: at("until", self.until)?,
        })
    }
}

async fn list(
    State(admin): State<Arc<Admin>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<List>, Problem> {
    let Query(mut query) = query.map_err(|error| Problem::bad(error.body_text()))?;
    let limit = match present(query.limit.take()) {
        None => PAGE_DEFAULT,
        Some(text) => match text.parse::<usize>() {
            Ok(0) | Err(_) => return Err(Problem::bad("limit is not a number above 0")),
            Ok(limit) => limit.min(PAGE_MAX),
        },
    };
    let ListQuery { sink, action, code, since, until, after, .. } = query;
    let selection = Filter { sink, action, code, since, until }.selection()?;
    let after = present(after).as_deref().map(letter_id).transpose()?;
    for sink in selection.sink.iter().chain(after.as_ref().map(|id| &id.sink)) {
        check_known(&admin, sink).await?;
    }
    let page = admin.journal.dead_letters(&selection, after.as_ref(), limit).await?;
    let items = page.heads.into_iter().map(Item::from).collect();
    Ok(Json(List { items, next: page.next.map(|id| id.to_string()) }))
}

async fn show(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Result<Json<Whole>, Problem> {
    let id = letter_id(&id)?;
    let letter = admin.journal.dead_letter_of(&id).await?;
    let letter = letter.ok_or_else(|| Problem::missing(format!("there is no dead letter {id}")))?;
    let event = tccc::normalise(&letter.push).event;
    let (payload, payload_base64) = match std::str::from_utf8(&letter.push.body) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(STANDARD.encode(&letter.push.body))),
    };
    Ok(Json(Whole { item: letter.head().into(), payload, payload_base64, event }))
}

async fn replay(State(admin): State<Arc<Admin>>, body: Result<Bytes, BytesRejection>) -> Result<Json<Value>, Problem> {
    let ask = read_ask(body)?;
    let (rate, dry_run) = (ask.rate, ask.dry_run);
    if rate.is_some_and(|rate| !(rate > 0.0 && rate <= RATE_MAX)) {
        return Err(Problem::bad("rate is not a number of events a second above 0"));
    }
    let chosen = choose(&admin, ask).await?;
    if !dry_run {
        // All or none: a sink that is not running is said before another's replay begins.
        for Chosen { sink, .. } in &chosen {
            if !admin.replays.takes(sink) {
                return Err(AskError::NotRunning(sink.clone()).into());
            }
        }
        for Chosen { sink, what, count } in &chosen {
            admin.replays.ask(sink, what, rate)?;
            tracing::info!(%sink, selected = count, rate, "replay of dead letters begun");
        }
    }
    Ok(selected(&chosen))
}

/// `{items: [{sink, delivered, failed, running}]}`: counts since the start of the process.
async fn progress(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let sinks = admin.sinks.load();
    let names = sinks.iter().map(|sink| sink.name.clone()).chain([SinkName::from(INGRESS)]);
    let items: Vec<_> = names
        .map(|sink| {
            let progress = admin.replays.progress(&sink);
            let (delivered, failed, running) = (progress.delivered, progress.failed, progress.running);
            json!({ "sink": sink, "delivered": delivered, "failed": failed, "running": running })
        })
        .collect();
    Json(json!({ "items": items }))
}

async fn purge(State(admin): State<Arc<Admin>>, body: Result<Bytes, BytesRejection>) -> Result<Json<Value>, Problem> {
    let ask = read_ask(body)?;
    if ask.rate.is_some() {
        return Err(Problem::bad("a purge has no rate"));
    }
    let dry_run = ask.dry_run;
    let chosen = choose(&admin, ask).await?;
    if !dry_run {
        for Chosen { sink, what, .. } in &chosen {
            let purged = purge_all(&admin, what).await?;
            tracing::info!(%sink, purged, "dead letters purged");
        }
    }
    Ok(selected(&chosen))
}

async fn purge_all(admin: &Admin, what: &What) -> Result<u64, Problem> {
    let mut purged = 0;
    match what {
        What::Ids(ids) => {
            for ids in ids.chunks(PAGE_MAX) {
                purged += admin.journal.purge_dead_letters(ids).await?;
            }
        }
        What::Matching { selection, through } => {
            let mut after = None;
            loop {
                let page = admin.journal.dead_letters(selection, after.as_ref(), PAGE_MAX).await?;
                let ids = page.heads.into_iter().map(|head| head.id).take_while(|id| id <= through);
                purged += admin.journal.purge_dead_letters(&ids.collect::<Vec<_>>()).await?;
                after = page.next.filter(|next| next < through);
                if after.is_none() {
                    break;
                }
            }
        }
    }
    Ok(purged)
}

fn selected(chosen: &[Chosen]) -> Json<Value> {
    Json(json!({ "selected": chosen.iter().map(|chosen| chosen.count).sum::<u64>() }))
}

fn read_ask(body: Result<Bytes, BytesRejection>) -> Result<Ask, Problem> {
    let body = body.map_err(|error| Problem::new(error.status(), error.body_text()))?;
    serde_json::from_slice(&body).map_err(|error| Problem::bad(format!("the body is not as it should be: {error}")))
}

/// The letters that are meant and there, sink by sink.
async fn choose(admin: &Admin, ask: Ask) -> Result<Vec<Chosen>, Problem> {
    let sink = present(ask.sink).map(SinkName::new);
    if let Some(sink) = &sink {
        check_known(admin, sink).await?;
    }
    match (ask.ids, ask.filter, ask.all) {
        (Some(ids), None, false) if !ids.is_empty() => choose_ids(admin, sink, &ids).await,
        (None, Some(filter), false) if !filter.is_empty() => {
            let mut selection = filter.selection()?;
            if let Some(named) = &selection.sink {
                check_known(admin, named).await?;
            }
            if sink.is_some() && selection.sink.is_some() && selection.sink != sink {
                return Err(Problem::bad("sink and filter.sink are two different sinks"));
            }
            selection.sink = sink.or(selection.sink);
            choose_matching(admin, selection).await
        }
        (None, None, true) => choose_matching(admin, Selection { sink, ..Selection::default() }).await,
        _ => Err(Problem::bad("say which dead letters: exactly one of ids, filter and all, and not an empty one")),
    }
}

async fn choose_ids(admin: &Admin, sink: Option<SinkName>, ids: &[String]) -> Result<Vec<Chosen>, Problem> {
    let mut by_sink: BTreeMap<SinkName, Vec<DeadLetterId>> = BTreeMap::new();
    for text in ids {
        let id = letter_id(text)?;
        if sink.as_ref().is_some_and(|sink| *sink != id.sink) {
            return Err(Problem::bad(format!("{id} is not a dead letter of {}", sink.as_ref().expect("just seen"))));
        }
        by_sink.entry(id.sink.clone()).or_default().push(id);
    }
    let mut chosen = Vec::new();
    for (sink, mut ids) in by_sink {
        check_known(admin, &sink).await?;
        ids.sort_unstable();
        ids.dedup();
        let mut found = Vec::new();
        for id in ids {
            let before = id.number.checked_sub(1).map(|number| DeadLetterId { sink: sink.clone(), number });
            let of_sink = Selection { sink: Some(sink.clone()), ..Selection::default() };
            let page = admin.journal.dead_letters(&of_sink, before.as_ref(), 1).await?;
            if page.heads.first().is_some_and(|head| head.id == id) {
                found.push(id);
            }
        }
        chosen.push(Chosen { sink, count: found.len() as u64, what: What::Ids(found) });
    }
    Ok(chosen)
}

async fn choose_matching(admin: &Admin, selection: Selection) -> Result<Vec<Chosen>, Problem> {
    let mut counts: BTreeMap<SinkName, (u64, DeadLetterId)> = BTreeMap::new();
    let mut after = None;
    loop {
        let page = admin.journal.dead_letters(&selection, after.as_ref(), PAGE_MAX).await?;
        for head in page.heads {
            let (count, last) = counts.entry(head.id.sink.clone()).or_insert((0, head.id.clone()));
            *count += 1;
            *last = head.id;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let chosen = counts.into_iter().map(|(sink, (count, through))| {
        let selection = Selection { sink: Some(sink.clone()), ..selection.clone() };
        Chosen { sink, what: What::Matching { selection, through }, count }
    });
    Ok(chosen.collect())
}

/// Known are the configured sinks, those that the journal still keeps a place for, and `ingress`.
async fn check_known(admin: &Admin, sink: &SinkName) -> Result<(), Problem> {
    let is_known = sink.as_str() == INGRESS
        || admin.sinks.load().iter().any(|view| view.name == *sink)
        || admin.journal.sinks().await?.contains(sink);
    if is_known {
        return Ok(());
    }
    let sinks = admin.sinks.load();
    let names: Vec<_> = sinks.iter().map(|view| view.name.as_str()).chain([INGRESS]).collect();
    Err(Problem::missing(format!("there is no sink {:?}; there are: {}", sink.as_str(), names.join(", "))))
}

fn letter_id(text: &str) -> Result<DeadLetterId, Problem> {
    text.parse().map_err(|error: journal::DeadLetterIdError| Problem::bad(error.to_string()))
}

fn present(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}
