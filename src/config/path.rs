//! Where in the config something stands: `sinks.events.actions[1]`.

use std::fmt;

/// One step from a table or list to what is in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Key(String),
    Index(usize),
}

/// The steps from the top of the config to a value. Shown dotted, keys quoted where TOML would.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Path(pub Vec<Step>);

/// Words at the end of a key that say: what stands here is nobody's business.
const SENSITIVE: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "secrets",
    "token",
    "tokens",
    "key",
    "keys",
    "url",
    "urls",
    "headers",
    "credentials",
];

impl Path {
    /// A path of keys, as it is written in this source: `Path::of("ingress.listen")`.
    pub fn of(dotted: &str) -> Self {
        Self(dotted.split('.').map(|key| Step::Key(key.to_owned())).collect())
    }

    pub fn key(&self, key: &str) -> Self {
        self.step(Step::Key(key.to_owned()))
    }

    pub fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    pub fn step(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// This path below `parent`.
    pub fn below(&self, parent: &Self) -> Self {
        Self(parent.0.iter().chain(&self.0).cloned().collect())
    }

    /// What holds the value at this path; `None` for the top.
    pub fn parent(&self) -> Option<Self> {
        let (_, parents) = self.0.split_last()?;
        Some(Self(parents.to_vec()))
    }

    /// Whether `self` is `other` or holds it.
    pub fn holds(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }

    /// Whether the value here, by the names of its keys, may be a secret or contain one.
    pub fn is_sensitive(&self) -> bool {
        !self.is_template()
            && self.0.iter().any(|step| match step {
                Step::Key(key) => {
                    let key = key.to_ascii_lowercase();
                    SENSITIVE.iter().any(|word| key.ends_with(word))
                }
                Step::Index(_) => false,
            })
    }

    /// Whether a name made of events stands here, for which the field's own word is "key": an object's, or a message's on its way.
    fn is_template(&self) -> bool {
        let keys = self.0.iter().map(|step| match step {
            Step::Key(key) => key.as_str(),
            Step::Index(_) => "",
        });
        matches!(keys.collect::<Vec<_>>()[..], ["sinks", _, "settings", "key" | "routing_key"])
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_bare = |key: &str| {
            !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        };
        for (place, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    if place > 0 {
                        f.write_str(".")?;
                    }
                    if is_bare(key) { f.write_str(key)? } else { write!(f, "{key:?}")? }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_as_toml_would_write_it() {
        let path = Path::of("sinks").key("my sink").key("actions").index(2);
        assert_eq!(path.to_string(), r#"sinks."my sink".actions[2]"#);
        assert_eq!(path.parent().unwrap().to_string(), r#"sinks."my sink".actions"#);
        assert!(Path::of("sinks").holds(&path) && path.holds(&path) && !path.holds(&Path::of("sinks")));
    }

    #[test]
    fn what_may_be_a_secret_is_known_by_its_name() {
        for path in [
            "admin.token",
            "a.password.env",
            "a.client_secret",
            "a.signing_key",
            "journal.redis.url",
            "a.HEADERS.x",
            "sinks.archive.settings.encryption.key",
        ] {
            assert!(Path::of(path).is_sensitive(), "{path}");
        }
        for path in [
            "ingress.listen",
            "sinks.events.settings.path",
            "ingress.tls.key_file",
            "sinks.archive.settings.key",
            "sinks.broker.settings.routing_key",
        ] {
            assert!(!Path::of(path).is_sensitive(), "{path}");
        }
    }
}
