//! Turns what became of a push into status and the sender's reply, `{"ErrCode":N,"ErrMsg":"…"}`. The texts are for the sender's
//! operator: what is wrong and what to do, nothing of our inside and nothing of what was sent.

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use sink_api::settings::Size;

use super::auth::Challenge;
use super::request::ActionError;
use crate::metrics::PushOutcome;
use crate::tccc::BodyError;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The only reply that the sender takes as success.
const ACKNOWLEDGED: &str = r#"{"ErrCode":0,"ErrMsg":"ok"}"#;

/// For a header that did not come in time.
pub const LATE_HEADER: &str = r#"{"ErrCode":4004,"ErrMsg":"the header did not come in time"}"#;

/// What a sender that can wait is asked to wait when the fault is ours.
const RETRY_AFTER_SECONDS: u64 = 5;

/// Why a push is not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    UnknownPath,
    WrongMethod,
    /// Credentials are missing or wrong; which, the message does not say.
    Unauthenticated(Challenge),
    /// Too many wrong ones; in seconds.
    Throttled {
        retry_after: u64,
    },
    Encoded,
    Action(ActionError),
    RefusedAction,
    /// In bytes.
    BodyTooLarge {
        limit: u64,
    },
    BodyLate,
    /// It ended early, or its framing is wrong.
    BodyBroken,
    Body(BodyError),
    Full,
    Unavailable,
    Draining,
}

impl Refusal {
    pub fn status(&self) -> StatusCode {
        self.row().0
    }

    /// The reply's `ErrCode`.
    pub fn code(&self) -> u16 {
        self.row().1
    }

    /// A word for logs.
    pub fn kind(&self) -> &'static str {
        self.row().2
    }

    /// How it counts.
    pub fn outcome(&self) -> PushOutcome {
        match self {
            Self::Full | Self::Unavailable | Self::Draining => PushOutcome::Unavailable,
            _ => PushOutcome::Refused,
        }
    }

    fn row(&self) -> (StatusCode, u16, &'static str) {
        match self {
            Self::UnknownPath => (StatusCode::NOT_FOUND, 4040, "unknown path"),
            Self::WrongMethod => (StatusCode::METHOD_NOT_ALLOWED, 4050, "wrong method"),
            Self::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, 4010, "unauthenticated"),
            Self::Throttled { .. } => (StatusCode::TOO_MANY_REQUESTS, 4290, "throttled"),
            Self::Encoded => (StatusCode::UNSUPPORTED_MEDIA_TYPE, 4150, "encoded"),
            Self::Action(_) => (StatusCode::BAD_REQUEST, 4005, "no action"),
            Self::RefusedAction => (StatusCode::BAD_REQUEST, 4006, "refused action"),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, 4003, "body too large"),
            Self::BodyLate => (StatusCode::REQUEST_TIMEOUT, 4004, "body late"),
            Self::BodyBroken => (StatusCode::BAD_REQUEST, 4000, "body broken"),
            Self::Body(_) => (StatusCode::BAD_REQUEST, 4002, "not a json object"),
            Self::Full => (StatusCode::SERVICE_UNAVAILABLE, 5030, "journal full"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, 5031, "journal unavailable"),
            Self::Draining => (StatusCode::SERVICE_UNAVAILABLE, 5032, "draining"),
        }
    }

    fn message(&self) -> String {
        let fixed = match self {
            Self::Action(error) => return error.to_string(),
            Self::Body(error) => return error.to_string(),
            Self::BodyTooLarge { limit } => return format!("the body is larger than {}", Size(*limit)),
            Self::UnknownPath => "no push address has this path",
            Self::WrongMethod => "pushes are sent with POST",
            Self::Unauthenticated(_) => "the credentials are missing or wrong",
            Self::Throttled { .. } => "too many failed logins from this address",
            Self::Encoded => "send the body without content encoding",
            Self::RefusedAction => "this address does not take this action",
            Self::BodyLate => "the body did not come in time",
            Self::BodyBroken => "the body ended early or its framing is wrong",
            Self::Full => "the gateway cannot store more at present, push again later",
            Self::Unavailable => "the gateway cannot store at present, push again later",
            Self::Draining => "the gateway is stopping, push again",
        };
        fixed.to_owned()
    }
}

/// The reply to a push that is durable.
pub fn acknowledged() -> Response<Full<Bytes>> {
    with(StatusCode::OK, Bytes::from_static(ACKNOWLEDGED.as_bytes()))
}

/// The reply to a push that is not taken.
pub fn refused(refusal: &Refusal) -> Response<Full<Bytes>> {
    let message = serde_json::Value::from(refusal.message());
    let body = format!(r#"{{"ErrCode":{},"ErrMsg":{message}}}"#, refusal.code());
    let mut response = with(refusal.status(), body.into());
    let field = match refusal {
        Refusal::WrongMethod => Some((ALLOW, HeaderValue::from_static("POST"))),
        Refusal::Unauthenticated(challenge) => Some((WWW_AUTHENTICATE, HeaderValue::from_static(challenge.as_str()))),
        Refusal::Encoded => Some((ACCEPT_ENCODING, HeaderValue::from_static("identity"))),
        Refusal::Throttled { retry_after } => Some((RETRY_AFTER, HeaderValue::from(*retry_after))),
        Refusal::Full | Refusal::Unavailable | Refusal::Draining => {
            Some((RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS)))
        }
        _ => None,
    };
    response.headers_mut().extend(field);
    response
}

fn with(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}
