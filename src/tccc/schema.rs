//! The published JSON Schemas (draft 2020-12): one for the whole event of each action, and `other` for actions that are not known.
//!
//! `$id` is `urn:trunkline:schema:<action>:v1`; an event's `dataschema` is that with `#/properties/data`.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value, json};

use super::{Cdr, Chat, KNOWN_ACTIONS, Other, Recording, RecordingArchived, Video, known_action};

/// The schema of actions that are not known.
pub(super) const OTHER: &str = "other";

const VERSION: u32 = 1;

/// The actions that have a schema, and its version.
pub fn schemas() -> Vec<(&'static str, u32)> {
    KNOWN_ACTIONS.into_iter().chain([OTHER]).map(|action| (action, VERSION)).collect()
}

/// The JSON Schema of the whole event of `action` (compared without case; `other` for actions that are not known).
pub fn schema(action: &str) -> Option<Value> {
    let action = known_action(action).or_else(|| action.eq_ignore_ascii_case(OTHER).then_some(OTHER))?;
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let data = match action {
        "cdr" => data_schema::<Cdr<'static>>(&mut generator),
        "imcdr" => data_schema::<Chat<'static>>(&mut generator),
        "videoCdr" => data_schema::<Video<'static>>(&mut generator),
        "recording.archived" => data_schema::<RecordingArchived<'static>>(&mut generator),
        OTHER => data_schema::<Other<'static>>(&mut generator),
        _ => data_schema::<Recording<'static>>(&mut generator),
    };
    Some(event_schema(action, data, generator.take_definitions(true)))
}

/// The `dataschema` of an event.
pub(super) fn data_uri(action: &str) -> String {
    format!("{}#/properties/data", id(action))
}

fn id(action: &str) -> String {
    format!("urn:trunkline:schema:{}:v{VERSION}", action.to_ascii_lowercase())
}

fn data_schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

fn event_schema(action: &str, data: Value, definitions: serde_json::Map<String, Value>) -> Value {
    let kind = match action {
        OTHER => "^com\\.tencent\\.ccc\\.[a-z0-9._-]+\\.v[a-z0-9]+$".to_owned(),
        _ => format!("^com\\.tencent\\.ccc\\.{}\\.v[a-z0-9]+$", action.to_ascii_lowercase().replace('.', "\\.")),
    };
    let text = |description: &str| json!({ "type": "string", "minLength": 1, "description": description });
    let time = |description: &str| json!({ "type": "string", "format": "date-time", "description": description });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": id(action),
        "title": format!("The event of the action {action}"),
        "description": "A CloudEvents 1.0 event in structured mode.",
        "type": "object",
        "properties": {
            "specversion": { "const": "1.0" },
            "id": text("The push id: the same on every delivery of the same push."),
            "source": { "type": "string", "format": "uri-reference", "minLength": 1,
                "description": "`/tccc/<SdkAppId>`, or `/tccc` where the push names none." },
            "type": { "type": "string", "pattern": kind, "description": "The action and its version." },
            "subject": text("The session id, where there is one."),
            "time": time("When it happened: the end of a session, the time of a recording; else when it was received."),
            "datacontenttype": { "const": "application/json" },
            "dataschema": { "const": data_uri(action) },
            "recordedtime": time("When the gateway received the push."),
            "partitionkey": text("The session id, else the push id: events with the same key keep their order."),
            "pushsource": text("The configured source that the push came to."),
            "traceparent": text("The W3C trace context that came with the push."),
            "data": data,
        },
        "required": ["specversion", "id", "source", "type", "time", "datacontenttype", "dataschema", "recordedtime",
            "partitionkey", "pushsource", "data"],
        "$defs": definitions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UPDATE_SCHEMAS=1 cargo test the_published_schemas_are_those_of_the_types` writes them anew.
    #[test]
    fn the_published_schemas_are_those_of_the_types() {
        for (action, version) in schemas() {
            let file = format!("{action}.v{version}.json").to_ascii_lowercase();
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/schemas").join(file);
            let generated = format!("{:#}\n", schema(action).unwrap());
            if std::env::var_os("UPDATE_SCHEMAS").is_some() {
                std::fs::write(&path, &generated).unwrap();
            }
            let published = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                published == generated,
                "{} is out of date: UPDATE_SCHEMAS=1 cargo test the_published_schemas_are_those_of_the_types",
                path.display()
            );
        }
    }
}
