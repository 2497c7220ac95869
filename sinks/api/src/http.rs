//! What sinks that speak HTTP share: names that are resolved behind the guard, the client library's errors in our words, and
//! `Retry-After`. Behind the feature `http`.
//!
//! It promises that the addresses which the guard judged are the ones connected to, and that no text made here holds a URL: the
//! library's own errors show it, and its query is private.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::guard::{Guard, NoneAllowed};

/// A cause is cut after so many characters.
const CAUSE_CHARS_MAX: usize = 200;

/// Where addresses of names come from.
#[async_trait]
pub trait Lookup: Send + Sync + 'static {
    /// All addresses of `host`. Their ports say nothing.
    async fn lookup(&self, host: &str) -> io::Result<Vec<SocketAddr>>;
}

/// The operating system's resolver.
pub struct System;

#[async_trait]
impl Lookup for System {
    async fn lookup(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.collect())
    }
}

/// A [`Lookup`] behind a [`Guard`], as the client library wants it. It is asked for every new connection, and the addresses that it
/// gives are the ones connected to: there is no moment in between at which a name could change. A host that is an address itself is
/// never looked up: whoever connects MUST have it judged.
pub struct GuardedResolver {
    pub guard: Guard,
    pub lookup: Arc<dyn Lookup>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, lookup) = (self.guard.clone(), Arc::clone(&self.lookup));
        Box::pin(async move {
            let found = lookup.lookup(name.as_str()).await?;
            let selected = guard.select(found)?;
            Ok(Box::new(selected.into_iter()) as Addrs)
        })
    }
}

/// Why a request got no reply, or not all of it. Causes are short and safe to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    AddressRefused(NoneAllowed),
    /// The name cannot be looked up.
    Dns(String),
    Tls(String),
    Connect(String),
    Timeout,
    /// The connection was lost once it stood.
    Lost(String),
}

impl Failure {
    /// The client library's error in our words.
    pub fn of(error: &reqwest::Error) -> Self {
        let chain = || std::iter::successors(Some(error as &(dyn StdError + 'static)), |error| deeper(*error));
        let cause = chain().last().map(|deepest| shown(&deepest.to_string())).unwrap_or_default();
        if let Some(refused) = chain().find_map(|error| error.downcast_ref::<NoneAllowed>()) {
            return Self::AddressRefused(refused.clone());
        }
        match error {
            error if error.is_dns() => Self::Dns(cause),
            _ if chain().any(is_tls_error) => Self::Tls(cause),
            error if error.is_connect() => Self::Connect(cause),
            error if error.is_timeout() => Self::Timeout,
            _ => Self::Lost(cause),
        }
    }
}

/// What an error is caused by. An `io::Error` hides what it was made from behind its `source`, which is one step too deep.
fn deeper<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// Of what TLS minds, only the kind arrives here for sure: HTTP/2 turns the rest into text. Nothing else reports this kind.
fn is_tls_error(error: &(dyn StdError + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::InvalidData)
}

/// Text of the other side or of a library, safe to log.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(CAUSE_CHARS_MAX).collect()
}

/// `Retry-After` by RFC 9110 section 10.2.3: seconds, or a date, which may have passed; from `now`.
pub fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_seconds_and_in_every_form_of_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let seconds = |text| retry_after(text, now).map(|after| after.as_secs());
        assert_eq!(seconds("0"), Some(0));
        assert_eq!(seconds(" 120 "), Some(120));
        assert_eq!(seconds("99999999999999999999999"), Some(u64::MAX));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(seconds("Sunday, 06-Nov-94 08:50:37 GMT"), Some(60));
        assert_eq!(seconds("Sun Nov  6 08:50:37 1994"), Some(60));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        for text in ["", "-1", "1.5", "soon"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn a_cause_is_short_and_has_no_control_characters() {
        assert_eq!(shown("a\u{1b}[31mb\n"), "a[31mb");
        assert_eq!(shown(&"x".repeat(1000)).len(), 200);
    }
}
