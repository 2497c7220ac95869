//! The table `[sinks.<name>.settings]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sink_api::Problem;
use sink_api::settings::{Period, Size};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The file being written; `-` is standard output.
    pub path: PathBuf,
    /// Before a batch would make the file larger than this, the file moves aside. Never where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_size_max: Option<Size>,
    /// Before a batch goes into a file that was begun longer ago than this, the file moves aside. Never where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_age_max: Option<Period>,
}

impl Settings {
    pub(crate) fn is_stdout(&self) -> bool {
        self.path.as_os_str() == "-"
    }

    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut found = |path: &str, message: String| problems.push(Problem { path: path.to_owned(), message });
        if self.path.as_os_str().is_empty() {
            found("path", "is empty; write the path of a file, or \"-\" for standard output".to_owned());
        } else if self.path.to_string_lossy().ends_with('/') || self.path.file_name().is_none() {
            found("path", format!("{:?} names a directory; write the path of a file", self.path));
        }
        let periods = [
            ("rotate_size_max", self.rotate_size_max.map(|size| size.0 == 0)),
            ("rotate_age_max", self.rotate_age_max.map(|age| age.0.is_zero())),
        ];
        for (key, is_zero) in periods {
            if is_zero == Some(true) {
                found(key, "is zero; leave it out to never rotate by it".to_owned());
            }
            if is_zero.is_some() && self.is_stdout() {
                found(key, "standard output cannot be rotated; leave it out".to_owned());
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths_of_problems(json: &str) -> Vec<String> {
        let settings: Settings = serde_json::from_str(json).unwrap();
        settings.problems().into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn good_settings_have_no_problems() {
        for json in [r#"{"path":"-"}"#, r#"{"path":"a/b","rotate_size_max":"1MiB","rotate_age_max":"24h"}"#] {
            assert_eq!(paths_of_problems(json), Vec::<String>::new(), "{json}");
        }
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let json = r#"{"path":"data/","rotate_size_max":0,"rotate_age_max":"0s"}"#;
        assert_eq!(paths_of_problems(json), ["path", "rotate_size_max", "rotate_age_max"]);
        assert_eq!(paths_of_problems(r#"{"path":""}"#), ["path"]);
        assert_eq!(paths_of_problems(r#"{"path":"-","rotate_age_max":"1h"}"#), ["rotate_age_max"]);
        assert!(serde_json::from_str::<Settings>(r#"{"path":"a","rotate":1}"#).is_err());
    }
}
