//! The way of one push: checks, body, journal, reply.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::auth::token_endpoint::{self, Issued, TokenError};
use super::auth::{Auth, Failure, OAuth2, unix_now};
use super::client::{TrustedProxies, client_of};
use super::reply::{Refusal, acknowledged};
use super::request::{self, Query};
use super::sources::{Place, Route, Sources};
use super::{body, reply};
use crate::config::model;
use crate::journal::{AcceptError, Accepted, DeadLetter, DeadLetterId, Journal, Push};
use crate::metrics::{IngressMetrics, OTHER_ACTION, PushOutcome};
use crate::names::{INGRESS, Offset, PushId, SinkName, SourceName};
use crate::serve::pace::Pace;
use crate::serve::throttle::Throttle;
use crate::tccc::{self, BodyError};
use crate::trace::{PushSpan, Tracer, trace_id};

/// How long the answer to a throttled login is held back, so that a connection that guesses costs next to nothing.
const GUESSER_WAITS: Duration = Duration::from_millis(200);

/// Failed logins of one address within a minute that are answered with 401.
const FAILED_LOGINS_MAX: u32 = 60;
const ADDRESSES_MAX: usize = 10_000;

pub struct Handler {
    sources: Sources,
    journal: Arc<dyn Journal>,
    metrics: IngressMetrics,
    throttle: Throttle,
    trusted_proxies: TrustedProxies,
    body_size_max: u64,
    body_timeout: Duration,
    dead_letters_max: u64,
    dead_letters: SinkName,
    pace: Pace,
    tracer: Tracer,
    force: CancellationToken,
}

impl Handler {
    pub fn new(
        config: &model::Ingress,
        sources: Sources,
        journal: Arc<dyn Journal>,
        metrics: IngressMetrics,
        tracer: Tracer,
        force: CancellationToken,
    ) -> Self {
        Self {
            sources,
            journal,
            metrics,
            throttle: Throttle::new(FAILED_LOGINS_MAX, ADDRESSES_MAX),
            trusted_proxies: TrustedProxies(config.trusted_proxies.clone()),
            body_size_max: config.body_size_max.0,
            body_timeout: config.body_timeout.0,
            dead_letters_max: config.dead_letters_max,
            dead_letters: SinkName::from(INGRESS),
            pace: Pace::new(),
            tracer,
            force,
        }
    }

    /// Answers one request, whatever it is.
    pub async fn answer(self: Arc<Self>, peer: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (begun, begun_at) = (Instant::now(), SystemTime::now());
        let source = match self.sources.at(request.uri().path()) {
            None => return self.refuse(None, &Refusal::UnknownPath),
            Some(Place::Tokens(source)) => return self.give_token(&source, peer.ip(), request).await,
            Some(Place::Pushes(source)) => source,
        };
        let (head, body) = request.into_parts();
        if head.method != Method::POST {
            return self.refuse(Some(&source), &Refusal::WrongMethod);
        }
        if let Err(refusal) = self.authenticate(&source, peer.ip(), &head).await {
            return self.refuse(Some(&source), &refusal);
        }
        let query = request::query(head.uri.query().unwrap_or_default());
        let action = query.action.as_deref().ok().and_then(tccc::known_action);
        let incoming = request::traceparent(&head.headers);
        let mut span = self.tracer.push(&source.name, action.unwrap_or(OTHER_ACTION), incoming, begun_at);
        let taken = self.take(&source, &head, query, body, &mut span).await;
        let outcome = taken.as_ref().map_or_else(Refusal::outcome, |outcome| *outcome);
        source.metrics.count(action, outcome);
        span.end(outcome.as_str(), outcome == PushOutcome::Unavailable);
        if let Err(refusal) = taken {
            return self.refuse(Some(&source), &refusal);
        }
        source.metrics.ack_seconds.observe(begun.elapsed().as_secs_f64());
        acknowledged()
    }

    async fn authenticate(&self, source: &Route, peer: IpAddr, head: &Parts) -> Result<(), Refusal> {
        let Err(failure) = source.auth.check(&head.headers).await else { return Ok(()) };
        match self.count_failure(source, peer, &head.headers, failure).await {
            Some(retry_after) => Err(Refusal::Throttled { retry_after }),
            None => Err(Refusal::Unauthenticated(source.auth.challenge(failure))),
        }
    }

    /// Counts a failed login. Past the limit it says, after a while, in how many seconds its sender may fail again.
    async fn count_failure(&self, source: &Route, peer: IpAddr, headers: &HeaderMap, failure: Failure) -> Option<u64> {
        let throttled = match failure {
            // A client that waits to be asked is not guessing, nor one whose token has ended.
            Failure::Missing | Failure::Expired => None,
            Failure::Wrong => self.throttle.failed(client_of(peer, headers, &self.trusted_proxies), Instant::now()),
        };
        source.metrics.auth_failure(if throttled.is_some() { "throttled" } else { failure.as_str() });
        if throttled.is_some() {
            tokio::time::sleep(GUESSER_WAITS).await;
        }
        throttled
    }

    /// Answers a request to a token endpoint.
    async fn give_token(&self, source: &Route, peer: IpAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let error = match self.token_for(source, &head, body).await {
            Ok(issued) => return token_endpoint::issued(&issued),
            Err(TokenError::Client(failure)) => match self.count_failure(source, peer, &head.headers, failure).await {
                Some(retry_after) => TokenError::Throttled { retry_after },
                None => TokenError::Client(failure),
            },
            Err(error) => error,
        };
        let (status, kind) = error.row();
        if let Some(held_back) = self.pace.pass(kind) {
            let (source, status) = (&source.name, status.as_u16());
            tracing::warn!(%source, status, held_back, kind, "no token is given out");
        }
        token_endpoint::refused(&error)
    }

    async fn token_for(&self, source: &Route, head: &Parts, body: Incoming) -> Result<Issued, TokenError> {
        let Auth::OAuth2(OAuth2 { client, tokens }) = &source.auth else {
            return Err(TokenError::Request("no tokens are given out here"));
        };
        token_endpoint::check_head(head)?;
        let body = body::read(body, token_endpoint::BODY_SIZE_MAX, self.body_timeout).await;
        let body = body.map_err(|refusal| match refusal {
            Refusal::BodyTooLarge { .. } => TokenError::TooLarge,
            Refusal::BodyLate => TokenError::Late,
            _ => TokenError::Request("the body ended early or its framing is wrong"),
        })?;
        client.check(&head.headers, &body)?;
        Ok(Issued { token: tokens.issue(unix_now()), expires_in: tokens.ttl().as_secs() })
    }

    /// Takes an authenticated push: from its content encoding to the journal's answer.
    async fn take(
        &self,
        source: &Route,
        head: &Parts,
        query: Query,
        body: Incoming,
        span: &mut PushSpan,
    ) -> Result<PushOutcome, Refusal> {
        if !request::is_unencoded(&head.headers) {
            return Err(Refusal::Encoded);
        }
        let action = query.action.map_err(Refusal::Action)?;
        if !source.takes(&action) {
            return Err(Refusal::RefusedAction);
        }
        if self.force.is_cancelled() {
            return Err(Refusal::Draining);
        }
        let body = body::read(body, self.body_size_max, self.body_timeout).await?;
        // From here to the accept nothing waits: a push that came whole is given to the journal.
        let received_at = to_millis(Timestamp::now());
        let head_read = tccc::read_head(&body);
        let push = Push {
            id: self.push_id(source, &action, head, &body),
            source: source.name.clone(),
            action,
            version: query.version,
            session: head_read.as_ref().ok().and_then(|head| head.session.clone()),
            received_at,
            traceparent: span.traceparent(),
            body,
        };
        span.is_of(&push.id);
        match head_read {
            Ok(_) => self.accept(source, push).await,
            Err(error) => {
                self.keep(push, code_of(&error), error.to_string()).await?;
                Err(Refusal::Body(error))
            }
        }
    }

    async fn accept(&self, source: &Route, push: Push) -> Result<PushOutcome, Refusal> {
        // Kept only for the rare conflict; the body is shared, not copied.
        let kept = push.clone();
        let accepted = self.unless_forced(self.journal.accept(push)).await?;
        match accepted.map_err(|error| self.not_accepted(&error))? {
            Accepted::New { .. } => Ok(PushOutcome::Accepted),
            Accepted::Duplicate { same_body: true, .. } => Ok(PushOutcome::Duplicate),
            Accepted::Duplicate { same_body: false, offset } => {
                if let Some(held_back) = self.pace.pass("conflict") {
                    let (source, trace_id) = (&source.name, kept.traceparent.as_deref().and_then(trace_id));
                    tracing::warn!(%source, %offset, trace_id, held_back, "push id came again with another body, both are kept");
                }
                self.keep(kept, "conflict", conflict_reason(offset)).await?;
                Ok(PushOutcome::Conflict)
            }
        }
    }

    /// Keeps a push as a dead letter of the ingress; durable when it returns.
    async fn keep(&self, push: Push, code: &str, reason: String) -> Result<(), Refusal> {
        let letter = DeadLetter {
            id: DeadLetterId { sink: self.dead_letters.clone(), number: 0 },
            code: code.to_owned(),
            reason,
            attempts: 0,
            first_attempt_at: push.received_at,
            last_attempt_at: push.received_at,
            push,
        };
        let kept = self.unless_forced(self.journal.keep_refused(letter, self.dead_letters_max)).await?;
        kept.map_err(|error| {
            if let Some(held_back) = self.pace.pass("keep") {
                tracing::error!(%error, held_back, "a refused push could not be kept");
            }
            Refusal::Unavailable
        })?;
        let count = self.journal.dead_letters_len(&self.dead_letters);
        self.metrics.dead_letters.set(i64::try_from(count).unwrap_or(i64::MAX));
        Ok(())
    }

    async fn unless_forced<T>(&self, operation: impl Future<Output = T>) -> Result<T, Refusal> {
        self.force.run_until_cancelled(operation).await.ok_or(Refusal::Draining)
    }

    fn not_accepted(&self, error: &AcceptError) -> Refusal {
        let (kind, refusal) = match error {
            AcceptError::Full { .. } => ("full", Refusal::Full),
            AcceptError::TooLarge { limit, .. } => ("too large", Refusal::BodyTooLarge { limit: *limit }),
            AcceptError::Unavailable { .. } => ("unavailable", Refusal::Unavailable),
            AcceptError::Unknown { .. } => ("unknown", Refusal::Unavailable),
        };
        if let Some(held_back) = self.pace.pass(kind) {
            tracing::warn!(%error, held_back, "the journal does not take pushes");
        }
        refusal
    }

    fn push_id(&self, source: &Route, action: &str, head: &Parts, body: &Bytes) -> PushId {
        if let Some(id) = request::push_id(&head.headers) {
            return id;
        }
        source.metrics.derived_ids.inc();
        if let Some(held_back) = self.pace.pass("derived id") {
            tracing::warn!(source = %source.name, held_back, "push without a usable push id, taken under a derived one");
        }
        derived_id(&source.name, action, body)
    }

    fn refuse(&self, source: Option<&Route>, refusal: &Refusal) -> Response<Full<Bytes>> {
        let source = source.map_or("", |source| source.name.as_str());
        let (status, err_code) = (refusal.status().as_u16(), refusal.code());
        tracing::debug!(source, status, err_code, "push refused");
        if let Some(held_back) = self.pace.pass(refusal.kind()) {
            tracing::warn!(source, status, err_code, held_back, kind = refusal.kind(), "pushes are refused");
        }
        reply::refused(refusal)
    }
}

/// The id of a push that brings none: `sha256-` and the hex of SHA-256 over source, action and body, each led by its length in
/// bytes as a big-endian `u64`, so that no two triples run together. The same push has the same id again.
fn derived_id(source: &SourceName, action: &str, body: &[u8]) -> PushId {
    use std::fmt::Write as _;
    let mut context = Context::new(&SHA256);
    for part in [source.as_str().as_bytes(), action.as_bytes(), body] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut id = "sha256-".to_owned();
    for byte in context.finish().as_ref() {
        write!(id, "{byte:02x}").expect("writing to memory");
    }
    PushId::new(id)
}

/// The code of a dead letter whose body is not taken.
pub(super) fn code_of(error: &BodyError) -> &'static str {
    match error {
        BodyError::NotJson(_) => "not-json",
        BodyError::NotAnObject => "not-an-object",
    }
}

pub(super) fn conflict_reason(offset: Offset) -> String {
    format!("the push id came before with another body, at offset {offset}; under this id it cannot be accepted")
}

fn to_millis(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond()).expect("fewer digits of a timestamp are a timestamp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_ids_tell_source_action_and_body_apart() {
        let id = |source: &str, action, body: &str| derived_id(&SourceName::from(source), action, body.as_bytes());
        let first = id("main", "cdr", "{}");
        assert_eq!(first, id("main", "cdr", "{}"));
        assert_eq!(first.as_str().len(), "sha256-".len() + 64);
        assert!(
            [id("other", "cdr", "{}"), id("main", "record", "{}"), id("main", "cdr", "{ }")]
                .iter()
                .all(|id| *id != first)
        );
        assert_ne!(id("mainc", "dr", "{}"), first);
        assert_ne!(id("main", "cdr{", "}"), first);
    }
}
