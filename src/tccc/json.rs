//! JSON text read one level at a time.
//!
//! Members stay borrowed slices of the body, still encoded: nothing is lost (big integers, escapes that are no Unicode, the order)
//! and nothing recurses, because serde_json skips over a nested value with a loop.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// One member of an object.
#[derive(Debug, Clone)]
pub(crate) struct Member<'a> {
    /// The key as it stands in the text, quotes included.
    pub(crate) key: &'a str,
    /// The key decoded; surrogates that stand alone are encoded as if they were characters, so that every key has one form.
    pub(crate) name: Cow<'a, [u8]>,
    /// The value as it stands in the text.
    pub(crate) value: &'a str,
}

impl Member<'_> {
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The members of the object that `text` is, in their order, duplicates included. Fails where `text` is no JSON object.
pub(crate) fn members(text: &str) -> serde_json::Result<Vec<Member<'_>>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let members = deserializer.deserialize_map(MembersVisitor)?;
    deserializer.end()?;
    Ok(members)
}

/// The first `limit` elements of the array that `text` is, as they stand in the text, or `None` where there are more.
pub(crate) fn elements(text: &str, limit: usize) -> serde_json::Result<Option<Vec<&str>>> {
    serde_json::Deserializer::from_str(text).deserialize_seq(ElementsVisitor { limit }).or_else(|error| {
        // Too many is said by an error, so that the rest need not be read.
        if error.is_data() { Ok(None) } else { Err(error) }
    })
}

/// The content of a string literal without its quotes, escapes as they are.
pub(crate) fn unquoted(literal: &str) -> &str {
    literal.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(literal)
}

/// What a string literal says, or `None` where it is no Unicode (a surrogate escape without its partner).
pub(crate) fn decode(literal: &str) -> Option<Cow<'_, str>> {
    let content = unquoted(literal);
    if !content.contains('\\') {
        return Some(Cow::Borrowed(content));
    }
    serde_json::from_str(literal).ok().map(Cow::Owned)
}

/// What the literal of a key says, in bytes.
pub(super) fn decode_name(literal: &str) -> Cow<'_, [u8]> {
    let content = unquoted(literal);
    if !content.contains('\\') {
        return Cow::Borrowed(content.as_bytes());
    }
    let mut deserializer = serde_json::Deserializer::from_str(literal);
    match deserializer.deserialize_bytes(BytesVisitor) {
        Ok(bytes) => Cow::Owned(bytes),
        Err(_) => Cow::Borrowed(content.as_bytes()),
    }
}

/// `text` without the whitespace between its tokens. `text` must be JSON.
pub(super) fn compact(text: &str, out: &mut String) {
    let is_gap = |byte: u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    let bytes = text.as_bytes();
    let (mut kept_from, mut at, mut in_string) = (0, 0, false);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => in_string = !in_string,
            b'\\' => at += 1,
            byte if !in_string && is_gap(byte) => {
                out.push_str(&text[kept_from..at]);
                kept_from = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    out.push_str(&text[kept_from..]);
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Vec<Member<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::with_capacity(16);
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            members.push(Member { key: key.get(), name: decode_name(key.get()), value: value.get() });
        }
        Ok(members)
    }
}

struct ElementsVisitor {
    limit: usize,
}

impl<'de> Visitor<'de> for ElementsVisitor {
    type Value = Option<Vec<&'de str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element::<&RawValue>()? {
            if elements.len() == self.limit {
                return Err(A::Error::custom("too many elements"));
            }
            elements.push(element.get());
        }
        Ok(Some(elements))
    }
}

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }
}

/// Whether `text` is one JSON value, of whatever kind; the error says a kind and a position.
pub(super) fn is_json(text: &str) -> serde_json::Result<()> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whitespace_goes_only_between_tokens() {
        let mut out = String::new();
        compact("{ \"a b\" : [ 1 ,\r\n\t\"\\\" c\\\\\" , \"é  \" ] }", &mut out);
        assert_eq!(out, "{\"a b\":[1,\"\\\" c\\\\\",\"é  \"]}");
    }

    #[test]
    fn a_key_that_is_no_unicode_still_has_a_name() {
        assert_eq!(&*decode_name(r#""a\ud800""#), b"a\xed\xa0\x80");
        assert_eq!(decode_name(r#""\uD800""#), decode_name(r#""\ud800""#));
        assert_eq!(decode(r#""a\ud800""#), None);
        assert_eq!(decode(r#""\ud83d\ude00""#).as_deref(), Some("😀"));
    }

    #[test]
    fn members_keep_their_order_text_and_duplicates() {
        let members = members(" {\"a\":1, \"\\u0061\" : [ 2 ]} ").unwrap();
        let found: Vec<_> = members.iter().map(|member| (member.key, &*member.name, member.value)).collect();
        assert_eq!(found, [("\"a\"", &b"a"[..], "1"), ("\"\\u0061\"", b"a", "[ 2 ]")]);
    }

    #[test]
    fn more_elements_than_the_limit_are_none() {
        assert_eq!(elements("[1, 2]", 2).unwrap(), Some(vec!["1", "2"]));
        assert_eq!(elements("[1, 2, 3]", 2).unwrap(), None);
    }
}
