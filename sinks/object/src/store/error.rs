//! What can go wrong with a store, and which fault that is. The only place that looks into the client library's errors and into the
//! words of S3 and COS.
//!
//! No text of the library, and nothing of a reply but its error code, gets into a fault: both can hold URLs, keys and signatures.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use opendal::ErrorKind;
use sink_api::Fault;

/// The code of what was to be new and is there.
const KEY_TAKEN: &str = "key-taken";

/// An operation on a store failed. Nothing that was being written counts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// `what` says how: the connection was refused, the name not found, ….
    #[error("the store cannot be reached: {what}")]
    Unreachable { what: &'static str },
    #[error("the store did not answer within {limit:?}")]
    TimedOut { limit: Duration },
    #[error("the store's reply broke off, or makes no sense")]
    BadReply,
    #[error(
        "no credentials were found that could be used; set access_key_id and secret_access_key, or see what the environment offers"
    )]
    NoCredentials,
    /// `what` is a length or a checksum.
    #[error("the store holds {held} where {sent} was sent as the {what}")]
    Mismatch { what: &'static str, sent: String, held: String },
    #[error("the object is not there")]
    NotFound,
    #[error("another object has just appeared under the key")]
    Taken,
    /// `step` is a participle: `written`, `synced`, ….
    #[error("{} cannot be {step}: {source}", path.display())]
    Disk { step: &'static str, path: PathBuf, source: io::Error },
    #[error("the gateway is stopping")]
    Stopping,
    #[error("the client library failed: {kind}")]
    Library { kind: &'static str },
}

/// What a store answered in place of success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store answers {status}{}{code}", if code.is_empty() { "" } else { " " })]
pub struct Refusal {
    /// The HTTP status; 200 where a reply turned out to be an error later on.
    pub status: u16,
    /// The error code of S3 or COS, such as `NoSuchBucket`; empty where the reply had none.
    pub code: String,
    /// Not before this long from now, where the store said so.
    pub after: Option<Duration>,
}

impl Error {
    /// Not before this long from now, where the store said so.
    pub fn after(&self) -> Option<Duration> {
        if let Self::Refused(refusal) = self { refusal.after } else { None }
    }

    /// As a fault of a sink. `place` names the store for a person.
    pub fn into_fault(self, place: &str) -> Fault {
        let (code, advice) = self.code_and_advice();
        let separator = if advice.is_empty() { "" } else { "; " };
        Fault::new(code, format!("{place}: {self}{separator}{advice}"))
    }

    /// Code by code: the stable word, and what a person can do.
    fn code_and_advice(&self) -> (Cow<'static, str>, &'static str) {
        let (code, advice) = match self {
            Self::Refused(refusal) => return refusal.code_and_advice(),
            Self::Unreachable { .. } => {
                ("unreachable", "see whether `endpoint` is right and the network lets it through")
            }
            Self::TimedOut { .. } => ("timeout", ""),
            Self::BadReply => ("bad-reply", "see whether `endpoint` is a store"),
            Self::NoCredentials => ("no-credentials", ""),
            Self::Mismatch { .. } => ("checksum-mismatch", ""),
            Self::NotFound => ("not-found", ""),
            Self::Taken => (KEY_TAKEN, ""),
            Self::Disk { source, .. } => (disk_code(source), ""),
            Self::Stopping => ("stopping", ""),
            Self::Library { .. } => ("store-error", ""),
        };
        (code.into(), advice)
    }

    /// What the library's error means. `limit` is the time that one request may take.
    pub(super) fn of(error: &opendal::Error, limit: Duration) -> Self {
        let mut source = StdError::source(error);
        while let Some(cause) = source {
            if let Some(refusal) = cause.downcast_ref::<Refusal>() {
                let missing_object = refusal.status == 404 && matches!(refusal.code.as_str(), "" | "NoSuchKey");
                return if missing_object { Self::NotFound } else { Self::Refused(refusal.clone()) };
            }
            if let Some(mismatch) = cause.downcast_ref::<BadChecksum>() {
                let BadChecksum { sent, held } = mismatch.clone();
                return Self::Mismatch { what: "checksum", sent, held };
            }
            if let Some(http) = cause.downcast_ref::<reqwest::Error>() {
                return Self::of_http(http, limit);
            }
            source = cause.source();
        }
        match error.kind() {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Unexpected if error.message().contains("http request") => Self::NoCredentials,
            ErrorKind::Unexpected => Self::BadReply,
            kind => Self::Library { kind: kind.into_static() },
        }
    }

    fn of_http(error: &reqwest::Error, limit: Duration) -> Self {
        if error.is_timeout() && !error.is_connect() {
            return Self::TimedOut { limit };
        }
        if error.is_connect() {
            return Self::Unreachable { what: connect_failure(error) };
        }
        if error.is_body() || error.is_decode() {
            Self::BadReply
        } else {
            Self::Unreachable { what: "the connection broke" }
        }
    }
}

/// The store's checksum of what it took is another.
#[derive(Debug, Clone, thiserror::Error)]
#[error("checksum mismatch")]
pub(super) struct BadChecksum {
    pub(super) sent: String,
    pub(super) held: String,
}

impl Refusal {
    /// Sources: the lists of error responses of Amazon S3 and of Tencent COS.
    fn code_and_advice(&self) -> (Cow<'static, str>, &'static str) {
        let (code, advice) = match (self.code.as_str(), self.status) {
            (
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "InvalidToken"
                | "ExpiredToken"
                | "TokenRefreshRequired",
                _,
            ) => (
                "bad-credentials",
                "see whether access_key_id and secret_access_key belong together and are still good",
            ),
            ("RequestTimeTooSkewed" | "RequestExpired" | "RequestIsExpired", _) => {
                ("clock-skew", "set this machine's clock")
            }
            ("PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed" | "Redirect", _)
            | (_, 301 | 302 | 307 | 308) => ("wrong-region", "see whether `region` and `endpoint` are the bucket's"),
            ("NoSuchBucket", _) => ("no-such-bucket", "make it, or see whether its name and `endpoint` are right"),
            ("InvalidBucketName", _) => ("no-such-bucket", "see whether the name of the bucket is right"),
            ("SlowDown" | "SlowDownRead" | "SlowDownWrite" | "RequestLimitExceeded" | "TooManyRequests", _)
            | (_, 429) => ("slow-down", ""),
            (
                "BadDigest"
                | "InvalidDigest"
                | "ContentSHA256Mismatch"
                | "XAmzContentSHA256Mismatch"
                | "XAmzContentChecksumMismatch",
                _,
            ) => ("checksum-mismatch", ""),
            ("EntityTooLarge" | "MaxMessageLengthExceeded", _) => ("object-too-large", ""),
            ("KeyTooLong" | "KeyTooLongError" | "InvalidObjectName" | "InvalidURI", _) => {
                ("bad-key", "change the template `key`")
            }
            ("QuotaExceeded" | "InsufficientCapacity" | "XMinioStorageFull" | "InvalidObjectState", _) | (_, 507) => {
                ("store-full", "")
            }
            ("NoSuchUpload", _) => ("upload-gone", ""),
            ("PreconditionFailed" | "ConditionalRequestConflict", _) | (_, 412) => (KEY_TAKEN, ""),
            ("RequestTimeout", _) | (_, 408) => ("timeout", ""),
            ("AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "UnauthorizedAccess", _) | (_, 401 | 403) => {
                ("access-denied", "the policy must allow to put, get, list and abort uploads in this bucket")
            }
            (code, _) if code.starts_with("KMS.") => ("kms", "see whether the key is there and may be used"),
            (_, 200) => ("store-error", ""),
            (_, status) => return (format!("http-{status}").into(), ""),
        };
        (code.into(), advice)
    }
}

fn connect_failure(error: &reqwest::Error) -> &'static str {
    let mut source = StdError::source(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            match io.kind() {
                io::ErrorKind::ConnectionRefused => return "the connection was refused",
                io::ErrorKind::ConnectionReset => return "the connection was reset",
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => return "there is no way to it",
                io::ErrorKind::TimedOut => return "it took too long to connect",
                io::ErrorKind::InvalidData => return "its TLS certificate or handshake is no good",
                _ => {}
            }
        }
        source = cause.source();
    }
    if error.is_timeout() { "it took too long to connect" } else { "its name was not found, or the connection failed" }
}

fn disk_code(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => "disk-full",
        io::ErrorKind::QuotaExceeded => "quota-exceeded",
        io::ErrorKind::FileTooLarge => "file-too-large",
        io::ErrorKind::PermissionDenied => "permission-denied",
        io::ErrorKind::ReadOnlyFilesystem => "read-only",
        io::ErrorKind::NotFound => "not-found",
        io::ErrorKind::NotADirectory => "not-a-directory",
        io::ErrorKind::IsADirectory => "is-a-directory",
        io::ErrorKind::InvalidFilename => "bad-path",
        io::ErrorKind::StaleNetworkFileHandle => "stale-handle",
        io::ErrorKind::TimedOut => "timeout",
        // EIO, and whatever else a file system thinks of.
        _ => "io-error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, code: &str) -> Refusal {
        Refusal { status, code: code.to_owned(), after: None }
    }

    #[test]
    fn every_refusal_has_a_stable_code() {
        let codes = [
            (403, "SignatureDoesNotMatch", "bad-credentials"),
            (403, "AccessDenied", "access-denied"),
            (403, "", "access-denied"),
            (404, "NoSuchBucket", "no-such-bucket"),
            (301, "", "wrong-region"),
            (400, "AuthorizationHeaderMalformed", "wrong-region"),
            (503, "SlowDown", "slow-down"),
            (429, "", "slow-down"),
            (503, "", "http-503"),
            (400, "BadDigest", "checksum-mismatch"),
            (400, "KMS.DisabledException", "kms"),
            (500, "InternalError", "http-500"),
        ];
        for (status, code, expected) in codes {
            let fault = Error::from(refusal(status, code)).into_fault("bucket archive");
            assert_eq!(fault.code, expected, "{status} {code}");
            assert!(fault.reason.starts_with("bucket archive: the store answers "), "{}", fault.reason);
        }
    }

    #[test]
    fn a_missing_object_is_told_from_a_missing_bucket() {
        let of = |code| {
            let error = opendal::Error::new(ErrorKind::NotFound, "secret text").set_source(refusal(404, code));
            Error::of(&error, Duration::from_secs(1))
        };
        assert!(matches!(of(""), Error::NotFound));
        assert!(matches!(of("NoSuchKey"), Error::NotFound));
        let fault = of("NoSuchBucket").into_fault("x");
        assert_eq!(fault.code, "no-such-bucket");
        assert!(!fault.reason.contains("secret"));
    }
}
