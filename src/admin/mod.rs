//! The admin listener: health for the orchestrator, metrics for Prometheus, status and a [`page`] for people.
//!
//! It promises that `/readyz` says yes exactly while a push would be accepted: the journal can write and no drain has begun.
//! What shows a payload or changes something, in [`dead_letters`] and [`control`], lies behind [`auth`].

pub mod auth;
mod control;
mod dead_letters;
mod page;
mod status;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use prometheus::IntGauge;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::auth::{Guard, Peer};
pub use self::status::{DedupStatus, JournalStatus, PromisesStatus, ShardStatus, SinkStatus, SourceStatus, Status};
use crate::gateway::{Control, Readiness};
use crate::journal::Journal;
use crate::metrics::{Metrics, SourceMetrics};
use crate::names::{INGRESS, SinkName, SourceName};
use crate::pipeline;
use crate::replay::Replays;
use crate::serve::{Limits, Listener};

/// What the admin listener shows; all of it is read, nothing owned.
pub struct Admin {
    pub started_at: Instant,
    pub readiness: Arc<Readiness>,
    pub metrics: Metrics,
    pub journal: Arc<dyn Journal>,
    /// Replaced by a reload, as the sinks are.
    pub sources: Arc<ArcSwap<Vec<(SourceName, SourceMetrics)>>>,
    pub sinks: Arc<ArcSwap<Vec<SinkView>>>,
    pub replays: Arc<Replays>,
    pub control: Control,
    pub guard: Arc<Guard>,
}

/// A sink as the admin listener sees it.
#[derive(Clone)]
pub struct SinkView {
    pub name: SinkName,
    pub kind: String,
    pub status: Arc<pipeline::Status>,
}

/// The routes of the admin listener.
pub fn router(admin: Arc<Admin>) -> Router {
    let protected = auth::guarded(control::routes().merge(dead_letters::protected()), Arc::clone(&admin.guard));
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status_report))
        .merge(page::routes())
        .merge(dead_letters::open())
        .merge(protected)
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(admin)
}

/// Room for a handful of scrapers and people.
pub fn limits() -> Limits {
    Limits {
        connections_max: 256,
        handshake_timeout: Duration::from_secs(5),
        header_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(60),
        http2: false,
        late_body: "",
        // Only the ingress's connections are shown.
        open: IntGauge::new("admin_connections", "Not shown.").expect("a fixed name"),
    }
}

/// Serves the routes until `stop`.
pub async fn serve(listener: Listener, routes: Router, stop: CancellationToken, force: CancellationToken) {
    let routes = TowerToHyperService::new(routes);
    let answer = move |peer, mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        let answer = routes.call(request);
        async move { answer.await.unwrap_or_else(|never: Infallible| match never {}) }
    };
    listener.serve(answer, stop, force).await;
}

/// The process answers: nothing more is asked, since a restart would mend nothing that it does not mend itself.
async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let reasons = admin.not_ready_because();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(json!({ "ready": reasons.is_empty(), "reasons": reasons }))).into_response()
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let kept = admin.journal.dead_letters_len(&SinkName::from(INGRESS));
    admin.metrics.ingress.dead_letters.set(i64::try_from(kept).unwrap_or(i64::MAX));
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], admin.metrics.render()).into_response()
}

async fn status_report(State(admin): State<Arc<Admin>>) -> axum::Json<Status> {
    axum::Json(Status::collect(&admin).await)
}

async fn unknown_path() -> Response {
    problem(
        StatusCode::NOT_FOUND,
        "there is nothing at this path; see /api/v1/status, /api/v1/dead-letters, /metrics, /livez and /readyz",
    )
}

async fn wrong_method() -> Response {
    problem(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
}

/// An error as RFC 9457 writes it.
fn problem(status: StatusCode, detail: &str) -> Response {
    problem_with(status, detail, json!({}))
}

/// [`problem`] with further members.
fn problem_with(status: StatusCode, detail: &str, further: Value) -> Response {
    let mut body = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "detail": detail,
    });
    if let (Some(body), Value::Object(further)) = (body.as_object_mut(), further) {
        body.extend(further);
    }
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

impl Admin {
    /// Why a push would not be accepted now; empty when it would.
    fn not_ready_because(&self) -> Vec<String> {
        let draining = self.readiness.is_draining().then(|| "draining".to_owned());
        draining.into_iter().chain(self.journal.health().trouble).collect()
    }
}
