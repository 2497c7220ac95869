//! The URL of a broker, parted into what a connection needs and what may be shown.
//!
//! `amqp://user:password@host:port/vhost?heartbeat=10`, by the AMQP URI specification of RabbitMQ: a path of `/` alone is the
//! virtual host with the empty name, none at all is `/`.

use std::fmt;

use lapin::uri::{AMQPScheme, AMQPUri};

/// Where the broker is. `Debug` and `Display` show neither user nor password.
#[derive(Clone)]
pub(crate) struct Address {
    /// Holds the credentials.
    pub uri: AMQPUri,
}

/// Seconds between signs of life where the URL asks for no other time: a broker that has gone silent is noticed after twice that.
const HEARTBEAT_SECONDS: u16 = 10;

const PARAMETERS: [&str; 4] = ["heartbeat", "frame_max", "channel_max", "auth_mechanism"];

/// Why a URL cannot be used. Says nothing of its text, which may hold secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
    #[error("is not an amqp or amqps URL; write one such as \"amqp://user:password@broker:5672/%2f\"")]
    NoUrl,
    #[error("has a parameter that is not known; known are heartbeat, frame_max, channel_max and auth_mechanism")]
    Parameter,
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        let mut uri: AMQPUri = text.parse().map_err(|_| Wrong::NoUrl)?;
        let (before, query) = text.split_once('?').unwrap_or((text, ""));
        let mut names = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split('=').next());
        if !names.all(|name| name.is_some_and(|name| PARAMETERS.contains(&name))) {
            return Err(Wrong::Parameter);
        }
        let authority = before.split_once("://").ok_or(Wrong::NoUrl)?.1.split('/').next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        if host.is_empty() {
            return Err(Wrong::NoUrl);
        }
        // The parser of the client library takes an IPv6 address for no host at all, which would be localhost.
        if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            uri.authority.host = address.to_owned();
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        Ok(Self { uri })
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.uri.scheme == AMQPScheme::AMQPS
    }

    /// `host:port`, for messages.
    pub(crate) fn place(&self) -> String {
        let host = &self.uri.authority.host;
        let brackets = if host.contains(':') { ("[", "]") } else { ("", "") };
        format!("{}{host}{}:{}", brackets.0, brackets.1, self.uri.authority.port)
    }

    /// The URL without user and password.
    pub(crate) fn masked(&self) -> String {
        let vhost = if self.uri.vhost == "/" { "%2f" } else { &self.uri.vhost };
        format!("{}://***@{}/{vhost}", self.uri.scheme, self.place())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_parted_and_shown_without_credentials() {
        let address = Address::parse("amqps://us%40er:p%3Aw@example.com/v%2f1?heartbeat=3").unwrap();
        let user = &address.uri.authority.userinfo;
        assert_eq!((user.username.as_str(), user.password.as_str()), ("us@er", "p:w"));
        assert_eq!((address.place().as_str(), address.uri.vhost.as_str()), ("example.com:5671", "v/1"));
        assert_eq!(address.uri.query.heartbeat, Some(3));
        assert_eq!(format!("{address:?}"), "amqps://***@example.com:5671/v/1");
        assert!(address.is_tls());
    }

    #[test]
    fn the_default_virtual_host_and_heartbeat_need_not_be_said() {
        let address = Address::parse("amqp://h").unwrap();
        assert_eq!((address.uri.vhost.as_str(), address.uri.query.heartbeat), ("/", Some(HEARTBEAT_SECONDS)));
        assert_eq!(address.masked(), "amqp://***@h:5672/%2f");
    }

    #[test]
    fn an_ipv6_address_is_a_host() {
        let address = Address::parse("amqp://u:p@[::1]:5673/v").unwrap();
        assert_eq!((address.uri.authority.host.as_str(), address.place().as_str()), ("::1", "[::1]:5673"));
    }

    #[test]
    fn what_is_not_a_brokers_url_is_refused() {
        for text in ["", "h:5672", "http://h", "amqp:", "amqp://", "amqp:///v", "amqp://u:p@/v", "amqp://h:x"] {
            assert_eq!(Address::parse(text).err(), Some(Wrong::NoUrl), "{text}");
        }
        assert_eq!(Address::parse("amqp://h?verify=none").err(), Some(Wrong::Parameter));
    }
}
