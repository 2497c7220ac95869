//! The columns of Parquet files are those of the published schemas, and the README lists them.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;
use sink_object::object::columns::{ACTIONS, ATTRIBUTES, Kind, REST, columns};

use super::*;

fn schema_of(action: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../deploy/schemas/{action}.v1.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A definition in place of a reference, and what is not null in place of a choice with null.
fn resolved<'a>(node: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(name) = node["$ref"].as_str().and_then(|uri| uri.strip_prefix("#/$defs/")) {
        return resolved(&schema["$defs"][name], schema);
    }
    match node["anyOf"].as_array() {
        Some(choices) => resolved(choices.iter().find(|choice| choice["type"] != "null").unwrap(), schema),
        None => node,
    }
}

fn kind_of(node: &Value) -> Kind {
    let types = || node["type"].as_array().into_iter().flatten().chain([&node["type"]]).filter_map(Value::as_str);
    let is = |wanted: &str| types().any(|one| one == wanted);
    match () {
        () if is("array") || is("object") => Kind::Json,
        () if is("integer") => Kind::Integer,
        () if is("number") => Kind::Number,
        () if node["format"] == "date-time" => Kind::Time,
        // Strings, and enumerations of them.
        () => Kind::Text,
    }
}

fn expected_columns(node: &Value, schema: &Value, prefix: &str, into: &mut BTreeMap<String, Kind>) {
    for (name, field) in node["properties"].as_object().unwrap() {
        let field = resolved(field, schema);
        let column = format!("{prefix}{name}");
        if field["properties"].is_object() {
            expected_columns(field, schema, &format!("{column}_"), into);
        } else {
            into.insert(column, kind_of(field));
        }
    }
}

#[test]
fn columns_are_the_fields_of_the_published_schemas() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/schemas");
    let published = std::fs::read_dir(dir)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".v1.json"));
    assert_eq!(published.count(), ACTIONS.len(), "an action has a schema and no columns, or the other way round");
    for (action, columns) in ACTIONS {
        let schema = schema_of(action);
        let mut expected = BTreeMap::new();
        expected_columns(resolved(&schema["properties"]["data"], &schema), &schema, "", &mut expected);
        let found: BTreeMap<_, _> = columns.iter().map(|column| (column.name(), column.kind)).collect();
        assert_eq!(found, expected, "{action}");
        assert_eq!(found.len(), columns.len(), "{action} has a column twice");
        assert!(columns.is_sorted_by_key(|column| column.name()), "{action}");
        let attributes = schema["properties"].as_object().unwrap().keys().filter(|name| *name != "data");
        let mut attributes: Vec<_> = attributes.map(String::as_str).collect();
        let mut own: Vec<_> = ATTRIBUTES.iter().map(|(name, ..)| *name).collect();
        attributes.sort_unstable();
        own.sort_unstable();
        assert_eq!(own, attributes, "{action}");
        assert!(!own.iter().chain([&REST]).any(|name| found.contains_key(*name)), "{action}");
    }
}

#[test]
fn actions_are_found_without_case_and_unknown_ones_have_the_columns_of_other() {
    assert_eq!(columns("videoCdr"), columns("videocdr"));
    assert_eq!(columns("never heard of"), columns("other"));
    assert_ne!(columns("cdr"), columns("other"));
}

/// `UPDATE_README=1 cargo test -p sink-object the_readme_lists_the_columns` writes the list anew.
#[test]
fn the_readme_lists_the_columns() {
    const BEGIN: &str = "<!-- columns: written by a test -->\n";
    const END: &str = "<!-- end of columns -->\n";
    let mut list = String::from("| of | columns |\n|---|---|\n");
    let attributes: Vec<_> = ATTRIBUTES.iter().map(|(name, kind, _)| shown(name, *kind)).collect();
    writeln!(list, "| every event | {} |", attributes.join(", ")).unwrap();
    for (action, columns) in ACTIONS {
        let fields: Vec<_> = columns.iter().map(|column| shown(&column.name(), column.kind)).collect();
        writeln!(list, "| `{action}` | {} |", fields.join(", ")).unwrap();
    }
    writeln!(list, "| every event | {} |", shown(REST, Kind::Json)).unwrap();

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let updated = format!("{before}{BEGIN}{list}{END}{after}");
    if std::env::var_os("UPDATE_README").is_some() {
        std::fs::write(&path, &updated).unwrap();
    } else {
        assert!(
            readme == updated,
            "out of date: UPDATE_README=1 cargo test -p sink-object the_readme_lists_the_columns"
        );
    }
}

/// Text is not said, since most are.
fn shown(name: &str, kind: Kind) -> String {
    match kind {
        Kind::Text => format!("`{name}`"),
        kind => format!("`{name}` {}", kind.word()),
    }
}
