//! What can go wrong, and which outcome that is: the one place where status codes and the client library's errors are judged.
//!
//! | what | outcome | code |
//! |---|---|---|
//! | 2xx | delivered | |
//! | 429 | retry, burns no attempt | `http-429` |
//! | 408, 425, 5xx | retry | `http-<status>` |
//! | no reply in time · connection lost before the reply | retry | `timeout` · `connection-lost` |
//! | 401, 403, 404, 410 | the sink is away | `http-<status>` |
//! | 3xx | the sink is away | `redirect` |
//! | no connection | the sink is away | `connect`, `dns`, `tls`, `address-refused` |
//! | no token | the sink is away | `token-<status>`, `token-reply`, or that of the failed request |
//! | other 4xx | rejected | `http-<status>` |
//! | other statuses | retry | `http-<status>` |
//!
//! A connection that is lost after the request went out is the event's trouble, since it may be what makes the receiver fall over;
//! unless the receiver cannot be connected to any more: then it is away.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use sink_api::guard::NoneAllowed;
use sink_api::http::{Failure, retry_after};
use sink_api::{Fault, Outcome};

/// No reply came. `place` is `host:port`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{place} is not connected to: {refused}, and allow_networks does not hold it")]
    AddressRefused { place: String, refused: NoneAllowed },
    #[error("the name of {place} cannot be looked up: {cause}")]
    Dns { place: String, cause: String },
    #[error("no TLS with {place}: {cause}")]
    Tls { place: String, cause: String },
    #[error("no connection to {place}: {cause}")]
    Connect { place: String, cause: String },
    #[error("{place} sent no reply within the timeout")]
    Timeout { place: String },
    #[error("the connection to {place} was lost before the reply: {cause}")]
    Lost { place: String, cause: String },
    #[error("{0}; no access token")]
    NoToken(Box<Error>),
    /// `error` is a code of RFC 6749 section 5.2.
    #[error("the token endpoint {place} answers {status}{}", error.map(|e| format!(": {e}")).unwrap_or_default())]
    TokenRefused { place: String, status: StatusCode, error: Option<&'static str> },
    #[error("the token endpoint {place} answers without a usable bearer token")]
    TokenReply { place: String },
    #[error("the sink is closed")]
    Closed,
}

/// A reply, whose body is of no interest.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub status: StatusCode,
    /// `Retry-After`, from now.
    pub after: Option<Duration>,
}

impl Error {
    pub(crate) fn of(error: &reqwest::Error, place: String) -> Self {
        match Failure::of(error) {
            Failure::AddressRefused(refused) => Self::AddressRefused { place, refused },
            Failure::Dns(cause) => Self::Dns { place, cause },
            Failure::Tls(cause) => Self::Tls { place, cause },
            Failure::Connect(cause) => Self::Connect { place, cause },
            Failure::Timeout => Self::Timeout { place },
            Failure::Lost(cause) => Self::Lost { place, cause },
        }
    }

    fn code(&self) -> String {
        match self {
            Self::AddressRefused { .. } => "address-refused".to_owned(),
            Self::Dns { .. } => "dns".to_owned(),
            Self::Tls { .. } => "tls".to_owned(),
            Self::Connect { .. } => "connect".to_owned(),
            Self::Timeout { .. } => "timeout".to_owned(),
            Self::Lost { .. } => "connection-lost".to_owned(),
            Self::NoToken(cause) => cause.code(),
            Self::TokenRefused { status, .. } => format!("token-{}", status.as_u16()),
            Self::TokenReply { .. } => "token-reply".to_owned(),
            Self::Closed => "closed".to_owned(),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<Error> for Outcome {
    fn from(error: Error) -> Self {
        match error {
            Error::Timeout { .. } | Error::Lost { .. } => Self::retry(error.into()),
            Error::AddressRefused { .. }
            | Error::Dns { .. }
            | Error::Tls { .. }
            | Error::Connect { .. }
            | Error::NoToken(_)
            | Error::TokenRefused { .. }
            | Error::TokenReply { .. }
            | Error::Closed => Self::unavailable(error.into()),
        }
    }
}

impl Reply {
    pub(crate) fn new(status: StatusCode, headers: &HeaderMap) -> Self {
        let after = headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, SystemTime::now()));
        Self { status, after }
    }

    /// What the reply of `place` means for the events that were sent.
    pub(crate) fn outcome(&self, place: &str) -> Outcome {
        let status = self.status.as_u16();
        let after = self.after;
        let fault = || {
            let code = if self.status.is_redirection() { "redirect".to_owned() } else { format!("http-{status}") };
            Fault::new(code, format!("{place} answers {}", self.status))
        };
        match status {
            200..=299 => Outcome::delivered(),
            429 => Outcome::Retry { fault: fault(), after, burns_attempt: false },
            408 | 425 => Outcome::Retry { fault: fault(), after, burns_attempt: true },
            300..=399 | 401 | 403 | 404 | 410 => Outcome::Unavailable { fault: fault(), after },
            400..=499 => Outcome::rejected(fault()),
            _ => Outcome::Retry { fault: fault(), after, burns_attempt: true },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_outcome() {
        for status in 100..1000 {
            let reply = Reply { status: StatusCode::from_u16(status).unwrap(), after: Some(Duration::from_secs(1)) };
            let outcome = reply.outcome("h:443");
            let expected = match status {
                200..300 => "delivered",
                429 => "patience",
                408 | 425 => "retry",
                300..400 | 401 | 403 | 404 | 410 => "away",
                400..500 => "rejected",
                _ => "retry",
            };
            let found = match &outcome {
                Outcome::Delivered { .. } => "delivered",
                Outcome::Retry { burns_attempt: false, after: Some(_), .. } => "patience",
                Outcome::Retry { burns_attempt: true, after: Some(_), .. } => "retry",
                Outcome::Unavailable { after: Some(_), .. } => "away",
                Outcome::Rejected { .. } => "rejected",
                other => panic!("{status}: {other:?}"),
            };
            assert_eq!(found, expected, "{status}");
        }
    }
}
