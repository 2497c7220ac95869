//! The table `[sinks.<name>.settings]`, and what is wrong with it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sink_api::settings::{Secret, TlsFiles};
use sink_api::{Context, Problem};

use crate::message::Shape;
use crate::properties::{self, Property};
use crate::topic::Template;

/// How long a record may wait for its confirmation where `properties` does not say.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `host:port`, separated by commas; others of the cluster are learned from these.
    pub brokers: String,
    /// `{action}` and `{source}` are replaced, characters that a topic cannot have by `_`.
    #[serde(default = "topic_default")]
    pub topic: String,
    /// Binary where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Events and the position behind them in one transaction, for consumers that read committed records alone.
    #[serde(default)]
    pub transactional: bool,
    /// TLS where present; an empty table trusts the system's CAs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFiles>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<Sasl>,
    /// librdkafka's own settings, by their names there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", serialize_with = "properties::shown")]
    pub properties: BTreeMap<String, Property>,
}

/// How an event is laid out in a record, by the Kafka protocol binding of CloudEvents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Binary,
    Structured,
}

/// Who we are to the brokers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mechanism", deny_unknown_fields)]
pub enum Sasl {
    #[serde(rename = "PLAIN")]
    Plain { username: String, password: Secret },
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256 { username: String, password: Secret },
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512 { username: String, password: Secret },
    /// Tokens by the client credentials grant, RFC 6749 section 4.4.
    #[serde(rename = "OAUTHBEARER")]
    OAuthBearer {
        token_url: String,
        client_id: String,
        client_secret: Secret,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
    },
}

fn topic_default() -> String {
    "tccc.{action}".to_owned()
}

impl Settings {
    /// Secrets that are references are not looked at: their trouble is found when the sink is made.
    pub(crate) fn problems(&self, context: &Context) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut found = |path: &str, message: String| problems.push(Problem { path: path.to_owned(), message });
        for broker in self.brokers.split(',') {
            if let Err(message) = checked_broker(broker.trim()) {
                found("brokers", message);
            }
        }
        if let Err(wrong) = Template::parse(&self.topic) {
            found("topic", wrong.to_string());
        }
        if let Err(message) = Shape::of(self.mode, context.format) {
            found("mode", message);
        }
        if let Some((path, message)) = self.tls.as_ref().and_then(TlsFiles::missing) {
            found(path, message.to_owned());
        }
        self.check_sasl(&mut found);
        for (name, property) in &self.properties {
            if let Err(message) = properties::checked(name, property) {
                found(&format!("properties.{name}"), message);
            }
        }
        problems
    }

    fn check_sasl(&self, found: &mut impl FnMut(&str, String)) {
        let Some(sasl) = &self.sasl else { return };
        match sasl {
            Sasl::Plain { username, .. } | Sasl::ScramSha256 { username, .. } | Sasl::ScramSha512 { username, .. }
                if username.is_empty() =>
            {
                found("sasl.username", "is empty".to_owned());
            }
            Sasl::Plain { .. } | Sasl::ScramSha256 { .. } | Sasl::ScramSha512 { .. } => {}
            Sasl::OAuthBearer { token_url, client_id, .. } => {
                let is_url = reqwest::Url::parse(token_url)
                    .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
                if !is_url {
                    found("sasl.token_url", "is not an http or https URL".to_owned());
                }
                if client_id.is_empty() {
                    found("sasl.client_id", "is empty".to_owned());
                }
            }
        }
    }

    /// How long librdkafka keeps trying a record. `properties` was checked before.
    pub(crate) fn message_timeout(&self) -> Duration {
        let set = properties::MESSAGE_TIMEOUT_NAMES.iter().find_map(|name| self.properties.get(*name));
        set.and_then(Property::as_u64).map_or(MESSAGE_TIMEOUT, Duration::from_millis)
    }
}

fn checked_broker(broker: &str) -> Result<(), String> {
    let form = || format!("{broker:?} is not host:port");
    let (host, port) = broker.rsplit_once(':').ok_or_else(form)?;
    let is_host = !host.is_empty() && !host.contains(['/', '@', ' ']);
    if !is_host || port.parse::<u16>().is_err() {
        return Err(form());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
