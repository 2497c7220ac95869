//! Which pushes a sink gets: by action and source, then, of these, by `when`. Pure.
//!
//! Judged when a page is read, before an entry is in hand: what is not for the sink never takes a place in its window or a batch,
//! and what cannot be judged becomes a dead letter in its session's order. With `when` a push is normalised for it and again for its
//! delivery, so that nothing but its bytes is kept in between.

use std::fmt;

use sink_api::Fault;

use crate::config::model;
use crate::event::{When, when};
use crate::journal::{Entry, Item, Page, Push};
use crate::names::{Offset, SourceName};
use crate::tccc;

/// After as many events judged by `when` the loop looks at what else has come.
const JUDGED_AT_A_STRETCH: usize = 32;

/// A sink's choice; an absent part takes all.
#[derive(Debug)]
pub struct Selector {
    actions: Option<Vec<String>>,
    sources: Option<Vec<SourceName>>,
    when: Option<When>,
}

/// What becomes of a push at a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    Taken,
    Passed(Passed),
    /// `when` cannot be decided.
    Failed(Fault),
}

/// By which part of its choice a sink does not get a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    Actions,
    Sources,
    When,
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Actions => "`actions` does not name its action",
            Self::Sources => "`sources` does not name its source",
            Self::When => "`when` is false for it",
        })
    }
}

impl Selector {
    /// # Errors
    /// `when` is no expression that can be used.
    pub fn new(settings: &model::Sink) -> Result<Self, when::Error> {
        Ok(Self {
            actions: settings.actions.clone(),
            sources: settings.sources.clone(),
            when: settings.when.as_deref().map(When::compile).transpose()?,
        })
    }

    /// Actions are compared without case, as the sender is not consistent in it.
    pub fn choose(&self, push: &Push) -> Choice {
        let is_action = |action: &String| action.eq_ignore_ascii_case(&push.action);
        if self.actions.as_ref().is_some_and(|actions| !actions.iter().any(is_action)) {
            return Choice::Passed(Passed::Actions);
        }
        if self.sources.as_ref().is_some_and(|sources| !sources.contains(&push.source)) {
            return Choice::Passed(Passed::Sources);
        }
        match self.when.as_ref().map(|when| when.judge(&tccc::normalise(push).event)) {
            None | Some(Ok(true)) => Choice::Taken,
            Some(Ok(false)) => Choice::Passed(Passed::When),
            Some(Err(fault)) => Choice::Failed(fault),
        }
    }

    /// Sorts a page as it was read. Lets others run in between where that takes long.
    pub(super) async fn sort(&self, page: Page) -> Sorted {
        let mut fates = Vec::with_capacity(page.items.len());
        for (index, item) in page.items.into_iter().enumerate() {
            if self.when.is_some() && index % JUDGED_AT_A_STRETCH == JUDGED_AT_A_STRETCH - 1 {
                tokio::task::yield_now().await;
            }
            fates.push(match item {
                Item::Corrupt { entry, detail } => Fate::Doomed(entry, Fault::new("corrupt", detail)),
                Item::Entry(entry) => match self.choose(&entry.push) {
                    Choice::Taken => Fate::Taken(entry),
                    Choice::Passed(_) => Fate::Passed(entry.offset),
                    Choice::Failed(fault) => Fate::Doomed(entry, fault),
                },
            });
        }
        Sorted { fates, end: page.end }
    }
}

/// A page of the journal after selection.
#[derive(Debug)]
pub(super) struct Sorted {
    /// By rising offset.
    pub(super) fates: Vec<Fate>,
    /// Everything up to here has been read.
    pub(super) end: Offset,
}

/// What becomes of an entry that was read.
#[derive(Debug)]
pub(super) enum Fate {
    Taken(Entry),
    Passed(Offset),
    /// A dead letter without a try.
    Doomed(Entry, Fault),
}

#[cfg(test)]
mod tests {
    use super::super::tests::push;
    use super::*;

    fn selector(toml: &str) -> Selector {
        Selector::new(&toml::from_str(&format!("type = \"x\"\n{toml}")).unwrap()).unwrap()
    }

    #[test]
    fn actions_are_compared_without_case_and_sources_exactly() {
        let selector = selector("actions = [\"VideoCDR\"]\nsources = [\"main\"]");
        let mut candidate = push("p", Some("s"));
        candidate.action = "videoCdr".into();
        assert_eq!(selector.choose(&candidate), Choice::Taken);
        candidate.action = "cdr".into();
        assert_eq!(selector.choose(&candidate), Choice::Passed(Passed::Actions));
        candidate.action = "videoCdr".into();
        candidate.source = "Main".into();
        assert_eq!(selector.choose(&candidate), Choice::Passed(Passed::Sources));
    }

    #[test]
    fn an_absent_choice_takes_all() {
        assert_eq!(selector("").choose(&push("p", None)), Choice::Taken);
    }

    #[test]
    fn when_is_asked_only_about_what_the_rest_takes() {
        let selector = selector("actions = [\"cdr\"]\nwhen = \"data.nothing\"");
        let candidate = push("p", None);
        assert!(matches!(selector.choose(&candidate), Choice::Failed(fault) if fault.code == "when"));
        assert_eq!(selector.choose(&Push { action: "record".into(), ..candidate }), Choice::Passed(Passed::Actions));
    }
}
