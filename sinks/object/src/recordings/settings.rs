//! The table `[sinks.<name>.settings]` of a `recordings` sink, and what is wrong with it.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sink_api::Problem;
use sink_api::settings::{Period, Size};

use super::hosts;
use super::key::Template;
use crate::store::StoreSettings;

/// Where the vendor keeps recordings: links of pushes and links of its API.
const VENDOR_HOSTS: [&str; 2] = ["*.myqcloud.com", "*.tccc.qcloud.com"];

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordingsSettings {
    /// The hosts that recordings may be fetched from: names without port, `*.` in front for all below.
    #[serde(default = "hosts_default")]
    pub hosts: Vec<String>,
    /// Networks that may be connected to although they are not public.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_networks: Vec<IpNet>,
    /// A larger recording is refused.
    #[serde(default = "size_max_default")]
    pub size_max: Size,
    /// Of one request with its body. What came until then is kept, and the rest asked for.
    #[serde(default = "timeout_default")]
    pub timeout: Period,
    /// The key of a recording, without its extension.
    #[serde(default = "key_default")]
    pub key: String,
    /// Recordings that are fetched or stored at the same time.
    #[serde(default = "fetches_max_default")]
    pub fetches_max: usize,
    /// The directory that recordings are gathered in before they are stored; the system's for temporary files where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool_dir: Option<PathBuf>,
    pub store: StoreSettings,
}

fn hosts_default() -> Vec<String> {
    VENDOR_HOSTS.map(str::to_owned).to_vec()
}

const fn size_max_default() -> Size {
    Size(256 << 20)
}

const fn timeout_default() -> Period {
    Period::from_secs(60)
}

fn key_default() -> String {
    "{source}/{sdk_app_id}/date={date}/{session_id}/{recording_id}".to_owned()
}

const fn fetches_max_default() -> usize {
    4
}

impl RecordingsSettings {
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut found = |path: String, message: String| problems.push(Problem { path, message });
        if self.hosts.is_empty() {
            found("hosts".to_owned(), "is empty; write the hosts that recordings lie on".to_owned());
        }
        for (index, host) in self.hosts.iter().enumerate() {
            if let Err(wrong) = hosts::check(host) {
                found(format!("hosts[{index}]"), format!("{host:?} {wrong}"));
            }
        }
        if self.size_max.0 == 0 {
            found(
                "size_max".to_owned(),
                "is zero; write the size of the largest recording, such as \"256MiB\"".to_owned(),
            );
        }
        if self.timeout.0.is_zero() {
            found("timeout".to_owned(), "is zero; write how long one request may take, such as \"60s\"".to_owned());
        }
        if self.fetches_max == 0 {
            found("fetches_max".to_owned(), "is zero; write 1 or more".to_owned());
        }
        if let Err(wrong) = Template::parse(&self.key) {
            found("key".to_owned(), wrong.to_string());
        }
        let of_store = self.store.problems().into_iter();
        problems.extend(of_store.map(|problem| Problem { path: format!("store.{}", problem.path), ..problem }));
        problems
    }

    pub(super) fn spool_dir(&self) -> PathBuf {
        self.spool_dir.clone().unwrap_or_else(std::env::temp_dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<(String, String)> {
        let settings: RecordingsSettings = toml::from_str(text).unwrap();
        settings.problems().into_iter().map(|problem| (problem.path, problem.message)).collect()
    }

    #[test]
    fn a_store_is_all_that_must_be_said() {
        assert_eq!(problems("store = { provider = 'disk', root = 'data/recordings' }"), []);
        assert!(toml::from_str::<RecordingsSettings>("timeout = '60s'").is_err());
        assert!(toml::from_str::<RecordingsSettings>("store = { provider = 'disk', root = 'x' }\nhost = []").is_err());
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let text = "hosts = ['a.example', 'http://b']\nsize_max = 0\ntimeout = '0s'\nfetches_max = 0\nkey = '{session_id}'\nstore = { provider = 'disk' }";
        let paths: Vec<_> = problems(text).into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["hosts[1]", "size_max", "timeout", "fetches_max", "key", "store.root"]);
        assert_eq!(problems("hosts = []\nstore = { provider = 'disk', root = 'x' }")[0].0, "hosts");
    }
}
