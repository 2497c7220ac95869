//! Where below `data` a mask applies: `caller`, `agent.email`, `participants[].email`, `extra.CustomerName`.

use std::fmt;
use std::str::FromStr;

/// Masking recurses as deep as a path has steps.
const STEPS_MAX: usize = 16;

/// What the sender sent and nobody documented.
pub(super) const EXTRA: &str = "extra";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Member(String),
    /// Every element of an array.
    Elements,
}

/// A path below `data`: names joined by dots, `[]` behind the name of an array for each of its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskPath(pub(super) Vec<Step>);

/// The text is not a path below `data`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("is not a path")]
    Malformed,
    #[error("has more than {STEPS_MAX} steps")]
    TooLong,
    #[error("begins with `data`, below which paths are")]
    InData,
}

impl MaskPath {
    /// Whether what stands at `self` is, or holds, what stands at `other`.
    pub fn holds(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }

    /// The part of the path down to the first `extra`; `None` where it leads through none.
    pub fn to_extra(&self) -> Option<Self> {
        let at = self.0.iter().position(|step| *step == Step::Member(EXTRA.to_owned()))?;
        Some(Self(self.0[..=at].to_vec()))
    }
}

impl FromStr for MaskPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let mut steps = Vec::new();
        for part in text.split('.') {
            let name = part.trim_end_matches("[]");
            if name.is_empty() || name.contains(['[', ']']) {
                return Err(PathError::Malformed);
            }
            steps.push(Step::Member(name.to_owned()));
            steps.extend((0..(part.len() - name.len()) / 2).map(|_| Step::Elements));
        }
        match &steps[..] {
            _ if steps.len() > STEPS_MAX => Err(PathError::TooLong),
            [Step::Member(first), ..] if first == "data" => Err(PathError::InData),
            _ => Ok(Self(steps)),
        }
    }
}

impl fmt::Display for MaskPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&spell(&self.0))
    }
}

pub(super) fn spell(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        match step {
            Step::Elements => text.push_str("[]"),
            Step::Member(name) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> MaskPath {
        text.parse().unwrap()
    }

    #[test]
    fn a_path_is_shown_as_it_is_written() {
        for text in
            ["caller", "agent.email", "participants[].skill_group.id", "agent.skill_groups[]", "extra.a b[][].c"]
        {
            assert_eq!(path(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in ["", ".", "a..b", "[]", "a[0]", "a[].", "a]["] {
            assert_eq!(text.parse::<MaskPath>(), Err(PathError::Malformed), "{text}");
        }
        assert_eq!("data.caller".parse::<MaskPath>(), Err(PathError::InData));
        assert_eq!("a.".repeat(16).trim_end_matches('.').parse::<MaskPath>().map(|path| path.0.len()), Ok(16));
        assert_eq!(format!("{}b", "a.".repeat(16)).parse::<MaskPath>(), Err(PathError::TooLong));
    }

    #[test]
    fn a_path_holds_itself_and_what_is_below_it() {
        assert!(path("agent").holds(&path("agent.email")) && path("agent").holds(&path("agent")));
        assert!(!path("agent.email").holds(&path("agent")) && !path("agent").holds(&path("agents")));
        assert_eq!(path("participants[].extra.X.Y").to_extra(), Some(path("participants[].extra")));
        assert_eq!(path("agent.email").to_extra(), None);
    }
}
