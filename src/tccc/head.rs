//! What the ingress asks of a body on the way to an acknowledgement: one pass, nothing kept, no recursion.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{BodyError, Head, json, values};
use crate::names::SessionId;

/// The sender's name of the session id.
pub(super) const SESSION_ID: &str = "SessionId";

/// See [`super::read_head`].
pub(super) fn read(body: &[u8]) -> Result<Head, BodyError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| BodyError::NotJson(format!("invalid UTF-8 at byte {}", error.valid_up_to())))?;
    // Looked at first, because serde_json quotes a value that it did not expect.
    if !text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{') {
        return Err(json::is_json(text).map_or_else(not_json, |()| BodyError::NotAnObject));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let session = deserializer.deserialize_map(SessionVisitor).map_err(not_json)?;
    deserializer.end().map_err(not_json)?;
    Ok(Head { session: session.and_then(values::id).map(|id| SessionId::new(&*id)) })
}

/// Only errors of syntax come here: they say a kind and a position.
fn not_json(error: serde_json::Error) -> BodyError {
    BodyError::NotJson(error.to_string())
}

struct SessionVisitor;

impl<'de> Visitor<'de> for SessionVisitor {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut session = None;
        while let Some(key) = map.next_key::<&RawValue>()? {
            if json::decode_name(key.get()).eq_ignore_ascii_case(SESSION_ID.as_bytes()) {
                session = Some(map.next_value::<&RawValue>()?.get());
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(body: &str) -> Option<String> {
        read(body.as_bytes()).unwrap().session.map(|session| session.as_str().to_owned())
    }

    fn problem(body: &[u8]) -> String {
        read(body).unwrap_err().to_string()
    }

    #[test]
    fn the_session_id_is_found_whatever_its_case_its_type_and_its_escapes() {
        assert_eq!(session(r#"{"SessionId":"s-1"}"#).as_deref(), Some("s-1"));
        assert_eq!(session(r#" {"a":{"SessionId":"no"}, "sessionID" : "s-1"} "#).as_deref(), Some("s-1"));
        assert_eq!(session(r#"{"S\u0065ssionId":"\u0073-1"}"#).as_deref(), Some("s-1"));
        assert_eq!(session(r#"{"SessionId":9007199254740993}"#).as_deref(), Some("9007199254740993"));
    }

    #[test]
    fn the_last_of_several_session_ids_wins() {
        assert_eq!(session(r#"{"SessionId":"s-1","SESSIONID":"s-2"}"#).as_deref(), Some("s-2"));
        assert_eq!(session(r#"{"SessionId":"s-1","SessionId":null}"#), None);
    }

    #[test]
    fn what_is_no_text_is_no_session_id() {
        for body in
            [r#"{}"#, r#"{"SessionId":""}"#, r#"{"SessionId":null}"#, r#"{"SessionId":[1]}"#, r#"{"SessionId":true}"#]
        {
            assert_eq!(session(body), None, "{body}");
        }
        assert_eq!(session(r#"{"SessionId":"\ud800"}"#), None);
    }

    #[test]
    fn a_long_or_odd_session_id_is_kept_as_it_is() {
        let long = "x".repeat(5_000);
        assert_eq!(session(&format!(r#"{{"SessionId":"{long}"}}"#)), Some(long));
        assert_eq!(session(r#"{"SessionId":"a\u0000\n b"}"#).as_deref(), Some("a\0\n b"));
    }

    #[test]
    fn errors_say_where_and_never_quote_the_body() {
        assert_eq!(problem(b""), "the body is not JSON: EOF while parsing a value at line 1 column 0");
        assert_eq!(problem(b"{\"secret\" 1}"), "the body is not JSON: expected `:` at line 1 column 11");
        assert_eq!(problem(b"{\"a\":\"\xff\"}"), "the body is not JSON: invalid UTF-8 at byte 6");
        assert_eq!(problem(b"{} {}"), "the body is not JSON: trailing characters at line 1 column 4");
        assert_eq!(problem(b"\xef\xbb\xbf{}"), "the body is not JSON: expected value at line 1 column 1");
        assert_eq!(problem(b"\"secret\""), "the body is JSON but not an object");
        assert_eq!(problem(b"[{\"secret\":1}]"), "the body is JSON but not an object");
        for body in [
            &b"{\"secret\":01}"[..],
            b"{secret:1}",
            b"{\"a\":\"se\ncret\"}",
            b"{\"a\":\"\\xsecret\"}",
            b"secret",
            b"[\"secret\"",
        ] {
            assert!(!problem(body).contains("secret"), "{}", problem(body));
        }
    }

    #[test]
    fn lone_surrogates_and_huge_numbers_are_json() {
        assert_eq!(session(r#"{"\udfff":"\ud800","n":1e99999,"SessionId":"s"}"#).as_deref(), Some("s"));
    }

    #[test]
    fn depth_costs_no_stack() {
        for depth in [10_000, 1_000_000] {
            let body = format!(r#"{{"deep":{}{},"SessionId":"s"}}"#, "[".repeat(depth), "]".repeat(depth));
            let objects = format!(r#"{{"deep":{}1{},"SessionId":"s"}}"#, r#"{"a":"#.repeat(depth), "}".repeat(depth));
            let on_small_stack = std::thread::Builder::new().stack_size(256 * 1024);
            let sessions = on_small_stack.spawn(move || (session(&body), session(&objects))).unwrap().join().unwrap();
            assert_eq!(sessions, (Some("s".into()), Some("s".into())));
        }
    }
}
