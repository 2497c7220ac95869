//! What must hold of a sink's `when` and `mask`.

use std::collections::BTreeMap;

use sink_api::Format;

use super::check::{Findings, check_secret};
use super::mask::MaskRule;
use super::model::Sink;
use super::path::Path;
use super::report::hint;
use crate::event::{MaskPath, PathError, When};
use crate::tccc::known_fields;

/// Checks both. `at` is the sink.
pub fn check_content(at: &Path, sink: &Sink, findings: &mut Findings) {
    if let Some(text) = &sink.when {
        check_when(at.key("when"), text, findings);
    }
    if !sink.mask.is_empty() {
        check_mask(at, sink, findings);
    }
}

fn check_when(at: Path, text: &str, findings: &mut Findings) {
    let when = match When::compile(text) {
        Ok(when) => when,
        Err(error) => {
            findings.fault(at, error.message, "").excerpt = error.excerpt;
            return;
        }
    };
    let known = Known::new();
    for path in when.data_paths().filter(|path| !known.is_field(path)) {
        let message = format!("asks for data.{path}, which no event has{}", known.hint(path));
        findings.warn(at.clone(), message, "where it does not, the event becomes a dead letter");
    }
}

fn check_mask(at: &Path, sink: &Sink, findings: &mut Findings) {
    let (at, format) = (at.key("mask"), at.key("format"));
    if sink.format == Format::Raw {
        let finding = findings.fault(at.clone(), "found beside format = \"raw\"", "bytes as received cannot be masked");
        finding.beside.push(format);
    }
    let known = Known::new();
    let mut seen: BTreeMap<&str, MaskPath> = BTreeMap::new();
    for (text, rule) in &sink.mask {
        let at = at.key(text);
        if let MaskRule::Hmac { hmac_key } = rule {
            check_secret(at.key("hmac_key"), hmac_key, findings);
        }
        let path: MaskPath = match text.parse() {
            Ok(path) => path,
            Err(error) => {
                let allowed = match error {
                    PathError::InData => "leave `data.` out",
                    _ => "write names joined by dots, [] behind a list: \"participants[].email\"",
                };
                findings.fault(at, error, allowed);
                continue;
            }
        };
        if let Some((other, _)) = seen.iter().find(|(_, other)| other.holds(&path) || path.holds(other)) {
            findings.fault(at.clone(), format!("is masked by {other:?} too"), "one of the two must go");
        }
        if text == "session_id" && !matches!(rule, MaskRule::Hmac { .. }) {
            let allowed = "only { hmac_key = … } keeps the order of a session visible, in `subject` and `partitionkey`";
            findings.fault(at.clone(), "cannot be masked so", allowed);
        }
        if !known.is_field(text) {
            let message = format!("masks nothing that any event has{}", known.hint(text));
            findings.warn(at, message, "the fields are those of `trunkline schema`, or extra.NAME");
        }
        seen.insert(text, path);
    }
}

/// The fields that events have.
struct Known(Vec<String>);

impl Known {
    fn new() -> Self {
        Self(known_fields().into_keys().collect())
    }

    /// Whether it is one, or stands below an `extra`, where anything may.
    fn is_field(&self, path: &str) -> bool {
        let to_extra = path.parse::<MaskPath>().ok().and_then(|path| path.to_extra()).map(|path| path.to_string());
        self.0.iter().any(|known| known == path || Some(known) == to_extra.as_ref())
    }

    fn hint(&self, path: &str) -> String {
        hint(path, &self.0.iter().map(String::as_str).collect::<Vec<_>>())
    }
}
