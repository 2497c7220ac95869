//! Names of exchanges and routing keys made from an event: `tccc.{action}`.
//!
//! What an event puts in can be anything that a sender made up, so it is reduced to the characters that AMQP 0-9-1 allows in the
//! name of an exchange, and cut where the protocol's short strings end.

use sink_api::Event;

/// Text with the placeholders `{action}` and `{source}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Action,
    Source,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
    #[error("{{{0}}} is not a placeholder; there are {{action}} and {{source}}")]
    Placeholder(String),
    #[error("has a brace without its other half")]
    Brace,
    #[error("holds {0:?}; allowed are A-Z, a-z, 0-9, and - _ . :")]
    Character(char),
    #[error("is longer than 255 characters")]
    Long,
}

impl Template {
    /// Bytes of a name, AMQP 0-9-1 section 4.2.5.3.
    pub(crate) const LEN_MAX: usize = 255;

    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        if text.len() > Self::LEN_MAX {
            return Err(Wrong::Long);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (literal, after) = rest.split_once('{').map_or((rest, None), |(literal, after)| (literal, Some(after)));
            if let Some(wrong) = literal.chars().find(|c| !is_safe(*c)) {
                return Err(if wrong == '}' { Wrong::Brace } else { Wrong::Character(wrong) });
            }
            if !literal.is_empty() {
                parts.push(Part::Text(literal.to_owned()));
            }
            let Some(after) = after else { break };
            let (name, after) = after.split_once('}').ok_or(Wrong::Brace)?;
            parts.push(match name {
                "action" => Part::Action,
                "source" => Part::Source,
                _ => return Err(Wrong::Placeholder(name.to_owned())),
            });
            rest = after;
        }
        Ok(Self(parts))
    }

    /// The name for `event`: ASCII, [`Template::LEN_MAX`] bytes at most.
    pub(crate) fn render(&self, event: &Event) -> String {
        let mut name = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Action => name.extend(event.action.chars().map(safe)),
                Part::Source => name.extend(event.pushsource.chars().map(safe)),
            }
        }
        name.truncate(Self::LEN_MAX);
        name
    }

    /// The name, where it is the same for all events.
    pub(crate) fn fixed(&self) -> Option<&str> {
        match &self.0[..] {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }
}

fn is_safe(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':')
}

fn safe(c: char) -> char {
    if is_safe(c) { c } else { '-' }
}

#[cfg(test)]
mod tests {
    use sink_api::conformance::event;

    use super::*;

    fn rendered(template: &str, action: &str) -> String {
        let event = Event { action: action.to_owned(), ..event("p-1", "s-1") };
        Template::parse(template).unwrap().render(&event)
    }

    #[test]
    fn placeholders_are_filled_in() {
        assert_eq!(rendered("tccc.{action}", "videoCdr"), "tccc.videoCdr");
        assert_eq!(rendered("{source}:{action}-x", "recording.archived"), "main:recording.archived-x");
        assert_eq!(rendered("", "cdr"), "");
    }

    #[test]
    fn what_a_sender_made_up_is_reduced_to_safe_characters_and_cut() {
        assert_eq!(rendered("tccc.{action}", "a b/#*\u{e9}\n"), "tccc.a-b-----");
        assert_eq!(rendered("tccc.{action}", &"x".repeat(400)).len(), 255);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let wrong = |text| Template::parse(text).unwrap_err();
        assert_eq!(wrong("a{session}"), Wrong::Placeholder("session".into()));
        assert_eq!(wrong("a{action"), Wrong::Brace);
        assert_eq!(wrong("a}b"), Wrong::Brace);
        assert_eq!(wrong("a b"), Wrong::Character(' '));
        assert_eq!(wrong("a.#"), Wrong::Character('#'));
        assert_eq!(wrong(&"a".repeat(256)), Wrong::Long);
    }

    #[test]
    fn a_name_without_placeholders_is_fixed() {
        assert_eq!(Template::parse("a.b").unwrap().fixed(), Some("a.b"));
        assert_eq!(Template::parse("").unwrap().fixed(), Some(""));
        assert_eq!(Template::parse("a.{action}").unwrap().fixed(), None);
    }
}
