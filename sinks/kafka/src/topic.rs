//! Topic names made of a template, such as `tccc.{action}`.

use std::fmt;

use sink_api::Event;

/// Kafka takes no longer names.
const LENGTH_MAX: usize = 249;

/// A topic's name with places for the event's action and source.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Action,
    Source,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, after) = behind.split_once('}').ok_or("holds a { without }")?;
            push_text(&mut parts, before)?;
            parts.push(match name {
                "action" => Part::Action,
                "source" => Part::Source,
                other => return Err(format!("{{{other}}} is not known; there are {{action}} and {{source}}")),
            });
            rest = after;
        }
        push_text(&mut parts, rest)?;
        let fixed = Self(parts);
        match fixed.alone() {
            _ if fixed.0.is_empty() => Err("is empty".to_owned()),
            Some("." | "..") => Err(format!("{text:?} cannot be a topic")),
            _ if text.len() > LENGTH_MAX => Err(format!("is longer than {LENGTH_MAX} characters")),
            _ => Ok(fixed),
        }
    }

    /// The topic of `event`.
    pub(crate) fn render(&self, event: &Event) -> String {
        let mut name = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Action => name.extend(event.action.chars().map(safe)),
                Part::Source => name.extend(event.pushsource.chars().map(safe)),
            }
        }
        name.truncate(LENGTH_MAX);
        name
    }

    /// The name, where it is the same for all events.
    pub(crate) fn alone(&self) -> Option<&str> {
        match &self.0[..] {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether some event could have this topic. Kafka's own topics are nobody's.
    pub(crate) fn could_be(&self, topic: &str) -> bool {
        !topic.starts_with("__") && matches(&self.0, topic)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Action => f.write_str("{action}"),
            Part::Source => f.write_str("{source}"),
        })
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) -> Result<(), String> {
    if let Some(other) = text.chars().find(|c| safe(*c) != *c) {
        return Err(format!("holds {other:?}; a topic has only A-Z, a-z, 0-9, . _ and -"));
    }
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
    Ok(())
}

fn safe(c: char) -> char {
    if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' }
}

/// The first part takes as little as lets the others match; there are two places at most that differ.
fn matches(parts: &[Part], topic: &str) -> bool {
    match parts {
        [] => topic.is_empty(),
        [Part::Text(text), rest @ ..] => topic.strip_prefix(text.as_str()).is_some_and(|topic| matches(rest, topic)),
        [Part::Action | Part::Source] => !topic.is_empty(),
        [Part::Action | Part::Source, rest @ ..] => (1..topic.len()).any(|end| matches(rest, &topic[end..])),
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
