//! Why a recording was not fetched, and which outcome that is: the one place where status codes and failures are judged.
//!
//! | what | outcome | code |
//! |---|---|---|
//! | 404 | retry: it may not be there yet | `http-404` |
//! | 408, 425, 5xx, statuses nobody knows | retry | `http-<status>` |
//! | 429 | retry, burns no attempt | `http-429` |
//! | 403, 410 and other 4xx: an expired or refused link | rejected | `http-<status>` |
//! | name, connection, TLS | retry | `dns` · `connect` · `tls` |
//! | no end within the timeout · connection lost or closed early, and again after resuming | retry | `timeout` · `connection-lost` |
//! | no length, so that an end cannot be told from a break | retry | `no-length` |
//! | a page or text in place of a recording, compressed bytes | retry | `not-a-recording` · `content-encoding` |
//! | a redirect to nowhere | retry | `redirect` |
//! | more redirects than are followed | rejected | `redirects` |
//! | no URL, a broken one, another scheme | rejected | `no-url` · `bad-url` |
//! | a host or an address that is not allowed, also by redirect | rejected | `host-refused` · `address-refused` |
//! | larger than `size_max` | rejected | `too-large` |
//! | no temporary file | the sink is away | `spool` |
//! | the store refuses this object · holds something else afterwards | rejected · retry | that of the store |
//! | any other trouble of the store | the sink is away | that of the store |
//!
//! No text here holds a path or a query: `place` is `host:port`.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use reqwest::StatusCode;
use sink_api::guard::NoneAllowed;
use sink_api::http::Failure;
use sink_api::settings::Size;
use sink_api::{Fault, Outcome};

use super::media::NotMedia;
use crate::store;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the event names no URL")]
    NoUrl,
    #[error("the event's URL is none of http or https that could be fetched")]
    BadUrl,
    #[error("{host} is not one of the hosts that recordings are fetched from; see `hosts`")]
    HostRefused { host: String },
    #[error("{place} is not connected to: {refused}, and allow_networks does not hold it")]
    AddressRefused { place: String, refused: NoneAllowed },
    #[error("{place} redirects to nowhere")]
    Redirect { place: String },
    #[error("{place} redirects once more after {followed} redirects")]
    Redirects { place: String, followed: usize },
    /// `after` is from now, where the server said so.
    #[error("{place} answers {status}")]
    Status { place: String, status: StatusCode, after: Option<Duration> },
    #[error("{place} sends more than {limit}; see size_max", limit = Size(*limit))]
    TooLarge { place: String, limit: u64 },
    #[error("{place} sends compressed bytes, which were not asked for")]
    Encoding { place: String },
    #[error("{place} does not say how long the recording is")]
    NoLength { place: String },
    #[error("{place} sends {} in place of a recording", what.as_str())]
    NotARecording { place: String, what: NotMedia },
    /// With how many bytes of how many had come.
    #[error("{place}: {}; {got} of {} bytes came", told(failure), expected.map_or_else(|| "unknown".to_owned(), |n| n.to_string()))]
    Broken { place: String, failure: Failure, got: u64, expected: Option<u64> },
    #[error("no temporary file for the recording: {0}; see spool_dir")]
    Spool(#[from] io::Error),
    #[error("the sink is closed")]
    Closed,
}

fn told(failure: &Failure) -> Cow<'_, str> {
    match failure {
        Failure::AddressRefused(refused) => refused.to_string().into(),
        Failure::Dns(cause) => format!("the name cannot be looked up: {cause}").into(),
        Failure::Tls(cause) => format!("no TLS: {cause}").into(),
        Failure::Connect(cause) => format!("no connection: {cause}").into(),
        Failure::Timeout => "no end within the timeout".into(),
        Failure::Lost(cause) => format!("the connection was lost: {cause}").into(),
    }
}

impl Error {
    pub(super) fn code(&self) -> Cow<'static, str> {
        match self {
            Self::NoUrl => "no-url",
            Self::BadUrl => "bad-url",
            Self::HostRefused { .. } => "host-refused",
            Self::AddressRefused { .. } => "address-refused",
            Self::Redirect { .. } => "redirect",
            Self::Redirects { .. } => "redirects",
            Self::Status { status, .. } => return format!("http-{}", status.as_u16()).into(),
            Self::TooLarge { .. } => "too-large",
            Self::Encoding { .. } => "content-encoding",
            Self::NoLength { .. } => "no-length",
            Self::NotARecording { .. } => "not-a-recording",
            Self::Broken { failure, .. } => match failure {
                Failure::AddressRefused(_) => "address-refused",
                Failure::Dns(_) => "dns",
                Failure::Tls(_) => "tls",
                Failure::Connect(_) => "connect",
                Failure::Timeout => "timeout",
                Failure::Lost(_) => "connection-lost",
            },
            Self::Spool(_) => "spool",
            Self::Closed => "closed",
        }
        .into()
    }

    /// Whether no further try can help.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::NoUrl
            | Self::BadUrl
            | Self::HostRefused { .. }
            | Self::AddressRefused { .. }
            | Self::Redirects { .. }
            | Self::TooLarge { .. } => true,
            Self::Status { status, .. } => {
                status.is_client_error() && !matches!(status.as_u16(), 404 | 408 | 425 | 429)
            }
            Self::Redirect { .. }
            | Self::Encoding { .. }
            | Self::NoLength { .. }
            | Self::NotARecording { .. }
            | Self::Broken { .. }
            | Self::Spool(_)
            | Self::Closed => false,
        }
    }
}

impl From<Error> for Outcome {
    fn from(error: Error) -> Self {
        let fault = Fault::new(error.code(), error.to_string());
        match error {
            error if error.is_final() => Self::rejected(fault),
            Error::Spool(_) | Error::Closed => Self::unavailable(fault),
            Error::Status { status, after, .. } => {
                Self::Retry { fault, after, burns_attempt: status != StatusCode::TOO_MANY_REQUESTS }
            }
            _ => Self::retry(fault),
        }
    }
}

/// What a store's fault means for the recording that was to be put there: nothing, unless it is refused for what it is.
pub(super) fn of_store(error: store::Error, store: &store::Store) -> Outcome {
    let after = error.after();
    let fault = store.fault(error);
    match &*fault.code {
        "object-too-large" | "file-too-large" | "bad-key" | "bad-path" => Outcome::rejected(fault),
        "checksum-mismatch" => Outcome::retry(fault),
        _ => Outcome::Unavailable { fault, after },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16) -> Outcome {
        let status = StatusCode::from_u16(code).unwrap();
        Error::Status { place: "h:80".into(), status, after: Some(Duration::from_secs(1)) }.into()
    }

    #[test]
    fn every_status_has_its_outcome() {
        for code in 400..1000 {
            let found = match status(code) {
                Outcome::Rejected { fault } if fault.code == format!("http-{code}") => "rejected",
                Outcome::Retry { burns_attempt: false, after: Some(_), .. } => "patience",
                Outcome::Retry { burns_attempt: true, after: Some(_), .. } => "retry",
                other => panic!("{other:?}"),
            };
            let expected = match code {
                429 => "patience",
                404 | 408 | 425 => "retry",
                400..500 => "rejected",
                _ => "retry",
            };
            assert_eq!(found, expected, "{code}");
        }
    }

    #[test]
    fn trouble_of_our_own_is_the_sinks() {
        assert!(matches!(Error::Spool(io::ErrorKind::StorageFull.into()).into(), Outcome::Unavailable { .. }));
        assert!(matches!(Error::Closed.into(), Outcome::Unavailable { .. }));
    }
}
