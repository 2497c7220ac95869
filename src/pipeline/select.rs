//! Which pushes a sink gets. Pure.

use crate::config::model;
use crate::journal::Push;
use crate::names::SourceName;

/// A sink's choice by action and source; an absent part takes all.
#[derive(Debug, Clone)]
pub struct Selector {
    actions: Option<Vec<String>>,
    sources: Option<Vec<SourceName>>,
}

impl Selector {
    pub fn new(settings: &model::Sink) -> Self {
        Self { actions: settings.actions.clone(), sources: settings.sources.clone() }
    }

    /// Actions are compared without case, as the sender is not consistent in it.
    pub fn takes(&self, push: &Push) -> bool {
        self.actions
            .as_ref()
            .is_none_or(|actions| actions.iter().any(|action| action.eq_ignore_ascii_case(&push.action)))
            && self.sources.as_ref().is_none_or(|sources| sources.contains(&push.source))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::push;
    use super::*;

    #[test]
    fn actions_are_compared_without_case_and_sources_exactly() {
        let selector = Selector { actions: Some(vec!["VideoCDR".into()]), sources: Some(vec!["main".into()]) };
        let mut candidate = push("p", Some("s"));
        candidate.action = "videoCdr".into();
        assert!(selector.takes(&candidate));
        candidate.action = "cdr".into();
        assert!(!selector.takes(&candidate));
        candidate.action = "videoCdr".into();
        candidate.source = "Main".into();
        assert!(!selector.takes(&candidate));
    }

    #[test]
    fn an_absent_choice_takes_all() {
        assert!(Selector { actions: None, sources: None }.takes(&push("p", None)));
    }
}
