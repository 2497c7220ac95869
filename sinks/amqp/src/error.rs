//! What can go wrong, and which outcome that is: the one place where the client library's errors and the broker's codes are judged.
//!
//! | what | outcome | code |
//! |---|---|---|
//! | confirmed | delivered | |
//! | returned: no queue is bound for it | retry | `unroutable` |
//! | negative confirm: the queue is full or has lost its quorum | retry, burns no attempt | `nacked` |
//! | larger than the broker takes (406 or 311 with its limit) | rejected; what was under way beside it: retry, burns no attempt | `too-large` · `channel-lost` |
//! | no confirm in time, while others came | retry, burns no attempt | `no-confirm` |
//! | no place in the window in time | retry, burns no attempt | `window-full` |
//! | no confirm in time at all | the sink is away | `timeout` |
//! | the broker blocks publishers | the sink is away | `blocked` |
//! | any other code of the broker: login or permission (403), exchange or virtual host not there (404, 530), declared otherwise (406), shutting down (320), … | the sink is away | its name: `access-refused`, `not-found`, `not-allowed`, `precondition-failed`, `connection-forced`, … |
//! | no connection · no TLS · not within the timeout · lost | the sink is away | `connect` · `tls` · `connect-timeout` · `connection-lost` |
//!
//! Outcomes that burn no attempt are those of which the event is no cause. Whatever is not confirmed may have arrived all the same:
//! it is sent again under the same `message_id`.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::io;

use lapin::ErrorKind;
use lapin::protocol::AMQPErrorKind;
use sink_api::{Fault, Outcome};

/// A cause is cut after so many characters.
const CAUSE_CHARS_MAX: usize = 200;

/// Access refused. Its text names the user.
const ACCESS_REFUSED: u16 = 403;

/// `place` is `host:port`. Texts are safe to show.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("no connection to {place}: {cause}")]
    Connect { place: String, cause: String },
    #[error("no TLS with {place}: {cause}")]
    Tls { place: String, cause: String },
    #[error("{place} was not connected to within connect_timeout")]
    Late { place: String },
    #[error("the connection to {place} was lost: {cause}")]
    Lost { place: String, cause: String },
    /// A code of AMQP 0-9-1, section 1.2, by its name in small letters.
    #[error("{place} answers {code} {name}{}", if text.is_empty() { String::new() } else { format!(": {text}") })]
    Refused { place: String, code: u16, name: String, text: String },
    #[error("{place} blocks publishers: {}", if reason.is_empty() { "it names no reason" } else { reason })]
    Blocked { place: String, reason: String },
    #[error("{place} confirmed nothing within the timeout")]
    Silent { place: String },
    #[error("{place} confirmed others, but not this one within the timeout; its queue may have lost its quorum")]
    Slow { place: String },
    #[error("the confirms of {place} leave no place in unconfirmed_max")]
    Full { place: String },
    #[error("{place} refuses it by a negative confirm: the queue is full, or has lost its quorum")]
    Nacked { place: String },
    #[error("{place} returned it: no queue is bound to exchange {exchange:?} for {routing_key:?}")]
    Unroutable { place: String, exchange: String, routing_key: String },
    #[error("the sink is closed")]
    Closed,
}

impl Error {
    /// The client library's errors in our words: its own could name the user.
    pub(crate) fn of(error: &lapin::Error, place: &str) -> Self {
        let place = place.to_owned();
        let cause = shown(&error.to_string());
        match error.kind() {
            ErrorKind::ProtocolError(refused) => {
                let name = match refused.kind() {
                    AMQPErrorKind::Soft(kind) => kind.to_string(),
                    AMQPErrorKind::Hard(kind) => kind.to_string(),
                };
                let code = refused.get_id();
                let text = if code == ACCESS_REFUSED { String::new() } else { shown(refused.get_message().as_str()) };
                Self::Refused { place, code, name: name.to_ascii_lowercase(), text }
            }
            ErrorKind::IOError(error) if is_tls(error) => Self::Tls { place, cause: shown(&deepest(error)) },
            ErrorKind::IOError(error) if is_connect(error.kind()) => {
                Self::Connect { place, cause: shown(&deepest(error)) }
            }
            ErrorKind::IOError(_)
            | ErrorKind::MissingHeartbeatError
            | ErrorKind::InvalidChannel(_)
            | ErrorKind::InvalidChannelState(..)
            | ErrorKind::InvalidConnectionState(_)
            | ErrorKind::RuntimeShutdownError(_)
            | ErrorKind::ChannelsLimitReached
            | ErrorKind::InvalidProtocolVersion(_)
            | ErrorKind::ParsingError(_)
            | ErrorKind::SerialisationError(_)
            | ErrorKind::FutureCompleted
            | ErrorKind::NoDefaultRuntime => Self::Lost { place, cause },
            // May repeat what the provider was given.
            _ => Self::Lost { place, cause: "the client library gave up".to_owned() },
        }
    }

    /// What the error means for an event whose message has a body of `size` bytes.
    pub(crate) fn outcome(self, size: usize) -> Outcome {
        if let Some(size_max) = self.size_max() {
            let reason = format!("its {size} bytes are more than the {size_max} that the broker takes");
            if size > size_max {
                return Outcome::rejected(Fault::new("too-large", reason));
            }
            let fault = Fault::new("channel-lost", "a message beside it was too large, and took its channel along");
            return Outcome::Retry { fault, after: None, burns_attempt: false };
        }
        match self {
            Self::Unroutable { .. } => Outcome::retry(self.into()),
            Self::Nacked { .. } | Self::Slow { .. } | Self::Full { .. } => {
                Outcome::Retry { fault: self.into(), after: None, burns_attempt: false }
            }
            Self::Connect { .. }
            | Self::Tls { .. }
            | Self::Late { .. }
            | Self::Lost { .. }
            | Self::Refused { .. }
            | Self::Blocked { .. }
            | Self::Silent { .. }
            | Self::Closed => Outcome::unavailable(self.into()),
        }
    }

    fn code(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Connect { .. } => "connect",
            Self::Tls { .. } => "tls",
            Self::Late { .. } => "connect-timeout",
            Self::Lost { .. } => "connection-lost",
            Self::Refused { name, .. } => return Cow::Owned(name.clone()),
            Self::Blocked { .. } => "blocked",
            Self::Silent { .. } => "timeout",
            Self::Slow { .. } => "no-confirm",
            Self::Full { .. } => "window-full",
            Self::Nacked { .. } => "nacked",
            Self::Unroutable { .. } => "unroutable",
            Self::Closed => "closed",
        })
    }

    /// The largest message that the broker takes, where that is what it minds. It says so only in words:
    /// `message size 3145885 larger than configured max size 2097152`, and `… is larger than …` since 4.0.
    fn size_max(&self) -> Option<usize> {
        let Self::Refused { code: 406 | 311, text, .. } = self else { return None };
        let (_, number) = text.split_once("larger than configured max size ")?;
        let digits = number.find(|c: char| !c.is_ascii_digit()).map_or(number, |end| &number[..end]);
        digits.parse().ok()
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// What was never a connection.
fn is_connect(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable, Other, TimedOut};
    matches!(kind, AddrNotAvailable | ConnectionRefused | HostUnreachable | NetworkUnreachable | Other | TimedOut)
        || kind == io::Error::from_raw_os_error(0).kind()
}

fn is_tls(error: &io::Error) -> bool {
    let mut cause = error.get_ref().map(|inner| inner as &(dyn StdError + 'static));
    while let Some(error) = cause {
        if error.is::<rustls::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The last cause, since the first often only repeats that something failed.
fn deepest(error: &io::Error) -> String {
    error.get_ref().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Text of the other side or of a library, safe to log.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(CAUSE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lapin::protocol::{AMQPError, AMQPHardError, AMQPSoftError};

    use super::*;

    fn soft(kind: AMQPSoftError, text: &str) -> lapin::Error {
        ErrorKind::ProtocolError(AMQPError::new(kind.into(), text.into())).into()
    }

    fn hard(kind: AMQPHardError, text: &str) -> lapin::Error {
        ErrorKind::ProtocolError(AMQPError::new(kind.into(), text.into())).into()
    }

    fn io(kind: io::ErrorKind) -> lapin::Error {
        io::Error::from(kind).into()
    }

    /// `away`, `retry`, `patience` or `rejected`, and the code.
    fn judged(outcome: Outcome) -> (&'static str, String) {
        match outcome {
            Outcome::Unavailable { fault, after: None } => ("away", fault.code.into_owned()),
            Outcome::Retry { fault, burns_attempt: true, .. } => ("retry", fault.code.into_owned()),
            Outcome::Retry { fault, burns_attempt: false, .. } => ("patience", fault.code.into_owned()),
            Outcome::Rejected { fault } => ("rejected", fault.code.into_owned()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_error_of_the_library_has_its_outcome() {
        let too_large = "PRECONDITION_FAILED - message size 3000 larger than configured max size 2000";
        let too_large_since_4 = "PRECONDITION_FAILED - message size 3000 is larger than configured max size 2000";
        let tls = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::DecryptError);
        let table = [
            (soft(AMQPSoftError::NOTFOUND, "no exchange 'e'"), "away", "not-found"),
            (soft(AMQPSoftError::ACCESSREFUSED, "x"), "away", "access-refused"),
            (soft(AMQPSoftError::RESOURCELOCKED, "x"), "away", "resource-locked"),
            (soft(AMQPSoftError::PRECONDITIONFAILED, "inequivalent arg"), "away", "precondition-failed"),
            (soft(AMQPSoftError::PRECONDITIONFAILED, too_large), "rejected", "too-large"),
            (soft(AMQPSoftError::PRECONDITIONFAILED, too_large_since_4), "rejected", "too-large"),
            (soft(AMQPSoftError::CONTENTTOOLARGE, too_large), "rejected", "too-large"),
            (hard(AMQPHardError::CONNECTIONFORCED, "x"), "away", "connection-forced"),
            (hard(AMQPHardError::NOTALLOWED, "vhost v not found"), "away", "not-allowed"),
            (hard(AMQPHardError::FRAMEERROR, "x"), "away", "frame-error"),
            (hard(AMQPHardError::INTERNALERROR, "x"), "away", "internal-error"),
            (hard(AMQPHardError::RESOURCEERROR, "x"), "away", "resource-error"),
            (io(io::ErrorKind::ConnectionRefused), "away", "connect"),
            (io(io::ErrorKind::HostUnreachable), "away", "connect"),
            (io(io::ErrorKind::ConnectionReset), "away", "connection-lost"),
            (io(io::ErrorKind::ConnectionAborted), "away", "connection-lost"),
            (ErrorKind::IOError(Arc::new(tls)).into(), "away", "tls"),
            (ErrorKind::MissingHeartbeatError.into(), "away", "connection-lost"),
            (ErrorKind::ChannelsLimitReached.into(), "away", "connection-lost"),
            (ErrorKind::FutureCompleted.into(), "away", "connection-lost"),
        ];
        for (error, verdict, code) in table {
            let found = judged(Error::of(&error, "h:5672").outcome(3000));
            assert_eq!(found, (verdict, code.to_owned()), "{error:?}");
        }
    }

    #[test]
    fn every_trouble_of_our_own_has_its_outcome() {
        let place = || "h:5672".to_owned();
        let unroutable =
            Error::Unroutable { place: place(), exchange: "e".to_owned(), routing_key: "tccc.cdr".to_owned() };
        let table = [
            (unroutable, "retry", "unroutable"),
            (Error::Nacked { place: place() }, "patience", "nacked"),
            (Error::Slow { place: place() }, "patience", "no-confirm"),
            (Error::Full { place: place() }, "patience", "window-full"),
            (Error::Silent { place: place() }, "away", "timeout"),
            (Error::Late { place: place() }, "away", "connect-timeout"),
            (Error::Blocked { place: place(), reason: "low on memory".to_owned() }, "away", "blocked"),
            (Error::Closed, "away", "closed"),
        ];
        for (error, verdict, code) in table {
            assert_eq!(judged(error.outcome(1)), (verdict, code.to_owned()));
        }
    }

    #[test]
    fn what_was_beside_a_message_that_is_too_large_is_not_blamed() {
        let text = "PRECONDITION_FAILED - message size 3000 larger than configured max size 2000";
        let error = Error::of(&soft(AMQPSoftError::PRECONDITIONFAILED, text), "h:5672");
        assert_eq!(judged(error.clone().outcome(2000)), ("patience", "channel-lost".to_owned()));
        assert_eq!(judged(error.outcome(2001)), ("rejected", "too-large".to_owned()));
    }

    #[test]
    fn a_refused_login_does_not_name_the_user() {
        let text = "ACCESS_REFUSED - access to exchange 'e' in vhost '/' refused for user 'canaryuser'";
        let fault = Fault::from(Error::of(&soft(AMQPSoftError::ACCESSREFUSED, text), "h:5672"));
        assert_eq!(fault.reason, "h:5672 answers 403 access-refused");
    }
}
