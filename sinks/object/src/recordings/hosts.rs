//! The hosts that recordings may be fetched from, redirects included.

use std::net::IpAddr;

/// An allow list of host names, compared without case. A port says nothing: a host is allowed on all of them.
#[derive(Debug, Clone)]
pub(super) struct Hosts(Vec<Pattern>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Exact(String),
    /// With the dot in front: any name that ends with it, however many labels stand before.
    Below(String),
}

/// Why a text is no pattern of hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is no host; write a name without scheme and port, such as \"files.example.com\", or \"*.example.com\" for all below it"
)]
pub(super) struct NoHost;

impl Hosts {
    /// Takes what can be read; [`check`] says what cannot.
    pub(super) fn new(texts: &[String]) -> Self {
        Self(texts.iter().filter_map(|text| pattern(text).ok()).collect())
    }

    /// `host` as a URL has it; an IPv6 address in brackets.
    pub(super) fn allow(&self, host: &str) -> bool {
        let host = plain(host);
        self.0.iter().any(|pattern| match pattern {
            Pattern::Exact(name) => *name == host,
            Pattern::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        })
    }
}

/// Whether `text` can stand in the list.
pub(super) fn check(text: &str) -> Result<(), NoHost> {
    pattern(text).map(|_| ())
}

fn pattern(text: &str) -> Result<Pattern, NoHost> {
    let name = plain(text.trim());
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(Pattern::Exact(address.to_string()));
    }
    let bare = name.strip_prefix("*.").unwrap_or(&name);
    let is_label =
        |label: &str| !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if !bare.split('.').all(is_label) {
        return Err(NoHost);
    }
    Ok(if bare.len() < name.len() { Pattern::Below(format!(".{bare}")) } else { Pattern::Exact(name) })
}

/// Without case, brackets and the dot of the root.
fn plain(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(texts: &[&str]) -> Hosts {
        Hosts::new(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn names_are_compared_without_case_and_the_roots_dot() {
        let hosts = hosts(&["Files.Example.com", "127.0.0.1", "[::1]"]);
        for allowed in ["files.example.com", "FILES.example.COM.", "127.0.0.1", "[::1]"] {
            assert!(hosts.allow(allowed), "{allowed}");
        }
        for refused in ["example.com", "a.files.example.com", "files.example.com.evil.test", "127.0.0.2", ""] {
            assert!(!hosts.allow(refused), "{refused}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_all_that_is_below_and_not_for_the_name_itself() {
        let hosts = hosts(&["*.myqcloud.com"]);
        assert!(hosts.allow("recorder-1.cos.ap-shanghai.MYQCLOUD.com"));
        for refused in ["myqcloud.com", "evilmyqcloud.com", "myqcloud.com.evil.test", ".myqcloud.com.x"] {
            assert!(!hosts.allow(refused), "{refused}");
        }
    }

    #[test]
    fn what_is_no_host_is_told() {
        for text in ["", "*", "*.", "a.*.b", "http://a", "a:80", "a/b", "a b", "*.*.a", ".a"] {
            assert_eq!(check(text), Err(NoHost), "{text}");
        }
    }
}
