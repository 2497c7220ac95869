//! What an operator changes while the gateway runs: sinks paused, resumed and forgotten, the config read again, the log filter.
//! Also the config in effect, masked. All of it lies behind [`super::auth`].

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::{Admin, problem, problem_with};
use crate::gateway::{ForgetError, PauseError, ReloadError};
use crate::names::SinkName;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/api/v1/sinks/{name}/pause", post(pause))
        .route("/api/v1/sinks/{name}/resume", post(resume))
        .route("/api/v1/sinks/{name}/forget", post(forget))
        .route("/api/v1/reload", post(reload))
        .route("/api/v1/log-level", put(log_level))
        .route("/api/v1/config", get(config))
}

async fn pause(State(admin): State<Arc<Admin>>, Path(name): Path<String>) -> Response {
    set_paused(&admin, SinkName::new(name), true).await
}

async fn resume(State(admin): State<Arc<Admin>>, Path(name): Path<String>) -> Response {
    set_paused(&admin, SinkName::new(name), false).await
}

async fn set_paused(admin: &Admin, sink: SinkName, paused: bool) -> Response {
    match admin.control.set_paused(&sink, paused).await {
        Ok(()) => Json(json!({ "sink": sink, "paused": paused })).into_response(),
        Err(error @ PauseError::Unknown) => problem(StatusCode::NOT_FOUND, &error.to_string()),
        Err(error @ PauseError::Journal(_)) => problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

async fn forget(State(admin): State<Arc<Admin>>, Path(name): Path<String>) -> Response {
    let sink = SinkName::new(name);
    match admin.control.forget(sink.clone()).await {
        Ok(()) => Json(json!({ "sink": sink, "forgotten": true })).into_response(),
        Err(error) => {
            let status = match error {
                ForgetError::Configured => StatusCode::CONFLICT,
                ForgetError::Unknown => StatusCode::NOT_FOUND,
                ForgetError::Journal(_) | ForgetError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            };
            problem(status, &error.to_string())
        }
    }
}

async fn reload(State(admin): State<Arc<Admin>>) -> Response {
    match admin.control.reload().await {
        Ok(changes) => Json(changes).into_response(),
        Err(error @ ReloadError::Stopping) => problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        Err(ReloadError::Refused(problems)) => {
            let detail = "the config is refused as a whole, the earlier one stays in effect";
            problem_with(StatusCode::UNPROCESSABLE_ENTITY, detail, json!({ "problems": problems }))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogLevel {
    filter: String,
}

async fn log_level(State(admin): State<Arc<Admin>>, body: Bytes) -> Response {
    let Ok(LogLevel { filter }) = serde_json::from_slice(&body) else {
        return problem(StatusCode::BAD_REQUEST, "the body must be JSON such as {\"filter\": \"info\"}");
    };
    match admin.control.set_log_filter(&filter) {
        Ok(()) => Json(json!({ "filter": filter })).into_response(),
        Err(error) => problem(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

async fn config(State(admin): State<Arc<Admin>>) -> Response {
    Json(admin.control.effective()).into_response()
}
