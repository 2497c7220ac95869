//! Topic names made of a template, such as `tccc.{action}`.

use sink_api::Event;
use sink_api::template::{self, Characters, NameField, Part, TemplateError};

/// Kafka takes no longer names.
const LENGTH_MAX: usize = 249;

const CHARACTERS: Characters =
    Characters { allow: |c| c.is_ascii_alphanumeric() || "._-".contains(c), listed: "A-Z, a-z, 0-9, . _ and -" };

/// A topic's name with places for the event's action and source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(template::Template<NameField>);

/// Why a text names no topics.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error("is empty, or dots alone")]
    NoName,
    #[error("is longer than {LENGTH_MAX} characters")]
    TooLong,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        let template = template::Template::parse(text, &NameField::ALL, CHARACTERS)?;
        match text {
            "" | "." | ".." => Err(Wrong::NoName),
            _ if text.len() > LENGTH_MAX => Err(Wrong::TooLong),
            _ => Ok(Self(template)),
        }
    }

    /// The topic of `event`.
    pub(crate) fn render(&self, event: &Event) -> String {
        self.0.name(event, CHARACTERS, '_', LENGTH_MAX)
    }

    /// The name, where it is the same for all events.
    pub(crate) fn fixed(&self) -> Option<&str> {
        self.0.fixed()
    }

    /// Whether some event could have this topic. Kafka's own topics are nobody's.
    pub(crate) fn could_be(&self, topic: &str) -> bool {
        !topic.starts_with("__") && matches(self.0.parts(), topic)
    }
}

/// The first part takes as little as lets the others match; there are two places at most that differ.
fn matches(parts: &[Part<NameField>], topic: &str) -> bool {
    match parts {
        [] => topic.is_empty(),
        [Part::Text(text), rest @ ..] => topic.strip_prefix(text.as_str()).is_some_and(|topic| matches(rest, topic)),
        [Part::Field(_)] => !topic.is_empty(),
        [Part::Field(_), rest @ ..] => (1..topic.len()).any(|end| matches(rest, &topic[end..])),
    }
}

#[cfg(test)]
mod tests {
    use sink_api::conformance::event;

    use super::*;

    #[test]
    fn a_topic_is_made_of_action_and_source() {
        let mut event = event("id", "s");
        let render = |template: &str, event: &Event| Template::parse(template).unwrap().render(event);
        assert_eq!(render("tccc.{action}", &event), "tccc.cdr");
        assert_eq!(render("{source}-{action}_x", &event), "main-cdr_x");
        assert_eq!(render("all", &event), "all");
        event.action = "a/b \u{e9}\0{source}".to_owned();
        assert_eq!(render("t.{action}", &event), "t.a_b____source_");
        event.action = "x".repeat(1000);
        assert_eq!(render("t.{action}", &event).len(), LENGTH_MAX);
    }

    #[test]
    fn what_cannot_be_a_topic_is_refused() {
        for template in ["", ".", "..", "a b", "t{", "t}", "{day}", "t\u{e9}", "a/b", &"x".repeat(250)] {
            assert!(Template::parse(template).is_err(), "{template}");
        }
    }

    #[test]
    fn topics_that_may_be_ours_are_recognised() {
        let could_be = |template: &str, topic: &str| Template::parse(template).unwrap().could_be(topic);
        assert!(could_be("tccc.{action}", "tccc.cdr"));
        assert!(could_be("{source}.{action}.v1", "a.b.c.v1"));
        assert!(could_be("all", "all"));
        for (template, topic) in [
            ("tccc.{action}", "tccc."),
            ("tccc.{action}", "other.cdr"),
            ("all", "all2"),
            ("{action}", "__consumer_offsets"),
            ("{source}.{action}.v1", "a.v1"),
        ] {
            assert!(!could_be(template, topic), "{template} {topic}");
        }
    }
}
