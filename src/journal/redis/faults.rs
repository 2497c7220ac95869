//! What an error of Redis means for what was asked: the one place where they are told apart.

use redis::{RedisError, ServerError, ServerErrorKind, Value};

use super::connect::{ConnectError, say};
use crate::journal::Error;

/// Why something was not done, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// It was not done. `moved`: the master may be elsewhere.
    Refused { cause: String, moved: bool },
    /// It was not done: the server has no memory left.
    NoMemory,
    /// It was not done: the server does not know the script by its hash.
    NoScript,
    /// Whether it was done is not known.
    Unknown { cause: String },
}

impl Fault {
    pub(super) fn cause(&self) -> String {
        match self {
            Self::Refused { cause, .. } | Self::Unknown { cause } => cause.clone(),
            Self::NoMemory => "Redis has no memory left (maxmemory)".to_owned(),
            Self::NoScript => "Redis does not keep its scripts".to_owned(),
        }
    }

    /// Whether the same may go through on another connection.
    pub(super) fn wants_another_link(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Unknown { .. })
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Unavailable { cause: fault.cause() }
    }
}

impl From<ConnectError> for Fault {
    fn from(error: ConnectError) -> Self {
        let stays = matches!(error, ConnectError::Url(_) | ConnectError::TlsFile { .. } | ConnectError::NoInfo { .. });
        Self::Refused { cause: error.to_string(), moved: !stays }
    }
}

impl From<RedisError> for Fault {
    /// Where the connection failed the command may have run.
    fn from(error: RedisError) -> Self {
        Self::Unknown { cause: say(&error) }
    }
}

/// The value, or what the server's error means.
///
/// | code | means |
/// |---|---|
/// | NOSCRIPT | its scripts were flushed, or it is another process |
/// | OOM | `maxmemory` is reached |
/// | READONLY, MOVED, ASK, CLUSTERDOWN, MASTERDOWN | the master is elsewhere, or being looked for |
/// | LOADING, MISCONF, TRYAGAIN, BUSY, NOREPLICAS, NOPERM, NOAUTH, WRONGPASS | refused before anything was done |
/// | else, as ERR | the script stopped on its way |
pub(super) fn check(value: Value) -> Result<Value, Fault> {
    let Value::ServerError(error) = value else { return Ok(value) };
    let cause = format!("{} {}", error.code(), error.details().unwrap_or_default());
    Err(match error.kind() {
        Some(ServerErrorKind::NoScript) => Fault::NoScript,
        Some(
            ServerErrorKind::ReadOnly
            | ServerErrorKind::Moved
            | ServerErrorKind::Ask
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown,
        ) => Fault::Refused { cause, moved: true },
        Some(ServerErrorKind::BusyLoading | ServerErrorKind::TryAgain | ServerErrorKind::NoPerm) => {
            Fault::Refused { cause, moved: false }
        }
        _ => other(&error, cause),
    })
}

fn other(error: &ServerError, cause: String) -> Fault {
    match error.code() {
        "OOM" => Fault::NoMemory,
        "MISCONF" | "BUSY" | "NOREPLICAS" | "NOAUTH" | "WRONGPASS" => Fault::Refused { cause, moved: false },
        _ => Fault::Unknown { cause },
    }
}

/// A reply of another form than its command has.
pub(super) fn odd(value: &Value) -> Fault {
    Fault::Unknown { cause: format!("Redis answered in an unknown form ({} bytes)", format!("{value:?}").len()) }
}

/// The numbers of a flat reply.
pub(super) fn numbers(value: &Value) -> Result<Vec<u64>, Fault> {
    let Value::Array(values) = value else { return Err(odd(value)) };
    values.iter().map(|number| number_of(number).ok_or_else(|| odd(value))).collect()
}

/// A number, said as such or as text; 0 for nothing.
pub(super) fn number_of(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::BulkString(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        Value::Nil => Some(0),
        _ => None,
    }
}

pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(text) => String::from_utf8(text.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

pub(super) fn array_of(value: Value) -> Result<Vec<Value>, Fault> {
    match value {
        Value::Array(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        other => Err(odd(&other)),
    }
}
