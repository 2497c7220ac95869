//! The table `[sinks.<name>.settings]`, and what is wrong with it.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;
use reqwest::header::HeaderValue;
use secrecy::ExposeSecret as _;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use sink_api::guard::Guard;
use sink_api::settings::{Period, Secret, TlsFiles};
use sink_api::{Context, Format, Problem};

use crate::address::{Address, Wrong};
use crate::headers;
use crate::message::Shape;
use crate::signature::Signer;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where events are posted to; `http` or `https`. A user and password in it are sent as HTTP Basic authentication.
    #[serde(serialize_with = "shown")]
    pub url: Secret,
    /// Structured where absent, with the format `cloudevents`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Standard Webhooks secrets, `whsec_<base64>`; each of them signs.
    #[serde(default, skip_serializing_if = "Secrets::is_empty")]
    pub signing_secret: Secrets,
    /// Further headers of every request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// One request, from connecting to the end of the reply.
    #[serde(default = "timeout_default")]
    pub timeout: Period,
    /// Name look-up, TCP and TLS together.
    #[serde(default = "connect_timeout_default")]
    pub connect_timeout: Period,
    /// Networks that may be connected to although they are not public.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_networks: Vec<IpNet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFiles>,
}

/// How an event is laid out in a request, by the HTTP protocol binding of CloudEvents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Structured,
    Binary,
    Batch,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Auth {
    Bearer {
        token: Secret,
    },
    Basic {
        username: String,
        password: Secret,
    },
    /// The client credentials grant, RFC 6749 section 4.4.
    OAuth2 {
        token_url: String,
        client_id: String,
        client_secret: Secret,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
    },
}

/// Secrets written as one or as a list.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Secrets(pub Vec<Secret>);

const fn timeout_default() -> Period {
    Period::from_secs(10)
}

const fn connect_timeout_default() -> Period {
    Period::from_secs(3)
}

impl Settings {
    /// Secrets that are references are not looked at: their trouble is found when the sink is made.
    pub(crate) fn problems(&self, context: &Context) -> Vec<Problem> {
        let mut problems = Problems(Vec::new());
        let address = self.inline_address(&mut problems);
        self.check_mode(context.format, &mut problems);
        self.check_secrets(&mut problems);
        self.check_headers(address.as_ref(), &mut problems);
        let token_address = self.check_auth(address.as_ref(), &mut problems);
        self.check_times(&mut problems);
        let is_https = |address: &Address| address.url.scheme() == "https";
        // A URL that is not known here may well be https.
        let any_https = address.as_ref().is_none_or(is_https) || token_address.as_ref().is_some_and(is_https);
        self.check_tls(any_https, &mut problems);
        problems.0
    }

    pub(crate) fn guard(&self) -> Guard {
        Guard::new(self.allow_networks.clone())
    }

    fn inline_address(&self, problems: &mut Problems) -> Option<Address> {
        let Secret::Inline(text) = &self.url else { return None };
        self.checked_address("url", text.expose_secret(), problems)
    }

    fn checked_address(&self, path: &str, text: &str, problems: &mut Problems) -> Option<Address> {
        let address = Address::parse(text).map_err(|wrong| problems.found(path, wrong.to_string())).ok()?;
        if let Some(Err(refused)) = address.literal().map(|literal| self.guard().judge(literal)) {
            let advice = "a network in allow_networks that contains it opens it";
            problems.found(path, format!("{refused}, which is refused; {advice}"));
        }
        Some(address)
    }

    fn check_mode(&self, format: Format, problems: &mut Problems) {
        if let Err(message) = Shape::of(self.mode, format) {
            problems.found("mode", message);
        }
    }

    fn check_secrets(&self, problems: &mut Problems) {
        for (number, secret) in (1..).zip(&self.signing_secret.0) {
            if let Secret::Inline(text) = secret
                && let Err(wrong) = Signer::parse(text)
            {
                let which = if self.signing_secret.0.len() > 1 { format!("number {number} ") } else { String::new() };
                problems.found("signing_secret", format!("{which}{wrong}"));
            }
        }
    }

    fn check_headers(&self, address: Option<&Address>, problems: &mut Problems) {
        let has_credentials = self.auth.is_some() || address.is_some_and(|address| address.credentials.is_some());
        for (name, value) in &self.headers {
            let path = format!("headers.{name}");
            if let Err(message) = headers::checked_name(name, has_credentials) {
                problems.found(&path, message);
            }
            if let Secret::Inline(text) = value
                && HeaderValue::from_str(text.expose_secret()).is_err()
            {
                problems.found(&path, "holds characters that a header cannot".to_owned());
            }
        }
    }

    fn check_auth(&self, address: Option<&Address>, problems: &mut Problems) -> Option<Address> {
        let auth = self.auth.as_ref()?;
        if address.is_some_and(|address| address.credentials.is_some()) {
            problems.found("auth", "the url holds credentials already; leave one of the two out".to_owned());
        }
        match auth {
            Auth::Basic { username, .. } if username.contains(':') => {
                problems.found("auth.username", "holds a colon, which Basic authentication cannot send".to_owned());
                None
            }
            Auth::OAuth2 { token_url, client_id, .. } => {
                if client_id.is_empty() {
                    problems.found("auth.client_id", "is empty".to_owned());
                }
                let address = self.checked_address("auth.token_url", token_url, problems)?;
                if address.credentials.is_some() {
                    problems.found("auth.token_url", Wrong::Credentials.to_string());
                }
                Some(address)
            }
            _ => None,
        }
    }

    fn check_times(&self, problems: &mut Problems) {
        for (path, period) in [("timeout", self.timeout), ("connect_timeout", self.connect_timeout)] {
            if period.0.is_zero() {
                problems.found(path, "is zero; must be longer".to_owned());
            }
        }
        if !self.timeout.0.is_zero() && self.connect_timeout >= self.timeout {
            let message = format!("{} is not shorter than timeout, {}", self.connect_timeout, self.timeout);
            problems.found("connect_timeout", message);
        }
    }

    fn check_tls(&self, any_https: bool, problems: &mut Problems) {
        let Some(tls) = &self.tls else { return };
        if !any_https {
            problems.found("tls", "the url is not https; leave it out".to_owned());
        }
        if let Some((path, message)) = tls.missing() {
            problems.found(path, message.to_owned());
        }
    }
}

struct Problems(Vec<Problem>);

impl Problems {
    fn found(&mut self, path: &str, message: String) {
        self.0.push(Problem { path: path.to_owned(), message });
    }
}

/// The URL without what may be secret in it.
fn shown<S: Serializer>(url: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    match url {
        Secret::Inline(text) => match Address::parse(text.expose_secret()) {
            Ok(address) => serializer.serialize_str(&address.masked()),
            Err(_) => url.serialize(serializer),
        },
        reference => reference.serialize(serializer),
    }
}

impl Secrets {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Secrets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Secrets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SecretsVisitor;
        impl<'de> Visitor<'de> for SecretsVisitor {
            type Value = Secrets;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, { env = \"NAME\" }, { file = \"PATH\" }, or a list of those")
            }
            fn visit_str<E>(self, text: &str) -> Result<Secrets, E> {
                Ok(Secrets(vec![Secret::from(text)]))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Secrets, A::Error> {
                Ok(Secrets(vec![Secret::deserialize(MapAccessDeserializer::new(map))?]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Secrets, A::Error> {
                let mut secrets = Vec::new();
                while let Some(secret) = items.next_element()? {
                    secrets.push(secret);
                }
                Ok(Secrets(secrets))
            }
        }
        deserializer.deserialize_any(SecretsVisitor)
    }
}

#[cfg(test)]
mod tests;
