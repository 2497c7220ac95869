//! What the keys of objects are made of, whatever is kept under them.

use jiff::Timestamp;
use sink_api::template::Characters;

/// Stands for a value that an event does not have.
pub(crate) const ABSENT: &str = "none";

/// Every store takes these as they are.
pub(crate) const CHARACTERS: Characters =
    Characters { allow: |c| is_safe(c) || c == '/', listed: "A-Z, a-z, 0-9, '.', '_', '=', '-' and '/'" };

pub(crate) fn is_safe(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '=' | '-')
}

/// What is left of `value` with safe characters alone, `len_max` of them at most. May be empty, or dots alone.
pub(crate) fn reduced(value: &str, len_max: usize) -> String {
    value.chars().take(len_max).map(|c| if is_safe(c) { c } else { '_' }).collect()
}

/// Empty, or what a path takes for a folder itself or the one above.
pub(crate) fn is_no_name(segment: &str) -> bool {
    segment.bytes().all(|byte| byte == b'.')
}

pub(crate) fn date(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}

pub(crate) fn hour(time: Timestamp) -> String {
    time.strftime("%H").to_string()
}
