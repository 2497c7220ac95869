//! Text with fields in braces, such as `tccc.{action}`: how a config says where each event goes.
//!
//! What an event puts in can be anything that a sender made up. So a template is read with the [`Characters`] that its destination
//! takes, and whoever renders it reduces values to them.

use crate::Event;

/// A template that was read; `F` says which fields there can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template<F>(Vec<Part<F>>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<F> {
    /// Never empty.
    Text(String),
    Field(F),
}

/// What the text of a template may hold beside its fields.
#[derive(Debug, Clone, Copy)]
pub struct Characters {
    pub allow: fn(char) -> bool,
    /// All of them, for the reader of an error.
    pub listed: &'static str,
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("has the unknown field {{{name}}}; known are {known}")]
    Field { name: String, known: String },
    #[error("has a brace without its other half")]
    Brace,
    #[error("has {found:?}; beside fields there can be {allowed}")]
    Character { found: char, allowed: &'static str },
}

impl<F: Copy + PartialEq> Template<F> {
    /// Reads `text` with `fields`, each by its name.
    pub fn parse(text: &str, fields: &[(&str, F)], characters: Characters) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (literal, behind) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
            match literal.chars().find(|c| !(characters.allow)(*c)) {
                Some('}') => return Err(TemplateError::Brace),
                Some(found) => return Err(TemplateError::Character { found, allowed: characters.listed }),
                None if literal.is_empty() => {}
                None => parts.push(Part::Text(literal.to_owned())),
            }
            let Some(inner) = behind.strip_prefix('{') else { break };
            let (name, behind) = inner.split_once('}').ok_or(TemplateError::Brace)?;
            let known = fields.iter().find(|(known, _)| *known == name);
            let (_, field) =
                known.ok_or_else(|| TemplateError::Field { name: name.to_owned(), known: listed(fields) })?;
            parts.push(Part::Field(*field));
            rest = behind;
        }
        Ok(Self(parts))
    }

    /// The text, with `value` in the place of each field.
    pub fn render(&self, value: impl Fn(F) -> String) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Field(field) => text.push_str(&value(*field)),
            }
        }
        text
    }

    pub fn has(&self, field: F) -> bool {
        self.0.contains(&Part::Field(field))
    }

    /// The text, where it has no fields.
    pub fn fixed(&self) -> Option<&str> {
        match &self.0[..] {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    pub fn parts(&self) -> &[Part<F>] {
        &self.0
    }
}

fn listed<F>(fields: &[(&str, F)]) -> String {
    let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
    match names.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => names.concat(),
    }
}

/// A field of a name that many events share, such as a topic's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameField {
    Action,
    Source,
}

impl NameField {
    pub const ALL: [(&str, Self); 2] = [("action", Self::Action), ("source", Self::Source)];
}

impl Template<NameField> {
    /// The name for `event`: what its values hold beside `characters` is replaced. Cut after `len_max` bytes, which is no place
    /// within a character where `characters` are ASCII.
    pub fn name(&self, event: &Event, characters: Characters, replacement: char, len_max: usize) -> String {
        let reduced =
            |value: &str| value.chars().map(|c| if (characters.allow)(c) { c } else { replacement }).collect();
        let mut name = self.render(|field| match field {
            NameField::Action => reduced(&event.action),
            NameField::Source => reduced(&event.pushsource),
        });
        name.truncate(name.floor_char_boundary(len_max));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHARACTERS: Characters =
        Characters { allow: |c| c.is_ascii_lowercase() || c == '.', listed: "a to z and '.'" };

    fn parse(text: &str) -> Result<Template<NameField>, TemplateError> {
        Template::parse(text, &NameField::ALL, CHARACTERS)
    }

    #[test]
    fn fields_are_replaced_and_text_stays() {
        let rendered = |text: &str| parse(text).unwrap().render(|field| format!("<{field:?}>"));
        assert_eq!(rendered("a.{action}{source}.b"), "a.<Action><Source>.b");
        assert_eq!(rendered("{source}"), "<Source>");
        assert_eq!((rendered("a.b"), rendered("")), ("a.b".to_owned(), String::new()));
    }

    #[test]
    fn it_is_known_what_a_template_holds() {
        let template = parse("a.{action}").unwrap();
        assert_eq!(template.parts(), [Part::Text("a.".to_owned()), Part::Field(NameField::Action)]);
        assert_eq!((template.has(NameField::Action), template.has(NameField::Source)), (true, false));
        assert_eq!(template.fixed(), None);
        assert_eq!(parse("a.b").unwrap().fixed(), Some("a.b"));
        assert_eq!(parse("").unwrap().fixed(), Some(""));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let said = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(said("a{session}"), "has the unknown field {session}; known are action and source");
        for text in ["a{action", "a}b", "{action}}", "{"] {
            assert_eq!(parse(text), Err(TemplateError::Brace), "{text}");
        }
        assert_eq!(said("a b"), "has ' '; beside fields there can be a to z and '.'");
        assert_eq!(
            parse("{action}\u{e9}"),
            Err(TemplateError::Character { found: '\u{e9}', allowed: "a to z and '.'" })
        );
    }
}
