//! An event's `data` as values of CEL.
//!
//! Whole numbers are `int` wherever they fit, so that an expression need not know their sign. What the sender sent and nobody can
//! hold (deeper than 128 levels, numbers past the range of a double, text that is no Unicode) is left out, alone: such values only
//! stand under `extra`.

use std::collections::HashMap;

use cel::Value;

use crate::tccc::json;

/// From `data` down to a member of a participant's `extra`.
const LEVELS: usize = 4;

pub(super) fn data(text: &str) -> Value {
    value(text, LEVELS).unwrap_or(Value::Null)
}

/// The value that `text` stands for; where it cannot be read as a whole, what can be read within `levels`.
fn value(text: &str, levels: usize) -> Option<Value> {
    if let Ok(whole) = serde_json::from_str(text) {
        return Some(convert(whole));
    }
    let levels = levels.checked_sub(1)?;
    if let Ok(members) = json::members(text) {
        let read = members.iter().filter_map(|member| {
            let key = json::decode(member.key)?.into_owned();
            Some((key, value(member.value, levels)?))
        });
        return Some(Value::from(read.collect::<HashMap<_, _>>()));
    }
    let elements = json::elements(text, usize::MAX).ok()??;
    let read: Option<Vec<_>> = elements.into_iter().map(|element| value(element, levels)).collect();
    read.map(Value::from)
}

/// `value` was parsed, so it is at most 128 levels deep.
fn convert(value: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match value {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => Value::Int(int),
            (None, Some(uint)) => Value::UInt(uint),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text),
        Json::Array(elements) => Value::from(elements.into_iter().map(convert).collect::<Vec<_>>()),
        Json::Object(members) => {
            Value::from(members.into_iter().map(|(key, value)| (key, convert(value))).collect::<HashMap<_, _>>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_held_is_left_out_alone() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let text = format!(
            r#"{{"caller":"x","extra":{{"deep":{deep},"huge":1e999,"odd":"\ud800","fine":7}},"participants":[{{"sequence":1,"extra":{{"huge":1e999,"fine":-1}}}}]}}"#
        );
        let fine = |number| Value::from(HashMap::from([("fine".to_owned(), Value::Int(number))]));
        let participant = HashMap::from([("sequence".to_owned(), Value::Int(1)), ("extra".to_owned(), fine(-1))]);
        let expected = HashMap::from([
            ("caller".to_owned(), Value::from("x")),
            ("extra".to_owned(), fine(7)),
            ("participants".to_owned(), Value::from(vec![Value::from(participant)])),
        ]);
        assert_eq!(data(&text), Value::from(expected));
    }
}
