//! A URL to send to, parted into what a request needs and what may be shown.

use std::net::IpAddr;

use percent_encoding::percent_decode_str;
use reqwest::Url;
use secrecy::SecretString;

/// Where requests go.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    /// Without credentials.
    pub url: Url,
    /// User and password that stood in the URL.
    pub credentials: Option<(String, SecretString)>,
}

/// Why a URL cannot be used. Says nothing of its text, which may hold secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
    #[error("is not a URL; write one such as \"https://example.com/hook\"")]
    NoUrl,
    #[error("is neither an http nor an https URL")]
    Scheme,
    #[error("has a fragment (#…), which is never sent; leave it out")]
    Fragment,
    #[error("holds credentials; write them as client_id and client_secret")]
    Credentials,
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        let mut url = Url::parse(text).map_err(|_| Wrong::NoUrl)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Wrong::Scheme);
        }
        if url.fragment().is_some() {
            return Err(Wrong::Fragment);
        }
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let is_open = url.username().is_empty() && url.password().is_none();
        let credentials =
            (!is_open).then(|| (decoded(url.username()), decoded(url.password().unwrap_or_default()).into()));
        url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| Wrong::NoUrl)?;
        Ok(Self { url, credentials })
    }

    /// The host, where it is an address itself. Such a host is never looked up.
    pub(crate) fn literal(&self) -> Option<IpAddr> {
        let host = self.url.host_str()?;
        host.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }

    /// `host:port`, for messages.
    pub(crate) fn host_and_port(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        match self.url.port_or_known_default() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// The URL with credentials and query hidden.
    pub(crate) fn masked(&self) -> String {
        let mut shown = self.url.clone();
        shown.set_query(None);
        let user = if self.credentials.is_some() { "***@" } else { "" };
        let query = if self.url.query().is_some() { "?***" } else { "" };
        let rest = shown.as_str().trim_start_matches(self.url.scheme()).trim_start_matches("://");
        format!("{}://{user}{rest}{query}", self.url.scheme())
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn credentials_are_taken_out_and_decoded() {
        let address = Address::parse("https://a%40b:p%3Aw@example.com/x?y").unwrap();
        let (user, password) = address.credentials.as_ref().unwrap();
        assert_eq!((user.as_str(), password.expose_secret()), ("a@b", "p:w"));
        assert_eq!(address.url.as_str(), "https://example.com/x?y");
        assert_eq!(address.masked(), "https://***@example.com/x?***");
        assert_eq!(address.host_and_port(), "example.com:443");
    }

    #[test]
    fn a_literal_address_is_known_in_every_spelling() {
        let literal = |text| Address::parse(text).unwrap().literal();
        for spelling in
            ["http://127.0.0.1", "http://127.1", "http://0x7f.1", "http://2130706433", "http://0177.0.0.1./"]
        {
            assert_eq!(literal(spelling), Some(IpAddr::from([127, 0, 0, 1])), "{spelling}");
        }
        assert_eq!(literal("http://[::1]:80/"), Some("::1".parse().unwrap()));
        assert_eq!(literal("http://localhost/"), None);
    }
}
