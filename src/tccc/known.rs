//! Which fields `data` has, of whatever action, and what the sender calls them; read from the published schemas.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::schema::{schema, schemas};

/// In the description of a field, what follows are the sender's names of it.
const SENDER_NAMES: &str = "Vendor:";

/// The fields of `data` by path (`agent.email`, `participants[].email`), each with the sender's names of it, where it has any of its
/// own. Takes milliseconds.
pub fn known_fields() -> BTreeMap<String, BTreeSet<String>> {
    let mut fields = BTreeMap::new();
    for (action, _) in schemas() {
        let schema = schema(action).expect("every listed action has a schema");
        visit(&schema["properties"]["data"], &schema["$defs"], "", &mut fields);
    }
    fields
}

fn visit(node: &Value, definitions: &Value, path: &str, fields: &mut BTreeMap<String, BTreeSet<String>>) {
    let definition = node["$ref"].as_str().and_then(|uri| uri.strip_prefix("#/$defs/"));
    if let Some(name) = definition {
        visit(&definitions[name], definitions, path, fields);
    }
    for choice in node["anyOf"].as_array().into_iter().flatten() {
        visit(choice, definitions, path, fields);
    }
    if node["items"].is_object() {
        let path = format!("{path}[]");
        fields.entry(path.clone()).or_default();
        visit(&node["items"], definitions, &path, fields);
    }
    for (name, field) in node["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        fields.entry(path.clone()).or_default().extend(sender_names(field));
        visit(field, definitions, &path, fields);
    }
}

fn sender_names(field: &Value) -> impl Iterator<Item = String> {
    let description = field["description"].as_str().unwrap_or_default();
    let names = description.split_once(SENDER_NAMES).map_or("", |(_, names)| names);
    names.split('`').skip(1).step_by(2).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_known_by_path_with_the_senders_names() {
        let fields = known_fields();
        for (path, names) in [
            ("caller", &["Caller"][..]),
            ("agent", &["SeatUser"]),
            ("agent.skill_groups[]", &[]),
            ("participants[].email", &["Mail"]),
            ("participants[].extra", &[]),
            ("queue", &["QueuedSkillGroupId", "QueuedSkillGroupName"]),
            ("ivr_keys", &["IVRKeyPressed", "IVRKeyPressedEx"]),
            ("user_nickname", &["UserNickName"]),
            ("url", &["RecordURL"]),
        ] {
            let found: Vec<_> = fields.get(path).unwrap_or_else(|| panic!("{path}")).iter().collect();
            assert_eq!(found, names, "{path}");
        }
        assert!(!fields.contains_key("participants.email"));
    }

    #[test]
    fn every_field_of_a_record_has_a_name_of_the_senders() {
        let ours = [
            "extra",
            "warnings",
            "bucket",
            "key",
            "length_bytes",
            "duration_seconds",
            "sha256",
            "content_type",
            "event_id",
        ];
        let bare = known_fields()
            .into_iter()
            .filter(|(path, names)| names.is_empty() && !path.contains(['.', '[']) && !ours.contains(&path.as_str()));
        assert_eq!(bare.map(|(path, _)| path).collect::<Vec<_>>(), [] as [String; 0]);
    }
}
