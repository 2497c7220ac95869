//! The published AsyncAPI 3 document: which channels the events of each action come through, with which keys and headers, in Kafka and
//! in AMQP 0-9-1. It refers to the published schemas for what is inside.
//!
//! Names are those of the sinks' defaults: topic and routing key `tccc.<action>`.

use serde_json::{Map, Value, json};

use super::schema::{OTHER, schema, schemas};

/// What stands before an attribute's name in a header: CloudEvents' bindings for Kafka, section 3.2.3, and for AMQP, section 3.1.3.
const KAFKA_PREFIX: &str = "ce_";
const AMQP_PREFIX: &str = "cloudEvents:";

const KAFKA_BINDING: &str = "0.5.0";
const AMQP_BINDING: &str = "0.3.0";

const STRUCTURED: &str = "application/cloudevents+json";

/// The AsyncAPI 3.0 document of everything that the `kafka` and `amqp` sinks send by default.
pub fn asyncapi() -> Value {
    let (mut channels, mut operations, mut messages) = (Map::new(), Map::new(), Map::new());
    for (action, version) in schemas() {
        let file = format!("{action}.v{version}.json").to_ascii_lowercase();
        let event = schema(action).unwrap_or_default();
        let mut names = Vec::new();
        for (kind, message) in messages_of(action, &file, &event) {
            names.push(format!("{action}-{kind}"));
            messages.insert(format!("{action}-{kind}"), message);
        }
        channels.insert(action.to_owned(), channel(action, &names));
        operations.insert(format!("send-{action}"), operation(action));
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Trunkline's events",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0" },
            "description": "What the sinks `kafka` and `amqp` send: CloudEvents 1.0, at least once, always under the same id. \
                De-duplicate by it. Events with the same `partitionkey` come in order; a repeated one may come late.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": { "host": "kafka.example.com:9092", "protocol": "kafka", "description": "`brokers` of a sink `kafka`." },
            "rabbitmq": { "host": "rabbitmq.example.com:5672", "protocol": "amqp", "protocolVersion": "0.9.1",
                "description": "`url` of a sink `amqp`." },
        },
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages },
    })
}

/// `unknown` actions have one channel for all, whose address holds the action.
fn channel(action: &str, messages: &[String]) -> Value {
    let name = if action == OTHER { "{action}" } else { action };
    let messages: Map<String, Value> = messages
        .iter()
        .map(|name| (name.clone(), json!({ "$ref": format!("#/components/messages/{name}") })))
        .collect();
    let mut channel = json!({
        "address": format!("tccc.{name}"),
        "description": format!("Topic of a sink `kafka`, routing key of a sink `amqp`, as far as their settings name no other. {}",
            if action == OTHER { "Actions that nobody has documented.".to_owned() } else { format!("The action {action}.") }),
        "messages": messages,
        "bindings": {
            "kafka": { "bindingVersion": KAFKA_BINDING },
            "amqp": { "is": "routingKey", "exchange": { "name": "calls", "type": "topic", "durable": true },
                "bindingVersion": AMQP_BINDING },
        },
    });
    if action == OTHER {
        channel["parameters"] = json!({ "action": {
            "description": "The action; what cannot stand in such a name is replaced." } });
    }
    channel
}

fn operation(action: &str) -> Value {
    json!({
        "action": "send",
        "channel": { "$ref": format!("#/channels/{action}") },
        "bindings": { "amqp": { "deliveryMode": 2, "mandatory": true, "timestamp": true, "bindingVersion": AMQP_BINDING } },
    })
}

/// What a message looks like in each mode; `event` is the schema that lies in `file`.
fn messages_of(action: &str, file: &str, event: &Value) -> Vec<(&'static str, Value)> {
    let data = json!({ "$ref": format!("./{file}#/properties/data") });
    let whole = json!({ "$ref": format!("./{file}") });
    let binary = |transport: &str, headers: Value| {
        let summary =
            format!("The event of {action} in {transport}, binary mode: attributes in headers, `data` as the body.");
        message(&summary, "application/json", headers, &data, event)
    };
    let summary = format!("The event of {action} in structured mode, alike in both transports.");
    vec![
        ("kafka-binary", binary("Kafka", headers(event, KAFKA_PREFIX, Some("content-type")))),
        ("amqp-binary", binary("AMQP", headers(event, AMQP_PREFIX, None))),
        ("structured", message(&summary, STRUCTURED, json!({ "type": "object" }), &whole, event)),
    ]
}

fn message(summary: &str, content_type: &str, headers: Value, payload: &Value, event: &Value) -> Value {
    let key = event["properties"]["partitionkey"].clone();
    json!({
        "summary": summary,
        "contentType": content_type,
        "headers": headers,
        "payload": { "schemaFormat": "application/schema+json;version=draft-2020-12", "schema": payload },
        "bindings": {
            "kafka": { "key": key, "bindingVersion": KAFKA_BINDING },
            "amqp": { "messageType": "the event's `type`; `message_id` is its `id`", "bindingVersion": AMQP_BINDING },
        },
    })
}

/// The attributes as headers. Kafka has no other place for the content type.
fn headers(event: &Value, prefix: &str, content_type: Option<&str>) -> Value {
    let is_header = |name: &str| name != "data" && name != "datacontenttype";
    let attributes = event["properties"].as_object().into_iter().flatten().filter(|(name, _)| is_header(name));
    let mut properties: Map<String, Value> =
        attributes.map(|(name, schema)| (format!("{prefix}{name}"), schema.clone())).collect();
    let names = event["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut required: Vec<String> =
        names.filter(|name| is_header(name)).map(|name| format!("{prefix}{name}")).collect();
    if let Some(name) = content_type {
        properties.insert(name.to_owned(), json!({ "const": "application/json" }));
        required.push(name.to_owned());
    }
    json!({ "type": "object", "properties": properties, "required": required })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn file(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
    }

    fn read(path: &str) -> Value {
        serde_json::from_str(&std::fs::read_to_string(file(path)).unwrap()).unwrap()
    }

    /// `UPDATE_SCHEMAS=1 cargo test the_published_document_is_the_generated_one` writes it anew.
    #[test]
    fn the_published_document_is_the_generated_one() {
        let path = file("deploy/schemas/asyncapi.json");
        let generated = format!("{:#}\n", asyncapi());
        if std::env::var_os("UPDATE_SCHEMAS").is_some() {
            std::fs::write(&path, &generated).unwrap();
        }
        let published = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            published == generated,
            "{} is out of date: UPDATE_SCHEMAS=1 cargo test the_published_document_is_the_generated_one",
            path.display()
        );
    }

    #[test]
    fn the_document_is_valid_asyncapi_3() {
        let validator = jsonschema::validator_for(&read("tests/schemas/asyncapi-3.0.0.json")).unwrap();
        let faults = |document: &Value| -> Vec<String> {
            validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path)).collect()
        };
        assert_eq!(faults(&asyncapi()), Vec::<String>::new());
        let mut wrong = asyncapi();
        wrong["operations"]["send-cdr"]["action"] = "publish".into();
        wrong["channels"]["cdr"]["bindings"]["amqp"]["is"] = "topic".into();
        assert!(!faults(&wrong).is_empty(), "the schema of AsyncAPI judges nothing");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(members) => {
                    found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    members.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let document = asyncapi();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 40, "{found:?}");
        for reference in found {
            let (name, pointer) = reference.split_once('#').unwrap_or((&reference, ""));
            let target = match name {
                "" => document.clone(),
                name => read(&format!("deploy/schemas/{}", name.trim_start_matches("./"))),
            };
            assert!(target.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn headers_are_the_attributes_of_an_event() {
        let event = sink_api::conformance::event("p-1", "s-1");
        for (message, prefix) in [("cdr-kafka-binary", KAFKA_PREFIX), ("cdr-amqp-binary", AMQP_PREFIX)] {
            let headers = asyncapi()["components"]["messages"][message]["headers"].clone();
            for (name, _) in event.attributes() {
                let known = headers["properties"].get(format!("{prefix}{name}")).is_some();
                assert_eq!(known, name != "datacontenttype", "{name}");
            }
            assert_eq!(headers["properties"][format!("{prefix}id")]["type"], "string");
        }
    }
}
