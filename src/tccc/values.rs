//! Scalars of the sender: a number can come as a string and a string as a number (PROTOCOL.md §4).

use std::borrow::Cow;

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::json;

/// A moment, RFC 3339 in UTC; with milliseconds where the sender counts in them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Time {
    pub at: Timestamp,
    pub in_milliseconds: bool,
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.in_milliseconds {
            serializer.collect_str(&format_args!("{:.3}", self.at))
        } else {
            serializer.collect_str(&self.at)
        }
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// A string, or a number as its digits stand. Nothing else, nor a string that is no Unicode, is text.
pub(super) fn text(literal: &str) -> Option<Cow<'_, str>> {
    match literal.as_bytes().first()? {
        b'"' => json::decode(literal),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(literal)),
        _ => None,
    }
}

/// An id: text that is not empty.
pub(super) fn id(literal: &str) -> Option<Cow<'_, str>> {
    text(literal).filter(|text| !text.is_empty())
}

/// A whole number that 64 bits hold, `15` or `15.0`.
pub(super) fn integer(text: &str) -> Option<i64> {
    let text = text.trim_ascii();
    let whole = match text.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() && fraction.bytes().all(|digit| digit == b'0') => whole,
        _ => text,
    };
    whole.parse().ok()
}

/// Unix seconds; 0 is "did not happen". Times before 1970 and after the year 9999, which RFC 3339 cannot say, are no times.
pub(super) fn seconds(text: &str) -> Option<Option<Time>> {
    let seconds = integer(text).filter(|seconds| *seconds >= 0)?;
    let at = Timestamp::from_second(seconds).ok()?;
    Some((seconds != 0).then_some(Time { at, in_milliseconds: false }))
}

/// Unix milliseconds; otherwise as [`seconds`].
pub(super) fn milliseconds(text: &str) -> Option<Option<Time>> {
    let milliseconds = integer(text).filter(|milliseconds| *milliseconds >= 0)?;
    let at = Timestamp::from_millisecond(milliseconds).ok()?;
    Some((milliseconds != 0).then_some(Time { at, in_milliseconds: true }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_to_the_last_digit_or_not_at_all() {
        assert_eq!(integer("9007199254740993"), Some(9_007_199_254_740_993));
        assert_eq!(integer("-9223372036854775808"), Some(i64::MIN));
        assert_eq!(integer("9223372036854775808"), None);
        assert_eq!(integer(" 15.0 "), Some(15));
        for text in ["", "15.5", "1e3", "15.", "0x1f", "fifteen"] {
            assert_eq!(integer(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_is_within_the_years_that_can_be_written() {
        assert_eq!(seconds("0"), Some(None));
        assert_eq!(seconds("-1"), None);
        assert_eq!(seconds("253402207201"), None);
        let written = |time: Option<Option<Time>>| serde_json::to_string(&time.flatten().unwrap()).unwrap();
        assert_eq!(written(seconds("253402207200")), r#""9999-12-30T22:00:00Z""#);
        assert_eq!(written(seconds("1787003942")), r#""2026-08-17T21:59:02Z""#);
        assert_eq!(written(milliseconds("1787003605120")), r#""2026-08-17T21:53:25.120Z""#);
        assert_eq!(written(milliseconds("253402207200000")), r#""9999-12-30T22:00:00.000Z""#);
    }
}
