//! The table `[sinks.<name>.settings]`, and what is wrong with it.

use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize, Serializer};
use sink_api::settings::{Period, Secret, TlsFiles};
use sink_api::{Context, Format, Problem};

use crate::address::Address;
use crate::template::Template;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `amqp://` or `amqps://`, with user, password and virtual host.
    #[serde(serialize_with = "shown")]
    pub url: Secret,
    #[serde(default)]
    pub mode: Mode,
    /// A template. Empty is the default exchange, which routes to the queue that the routing key names.
    pub exchange: String,
    /// A template.
    #[serde(default = "routing_key_default")]
    pub routing_key: String,
    /// Made when a connection is; where absent, only looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declare: Option<Declare>,
    /// From handing a message to the broker until its confirm. Of a whole batch: [`BATCH_TIMEOUTS`] of it.
    #[serde(default = "timeout_default")]
    pub timeout: Period,
    /// Name look-up, TCP, TLS, login and declaring together.
    #[serde(default = "connect_timeout_default")]
    pub connect_timeout: Period,
    /// Messages whose confirm is due, of all batches together.
    #[serde(default = "unconfirmed_max_default")]
    pub unconfirmed_max: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFiles>,
}

/// A batch begins nothing new after so many times `timeout`.
pub(crate) const BATCH_TIMEOUTS: u32 = 2;

/// Most that `unconfirmed_max` can be: each is held in memory with its payload.
const UNCONFIRMED_LIMIT: u32 = 100_000;

/// How an event is laid out in a message, by the AMQP protocol binding of CloudEvents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Binary,
    Structured,
}

/// Exchange, queue and the binding between them. All durable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declare {
    #[serde(default)]
    pub exchange_type: ExchangeType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    #[serde(default)]
    pub queue_type: QueueType,
    /// The binding's key; `#`, all keys, where absent.
    #[serde(default = "binding_default")]
    pub binding: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExchangeType {
    #[default]
    Topic,
    Direct,
    Fanout,
    Headers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueType {
    #[default]
    Quorum,
    Classic,
    Stream,
}

fn routing_key_default() -> String {
    "tccc.{action}".to_owned()
}

fn binding_default() -> String {
    "#".to_owned()
}

const fn timeout_default() -> Period {
    Period::from_secs(10)
}

const fn connect_timeout_default() -> Period {
    Period::from_secs(5)
}

const fn unconfirmed_max_default() -> u32 {
    1000
}

impl Settings {
    /// Secrets that are references are not looked at: their trouble is found when the sink is made.
    pub(crate) fn problems(&self, context: &Context) -> Vec<Problem> {
        let mut problems = Problems(Vec::new());
        let address = match &self.url {
            Secret::Inline(text) => {
                Address::parse(text.expose_secret()).map_err(|wrong| problems.found("url", wrong.to_string())).ok()
            }
            Secret::Env(_) | Secret::File(_) => None,
        };
        if self.mode == Mode::Structured && context.format != Format::CloudEvents {
            problems.found("mode", "structured needs whole events: set format = \"cloudevents\", or mode = \"binary\"");
        }
        for (path, text) in [("exchange", &self.exchange), ("routing_key", &self.routing_key)] {
            if let Err(wrong) = Template::parse(text) {
                problems.found(path, wrong.to_string());
            }
        }
        self.check_declare(&mut problems);
        self.check_bounds(&mut problems);
        self.check_tls(address.as_ref(), &mut problems);
        problems.0
    }

    fn check_declare(&self, problems: &mut Problems) {
        let Some(declare) = &self.declare else { return };
        if self.exchange.contains('{') {
            problems.found("declare", "the exchange holds a placeholder; only one with a fixed name can be declared");
        }
        if self.exchange.is_empty() && declare.queue.is_none() {
            problems.found("declare", "the default exchange is always there; name a queue, or leave it out");
        }
        let names = [("declare.queue", declare.queue.as_deref()), ("declare.binding", Some(declare.binding.as_str()))];
        for (path, name) in names {
            let Some(name) = name else { continue };
            let is_sound = name.bytes().all(|byte| byte.is_ascii_graphic()) && name.len() <= Template::LEN_MAX;
            if !is_sound || (path == "declare.queue" && name.is_empty()) {
                problems.found(path, "must be visible ASCII characters, 255 at most");
            }
        }
    }

    fn check_bounds(&self, problems: &mut Problems) {
        for (path, period) in [("timeout", self.timeout), ("connect_timeout", self.connect_timeout)] {
            if period.0.is_zero() {
                problems.found(path, "is zero; must be longer");
            }
        }
        if !(1..=UNCONFIRMED_LIMIT).contains(&self.unconfirmed_max) {
            let found = self.unconfirmed_max;
            problems.found("unconfirmed_max", format!("{found} is not between 1 and {UNCONFIRMED_LIMIT}"));
        }
    }

    fn check_tls(&self, address: Option<&Address>, problems: &mut Problems) {
        let Some(tls) = &self.tls else { return };
        if address.is_some_and(|address| !address.is_tls()) {
            problems.found("tls", "the url is not amqps; leave it out");
        }
        if let Some((path, message)) = tls.missing() {
            problems.found(path, message);
        }
    }
}

struct Problems(Vec<Problem>);

impl Problems {
    fn found(&mut self, path: &str, message: impl Into<String>) {
        self.0.push(Problem { path: path.to_owned(), message: message.into() });
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

#[cfg(test)]
mod tests;
