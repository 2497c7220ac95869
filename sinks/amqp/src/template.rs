//! Names of exchanges and routing keys made from an event: `tccc.{action}`.
//!
//! What an event puts in can be anything that a sender made up, so it is reduced to the characters that AMQP 0-9-1 allows in the
//! name of an exchange, and cut where the protocol's short strings end.

use sink_api::Event;
use sink_api::template::{self, Characters, NameField, TemplateError};

const CHARACTERS: Characters =
    Characters { allow: |c| c.is_ascii_alphanumeric() || "-_.:".contains(c), listed: "A-Z, a-z, 0-9, and - _ . :" };

/// Text with the fields `{action}` and `{source}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(template::Template<NameField>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error("is longer than {} characters", Template::LEN_MAX)]
    TooLong,
}

impl Template {
    /// Bytes of a name, AMQP 0-9-1 section 4.2.5.3.
    pub(crate) const LEN_MAX: usize = 255;

    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        if text.len() > Self::LEN_MAX {
            return Err(Wrong::TooLong);
        }
        Ok(Self(template::Template::parse(text, &NameField::ALL, CHARACTERS)?))
    }

    /// The name for `event`: ASCII, [`Template::LEN_MAX`] bytes at most.
    pub(crate) fn render(&self, event: &Event) -> String {
        self.0.name(event, CHARACTERS, '-', Self::LEN_MAX)
    }

    /// The name, where it is the same for all events.
    pub(crate) fn fixed(&self) -> Option<&str> {
        self.0.fixed()
    }
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
    fn fields_are_filled_in() {
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
        let wrong = |text: &str| Template::parse(text).unwrap_err();
        assert!(matches!(wrong("a{session}"), Wrong::Template(TemplateError::Field { .. })));
        assert!(matches!(wrong("a.#"), Wrong::Template(TemplateError::Character { found: '#', .. })));
        assert_eq!(wrong(&"a".repeat(256)), Wrong::TooLong);
    }
}
