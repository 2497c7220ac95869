//! What is wrong with a config, said so that a person can mend it: where, what was found, what is allowed, where it came from.
//!
//! No problem ever quotes what may be a secret.

use std::fmt;

use super::path::Path;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    File {
        name: String,
        line: usize,
    },
    /// The environment variable of this name.
    Env(String),
    /// `--set` on the command line.
    Set,
}

impl Origin {
    /// Whether the value was handed over as text, which has no types, so that `8080` may be a number or a string.
    pub const fn is_text(&self) -> bool {
        matches!(self, Self::Env(_) | Self::Set)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Set => f.write_str("--set"),
        }
    }
}

/// One thing that is wrong, or, among the warnings, that is probably not meant so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Empty where the whole file is meant.
    pub path: Path,
    /// What is wrong, and what was found.
    pub message: String,
    /// What is allowed in its place; empty where the message says it all.
    pub allowed: String,
    pub origin: Option<Origin>,
    /// For syntax errors: the line with a mark below it, in the config itself with values masked.
    pub excerpt: Option<String>,
}

impl Problem {
    pub fn new(path: Path, message: impl Into<String>) -> Self {
        Self { path, message: message.into(), allowed: String::new(), origin: None, excerpt: None }
    }

    pub fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = allowed.into();
        self
    }

    pub fn from(mut self, origin: Option<Origin>) -> Self {
        self.origin = origin;
        self
    }
}

impl fmt::Display for Problem {
    /// `path: what is wrong; what is allowed (from gateway.toml:12)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.0.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if !self.allowed.is_empty() {
            write!(f, "; {}", self.allowed)?;
        }
        if let Some(origin) = &self.origin {
            write!(f, " (from {origin})")?;
        }
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n{excerpt}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a config, in the order of the file. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<Problem>> for Problems {
    fn from(mut problems: Vec<Problem>) -> Self {
        let line = |problem: &Problem| match &problem.origin {
            Some(Origin::File { line, .. }) => *line,
            _ => usize::MAX,
        };
        problems.sort_by_key(|problem| (line(problem), problem.path.clone()));
        Self(problems)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, problem) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(problem, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
