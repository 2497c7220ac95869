//! Dead letters for people. Rows have fixed widths, so that a list of any length is printed as it comes.

use serde::Deserialize;
use serde_json::Value;

/// Characters of a reason that a row shows.
const REASON_MAX: usize = 80;

#[derive(Deserialize)]
struct Row {
    id: String,
    action: String,
    session_id: Option<String>,
    code: String,
    reason: String,
    attempts: u32,
    last_attempt_at: String,
}

pub(super) fn header() -> String {
    line("id", "action", "session", "code", "tries", "last tried", "reason")
}

/// A row of the list; the item as it is where it was not understood.
pub(super) fn row(item: &str) -> String {
    let Ok(row) = serde_json::from_str::<Row>(item) else { return item.to_owned() };
    let session = row.session_id.as_deref().unwrap_or("-");
    let at = row.last_attempt_at.get(..19).unwrap_or(&row.last_attempt_at);
    let reason: String = row.reason.chars().take(REASON_MAX).collect();
    line(&row.id, &row.action, session, &row.code, &row.attempts.to_string(), at, &reason)
}

fn line(id: &str, action: &str, session: &str, code: &str, tries: &str, at: &str, reason: &str) -> String {
    let line = format!("{id:<16}  {action:<10}  {session:<16}  {code:<12}  {tries:>5}  {at:<19}  {reason}");
    // What a sender chose must not steer the terminal.
    line.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// JSON on several lines.
pub(super) fn pretty(letter: &str) -> String {
    let value = serde_json::from_str::<Value>(letter).ok();
    value.and_then(|value| serde_json::to_string_pretty(&value).ok()).unwrap_or_else(|| letter.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_below_the_header_and_hold_no_control_characters() {
        let item = r#"{"id":"crm-7","action":"cdr","session_id":"s\u001b[2J","code":"http-400","reason":"the endpoint answers 400","attempts":3,"last_attempt_at":"2026-11-25T18:00:00.123Z"}"#;
        let (header, row) = (header(), row(item));
        assert_eq!(header.find("reason"), row.find("the endpoint").map(|at| at - '\u{fffd}'.len_utf8() + 1));
        assert!(row.starts_with("crm-7") && row.contains("2026-11-25T18:00:00 ") && !row.contains('\u{1b}'), "{row}");
    }

    #[test]
    fn what_is_not_understood_is_shown_as_it_is() {
        assert_eq!((row("{}"), pretty("{")), ("{}".to_owned(), "{".to_owned()));
    }
}
