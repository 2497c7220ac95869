//! librdkafka's own properties: all can be set but those that would break what the sink promises.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};
use sink_api::settings::{Secret, SecretError};

/// Two names of one thing.
pub(crate) const MESSAGE_TIMEOUT_NAMES: [&str; 2] = ["message.timeout.ms", "delivery.timeout.ms"];

/// Bounds of the message timeout: librdkafka looks once a second, and a call of the sink ends after 30 s.
const MESSAGE_TIMEOUT_MS: std::ops::RangeInclusive<u64> = 1_000..=25_000;

/// A value as it is written: `5`, `true`, `"zstd"`, `{ env = "NAME" }`.
#[derive(Clone, PartialEq)]
pub enum Property {
    Bool(bool),
    Integer(i64),
    Text(String),
    Reference(Secret),
}

impl Property {
    /// The text that librdkafka gets; reads the environment or the file of a reference.
    pub(crate) fn resolve(&self) -> Result<String, SecretError> {
        use secrecy::ExposeSecret as _;
        Ok(match self {
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Text(text) => text.clone(),
            Self::Reference(secret) => secret.resolve()?.expose_secret().to_owned(),
        })
    }

    pub(crate) fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Integer(value) => u64::try_from(*value).ok(),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Bool(_) | Self::Reference(_) => None,
        }
    }
}

/// Whether the property may be set so. Pure: librdkafka is asked whether it knows it, and no client is made.
pub(crate) fn checked(name: &str, property: &Property) -> Result<(), String> {
    let text = match property {
        // What it refers to is not known here.
        Property::Reference(_) => String::new(),
        known => known.resolve().map_err(|error| error.to_string())?,
    };
    if let Some(reason) = refusal(name, property, text.trim()) {
        return Err(reason);
    }
    if matches!(property, Property::Reference(_)) {
        return Ok(());
    }
    let mut config = ClientConfig::new();
    config.set(name, &text);
    match config.create_native_config() {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(_, description, ..)) if is_secret(name) => {
            Err(description.split('"').next().unwrap_or_default().trim().to_owned())
        }
        Err(KafkaError::ClientConfig(_, description, ..)) => Err(description),
        Err(error) => Err(error.to_string()),
    }
}

/// Why this must not be set so, if it must not.
fn refusal(name: &str, property: &Property, text: &str) -> Option<String> {
    let number = property.as_u64();
    let never = |reason: &str| Some(reason.to_owned());
    match name {
        "bootstrap.servers" | "metadata.broker.list" => never("is what `brokers` says; set that"),
        "acks" | "request.required.acks" => never("is always all: delivered means that every in-sync replica has it"),
        "enable.idempotence" => {
            never("is always on: without it a retry inside librdkafka could repeat or reorder events")
        }
        "enable.gapless.guarantee" => {
            never("is on where it is needed: without it events could pass one that was refused")
        }
        "transactional.id" => never("is made by the sink, one per shard; set `transactional`"),
        "max.in.flight" | "max.in.flight.requests.per.connection" if number.is_none_or(|n| n == 0 || n > 5) => {
            never("must be 1 to 5: with more in flight order is not kept when one is retried")
        }
        "retries" | "message.send.max.retries" if number.is_none_or(|n| n == 0) => {
            never("must be 1 or more: a leader change would fail events")
        }
        name if MESSAGE_TIMEOUT_NAMES.contains(&name) && number.is_none_or(|n| !MESSAGE_TIMEOUT_MS.contains(&n)) => {
            let (min, max) = MESSAGE_TIMEOUT_MS.into_inner();
            Some(format!("must be {min} to {max}: it has to end before a call of the sink does, after 30 s"))
        }
        "partitioner" if text == "random" => never("must go by the key: a session has to stay in one partition"),
        "queuing.strategy" if text != "fifo" => never("must be fifo: order is kept within a session"),
        "queue.buffering.max.messages" if number.is_none_or(|n| n == 0) => never("must be bounded"),
        "delivery.report.only.error" => never("must stay off: what is not reported would never be settled"),
        "security.protocol" => never("is what `tls` and `sasl` say; set those"),
        "ssl.ca.location" | "ssl.certificate.location" | "ssl.key.location" => never("is what `tls` says; set that"),
        "enable.ssl.certificate.verification" if text != "true" => {
            never("must stay on: else anybody can be the broker")
        }
        "plugin.library.paths" => never("would load code into the gateway"),
        "test.mock.num.brokers" | "test.mock.broker.rtt" => never("is for tests: events would go nowhere"),
        name if name.starts_with("sasl.") || name == "enable.sasl.oauthbearer.unsecure.jwt" => {
            never("is what `sasl` says; set that")
        }
        name if is_internal(name) => never("is used by the sink itself"),
        _ => None,
    }
}

fn is_internal(name: &str) -> bool {
    const NAMES: [&str; 7] =
        ["opaque", "default_topic_conf", "enabled_events", "log.queue", "isolation.level", "group.id", "msg_order_cmp"];
    NAMES.contains(&name) || name.ends_with("_cb")
}

fn is_secret(name: &str) -> bool {
    ["password", "secret", "pem", "token"].iter().any(|word| name.contains(word))
}

/// The effective properties, secrets masked.
pub(crate) fn shown<S: Serializer>(properties: &BTreeMap<String, Property>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(properties.len()))?;
    for (name, property) in properties {
        match property {
            Property::Text(_) if is_secret(name) => map.serialize_entry(name, "***")?,
            property => map.serialize_entry(name, property)?,
        }
    }
    map.end()
}

impl fmt::Debug for Property {
    /// Text may be a secret: its name is not known here.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Text(_) => f.write_str("***"),
            Self::Reference(secret) => write!(f, "{secret:?}"),
        }
    }
}

impl Serialize for Property {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Integer(value) => serializer.serialize_i64(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Reference(secret) => secret.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Property {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PropertyVisitor;
        impl<'de> Visitor<'de> for PropertyVisitor {
            type Value = Property;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, an integer, a string, { env = \"NAME\" } or { file = \"PATH\" }")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Property, E> {
                Ok(Property::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Property, E> {
                Ok(Property::Integer(value))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Property, E> {
                i64::try_from(value).map(Property::Integer).map_err(|_| E::custom("is too large"))
            }
            fn visit_str<E>(self, text: &str) -> Result<Property, E> {
                Ok(Property::Text(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Property, A::Error> {
                Secret::deserialize(MapAccessDeserializer::new(map)).map(Property::Reference)
            }
        }
        deserializer.deserialize_any(PropertyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Property {
        Property::Text(text.to_owned())
    }

    #[test]
    fn what_would_break_a_promise_is_refused_with_its_reason() {
        let refused = [
            ("acks", Property::Integer(1)),
            ("request.required.acks", text("all")),
            ("enable.idempotence", Property::Bool(false)),
            ("enable.gapless.guarantee", Property::Bool(false)),
            ("transactional.id", text("mine")),
            ("max.in.flight", Property::Integer(6)),
            ("max.in.flight.requests.per.connection", text("1000000")),
            ("retries", Property::Integer(0)),
            ("message.timeout.ms", Property::Integer(0)),
            ("message.timeout.ms", Property::Integer(300_000)),
            ("delivery.timeout.ms", text("26000")),
            ("bootstrap.servers", text("other:9092")),
            ("metadata.broker.list", text("other:9092")),
            ("partitioner", text("random")),
            ("queuing.strategy", text("lifo")),
            ("queue.buffering.max.messages", Property::Integer(0)),
            ("delivery.report.only.error", Property::Bool(true)),
            ("security.protocol", text("plaintext")),
            ("sasl.password", text("x")),
            ("sasl.mechanism", text("PLAIN")),
            ("ssl.ca.location", text("/ca")),
            ("enable.ssl.certificate.verification", Property::Bool(false)),
            ("plugin.library.paths", text("x")),
            ("dr_msg_cb", text("x")),
            ("message.timeout.ms", Property::Reference(Secret::Env("X".into()))),
        ];
        for (name, property) in refused {
            let reason = checked(name, &property).expect_err(name);
            assert!(reason.starts_with("must") || reason.starts_with("is ") || reason.starts_with("would"), "{reason}");
        }
    }

    #[test]
    fn everything_else_that_librdkafka_knows_can_be_set() {
        let taken = [
            ("linger.ms", Property::Integer(20)),
            ("compression.type", text("lz4")),
            ("compression.codec", text("none")),
            ("max.in.flight", Property::Integer(5)),
            ("message.timeout.ms", Property::Integer(1_000)),
            ("partitioner", text("murmur2_random")),
            ("socket.keepalive.enable", Property::Bool(true)),
            ("ssl.key.password", Property::Reference(Secret::Env("X".into()))),
            ("ssl.endpoint.identification.algorithm", text("none")),
            ("client.id", text("gateway-7")),
            ("batch.size", text("65536")),
        ];
        for (name, property) in taken {
            assert_eq!(checked(name, &property), Ok(()), "{name}");
        }
    }

    #[test]
    fn what_librdkafka_does_not_know_is_refused_in_its_words() {
        assert_eq!(
            checked("linger.sm", &Property::Integer(5)),
            Err("No such configuration property: \"linger.sm\"".into())
        );
        assert!(checked("message.max.bytes", &Property::Integer(1)).unwrap_err().contains("1000"));
        assert!(checked("compression.type", &text("zip")).unwrap_err().contains("zip"));
    }
}
