//! What could not be put where it belongs: `warnings`, and the verbatim values under `extra`.
//!
//! A key of `extra` is the member's own name, as sent, where the value stood in the object that has the `extra`, else its path from
//! there (`SeatUser.Rank`, `IVRKeyPressedEx[0].Tone`). A path that happens to be a member's name as well gets apostrophes until it
//! is not, so that nothing is lost.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::json;

/// At most so many warnings are listed; the values are under `extra` all the same.
const WARNINGS_LISTED_MAX: usize = 100;

/// A field that could not be read as documented.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Warning {
    /// The sender's name of the field, as sent, with the path to it: `Direction`, `ServeParticipants[1].Sequence`.
    pub field: String,
    /// What is wrong with it, in words; never the value, which is under `extra`.
    pub problem: &'static str,
}

/// JSON that is kept as it was sent: a JSON object on one line, its values the sender's text without insignificant whitespace.
#[derive(Debug, Clone)]
pub struct Extra(Box<RawValue>);

impl Extra {
    pub(super) fn none() -> Self {
        ExtraParts::default().finish()
    }
}

impl Serialize for Extra {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl JsonSchema for Extra {
    fn schema_name() -> Cow<'static, str> {
        "Extra".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": true })
    }
}

/// Where a value stands in the body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    step: Step<'p>,
    /// Whether the object here has an `extra` of its own.
    holds_extra: bool,
}

#[derive(Debug, Clone, Copy)]
enum Step<'p> {
    Root,
    /// The key as sent: a string literal without its quotes.
    Member(&'p str),
    Element(usize),
}

impl<'p> Path<'p> {
    pub(super) const ROOT: Path<'static> = Path { parent: None, step: Step::Root, holds_extra: true };

    pub(super) fn member(&'p self, key: &'p str) -> Self {
        Path { parent: Some(self), step: Step::Member(json::unquoted(key)), holds_extra: false }
    }

    pub(super) fn element(&'p self, index: usize) -> Self {
        Path { parent: Some(self), step: Step::Element(index), holds_extra: false }
    }

    pub(super) fn holding_extra(self) -> Self {
        Path { holds_extra: true, ..self }
    }

    pub(super) fn holds_extra(&self) -> bool {
        self.holds_extra
    }

    /// The path in the literal's own escapes, from the whole body or from the nearest object above that has an `extra`.
    fn write(&self, out: &mut String, from_extra: bool) {
        let Some(parent) = self.parent else { return };
        if !(from_extra && parent.holds_extra) {
            parent.write(out, from_extra);
        }
        match self.step {
            Step::Root => {}
            Step::Member(key) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(key);
            }
            Step::Element(index) => {
                out.push('[');
                out.push_str(&index.to_string());
                out.push(']');
            }
        }
    }
}

/// The path from the whole body, decoded.
impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut path = String::new();
        self.write(&mut path, false);
        let literal = format!("\"{path}\"");
        f.write_str(&json::decode(&literal).unwrap_or(Cow::Borrowed(path.as_str())))
    }
}

/// The warnings of one event.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    listed: Vec<Warning>,
    total: usize,
}

impl Warnings {
    pub(super) fn push(&mut self, path: &Path<'_>, problem: &'static str) {
        self.total += 1;
        if self.total <= WARNINGS_LISTED_MAX {
            self.listed.push(Warning { field: path.to_string(), problem });
        }
    }

    pub(super) fn total(&self) -> usize {
        self.total
    }

    pub(super) fn take_listed(&mut self) -> Vec<Warning> {
        std::mem::take(&mut self.listed)
    }
}

/// An `extra` in the making.
#[derive(Debug, Default)]
pub(super) struct ExtraParts<'a> {
    /// Keys are string literals; values are JSON as sent.
    own: Vec<(&'a str, &'a str)>,
    paths: Vec<(String, &'a str)>,
}

impl<'a> ExtraParts<'a> {
    /// A member of the object that has this `extra`.
    pub(super) fn push_own(&mut self, key: &'a str, value: &'a str) {
        self.own.push((key, value));
    }

    /// A value further down.
    pub(super) fn push(&mut self, path: &Path<'_>, value: &'a str) {
        let mut key = String::from("\"");
        let mut relative = String::new();
        path.write(&mut relative, true);
        key.push_str(&relative);
        key.push('"');
        self.paths.push((key, value));
    }

    pub(super) fn finish(mut self) -> Extra {
        self.make_paths_unique();
        let size = self.own.iter().map(|(key, value)| key.len() + value.len() + 2).sum::<usize>();
        let mut text = String::with_capacity(size + 2);
        text.push('{');
        let paths = self.paths.iter().map(|(key, value)| (key.as_str(), *value));
        for (index, (key, value)) in self.own.iter().copied().chain(paths).enumerate() {
            if index > 0 {
                text.push(',');
            }
            text.push_str(key);
            text.push(':');
            json::compact(value, &mut text);
        }
        text.push('}');
        Extra(RawValue::from_string(text).expect("literals and values of checked JSON, in braces, are JSON"))
    }

    fn make_paths_unique(&mut self) {
        if self.paths.is_empty() {
            return;
        }
        let mut names: HashSet<Vec<u8>> = self.own.iter().map(|(key, _)| json::decode_name(key).into_owned()).collect();
        for (key, _) in &mut self.paths {
            while !names.insert(json::decode_name(key).into_owned()) {
                key.insert(key.len() - 1, '\'');
            }
        }
    }
}
