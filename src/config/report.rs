//! The words for what the reading found, and what of it may be shown.
//!
//! A value is quoted only where neither its place nor its looks say that it may be a secret.

use toml::Value;

use super::path::{Path, Step};
use super::problem::Problem;
use super::value::Fault;

/// Characters of a value that are quoted.
const QUOTE_MAX: usize = 60;

pub fn unknown_key(path: Path, key: &str, known: &[&str]) -> Problem {
    Problem::new(path, format!("unknown key{}", hint(key, known))).allowed(list_of(known))
}

pub fn missing_key(path: Path, key: &str) -> Problem {
    let example = match key {
        "type" => ", the word that says which kind it is",
        _ => "",
    };
    Problem::new(path, "missing").allowed(format!("`{key}` has no default and must be given{example}"))
}

/// A value that does not do for its place.
pub fn unfit(path: Path, value: &Value, fault: &Fault) -> Problem {
    match fault {
        Fault::UnknownWord { known } => {
            let near = value.as_str().map_or_else(String::new, |word| hint(word, known));
            let message = format!("found {}{near}", found(&path, value));
            Problem::new(path, message).allowed(list_of(known))
        }
        Fault::Unfit { expected } => {
            let expected = plain(expected);
            // Where a table is asked for, a text holds a whole table, and with it whatever is in that.
            let message = match expected {
                "a table" => format!("found {}", kind_of(value)),
                _ => format!("found {}", found(&path, value)),
            };
            Problem::new(path, message).allowed(format!("expected {expected}"))
        }
        Fault::Said(said) if may_quote(&path, value) => {
            let quoted = found(&path, value);
            let message =
                if said.contains(&quoted) { said.clone() } else { format!("{}, found {quoted}", plain(said)) };
            Problem::new(path, message)
        }
        Fault::Said(said) if !value.is_str() && !quotes_any(said, value) => {
            Problem::new(path, format!("found {}: {said}", kind_of(value)))
        }
        Fault::Said(_) | Fault::UnknownKey { .. } | Fault::MissingKey { .. } => {
            let message = format!("found {} that cannot be read here", kind_of(value));
            Problem::new(path, message)
        }
    }
}

/// The name that `word` is most likely a slip of, as ", did you mean `…`?"; empty where there is none.
pub fn hint(word: &str, known: &[&str]) -> String {
    nearest(word, known).map_or_else(String::new, |near| format!(", did you mean `{near}`?"))
}

/// The name among `known` that is at most a third of its letters away from `word`.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase();
    let distance = |name: &str| strsim::osa_distance(&word, &name.to_lowercase());
    let near = known.iter().min_by_key(|name| distance(name))?;
    let bound = (near.chars().count() / 3).clamp(1, 3);
    (distance(near) <= bound).then_some(*near)
}

pub fn list_of(known: &[&str]) -> String {
    match known {
        [] => "there are no keys here".to_owned(),
        _ => format!("known: {}", known.join(", ")),
    }
}

/// Replaces a message of a sink that quotes one of its secrets.
pub fn conceal(message: String, path: &Path, settings: &Value) -> String {
    let mut secrets = Vec::new();
    gather_secrets(settings, path, &mut secrets);
    match secrets.iter().any(|secret| message.contains(secret.as_str())) {
        true => "does not fit; the reason quotes a secret and is not shown".to_owned(),
        false => message,
    }
}

fn gather_secrets(value: &Value, path: &Path, secrets: &mut Vec<String>) {
    match value {
        Value::Table(table) => table.iter().for_each(|(key, value)| gather_secrets(value, &path.key(key), secrets)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| gather_secrets(item, &path.index(index), secrets));
        }
        // The reference to a secret may be shown.
        _ if is_reference(path) || !path.is_sensitive() => {}
        Value::String(text) if text.is_empty() => {}
        Value::String(text) => secrets.push(text.clone()),
        other => secrets.push(other.to_string()),
    }
}

/// Whether `said` quotes anything that is in `value`.
fn quotes_any(said: &str, value: &Value) -> bool {
    match value {
        Value::Table(table) => table.iter().any(|(_, value)| quotes_any(said, value)),
        Value::Array(items) => items.iter().any(|item| quotes_any(said, item)),
        Value::String(text) => said.contains(text.as_str()) || said.contains(format!("{text:?}").trim_matches('"')),
        other => said.contains(&other.to_string()),
    }
}

fn is_reference(path: &Path) -> bool {
    matches!(path.0.last(), Some(Step::Key(key)) if key == "env" || key == "file")
}

fn may_quote(path: &Path, value: &Value) -> bool {
    let looks_harmless = match value {
        Value::String(text) => !text.contains("://"),
        Value::Table(_) | Value::Array(_) => false,
        _ => true,
    };
    looks_harmless && !path.is_sensitive()
}

/// The value itself where it may be shown, else only its kind.
fn found(path: &Path, value: &Value) -> String {
    match value {
        _ if !may_quote(path, value) => kind_of(value).to_owned(),
        Value::String(text) if text.chars().count() > QUOTE_MAX => {
            format!("{:?}…", text.chars().take(QUOTE_MAX).collect::<String>())
        }
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

const fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// What serde and the standard library say, in words for somebody who does not know them.
fn plain(expected: &str) -> &str {
    match expected {
        "usize" | "u64" | "u32" | "u16" | "u8" => "a whole number, 0 or more",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "path string" => "a path",
        "a map" => "a table",
        "socket address" => "an IP address and port such as \"127.0.0.1:8080\"",
        "invalid socket address syntax" => "not an IP address and port such as \"127.0.0.1:8080\"",
        "invalid IP address syntax" => "not an address range such as \"10.0.0.0/8\"",
        _ if expected.starts_with("struct ") || expected.starts_with("internally tagged enum ") => "a table",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_within_a_third_of_its_letters() {
        let known = ["listen", "body_size_max", "tls", "path"];
        assert_eq!(nearest("listn", &known), Some("listen"));
        assert_eq!(nearest("bodysizemax", &known), Some("body_size_max"));
        assert_eq!(nearest("TLS", &known), Some("tls"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(nearest("x", &[]), None);
    }

    #[test]
    fn a_sinks_message_that_quotes_a_secret_is_not_shown() {
        let settings: Value = toml::from_str("token = \"hunter2\"\npath = \"x\"").unwrap();
        let at = Path::of("sinks.a.settings");
        assert!(!conceal("hunter2 is too short".to_owned(), &at, &settings).contains("hunter2"));
        assert_eq!(conceal("x is no path".to_owned(), &at, &settings), "x is no path");
    }
}
