//! The headers that every request has: who we are, credentials, and what the config adds.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use secrecy::{ExposeSecret as _, SecretString};
use sink_api::BuildError;
use sink_api::settings::Secret;

/// They frame the request, belong to the connection (RFC 9110 section 7.6.1), or say what the body is: all of that is ours.
const FORBIDDEN: [&str; 13] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

const FORBIDDEN_PREFIXES: [&str; 2] = ["ce-", "webhook-"];

/// Who we are.
pub(crate) const OURS: HeaderValue = HeaderValue::from_static(concat!("trunkline/", env!("CARGO_PKG_VERSION")));

/// The name of a header that the config may add.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn checked_name(name: &str, has_credentials: bool) -> Result<HeaderName, String> {
    let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "is not a header's name".to_owned())?;
    let text = header.as_str();
    if FORBIDDEN.contains(&text) || FORBIDDEN_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
        return Err("is set by the sink itself; leave it out".to_owned());
    }
    if header == AUTHORIZATION && has_credentials {
        return Err("the credentials of auth, or of the url, stand there; leave one of the two out".to_owned());
    }
    Ok(header)
}

/// Resolves secrets.
pub(crate) fn common(
    added: &BTreeMap<String, Secret>,
    authorization: Option<HeaderValue>,
    has_credentials: bool,
) -> Result<HeaderMap, BuildError> {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, OURS);
    for (name, secret) in added {
        let wrong = |message: String| BuildError(format!("headers.{name}: {message}"));
        let header = checked_name(name, has_credentials).map_err(wrong)?;
        let text = secret.resolve().map_err(|error| wrong(error.to_string()))?;
        let value = sensitive(text.expose_secret());
        headers.insert(header, value.ok_or_else(|| wrong("holds characters that a header cannot".to_owned()))?);
    }
    headers.extend(authorization.map(|value| (AUTHORIZATION, value)));
    Ok(headers)
}

/// RFC 7617 section 2.
pub(crate) fn basic(user: &str, password: &SecretString) -> HeaderValue {
    let credentials = BASE64_STANDARD.encode(format!("{user}:{}", password.expose_secret()));
    sensitive(&format!("Basic {credentials}")).expect("base64 is visible ASCII")
}

/// RFC 6750 section 2.1; none where the token holds what a header cannot.
pub(crate) fn bearer(token: &SecretString) -> Option<HeaderValue> {
    sensitive(&format!("Bearer {}", token.expose_secret()))
}

/// A value that no debug output shows.
fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
