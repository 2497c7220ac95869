//! What a push says in its request line and header fields (PROTOCOL.md §1). Pure functions.

use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use crate::names::PushId;
use crate::tccc;

/// Carries the push id, the same on every retry of one push.
const PUSH_ID: &str = "x-tccc-push-uuid";
const PUSH_ID_LEN_MAX: usize = 128;
const ACTION_LEN_MAX: usize = 64;
const VERSION_LEN_MAX: usize = 32;

/// The query's parameters that matter.
#[derive(Debug, PartialEq)]
pub struct Query {
    /// A known action as the config spells it, another as the sender wrote it.
    pub action: Result<String, ActionError>,
    /// Verbatim; absent where it is not 1–32 visible ASCII characters.
    pub version: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    #[error("the query names no action, as in ?action=cdr")]
    Missing,
    #[error("the action is not 1 to 64 visible ASCII characters")]
    Unusable,
}

/// Reads `action` and `version` among any other parameters, in any order; of several with one name the first counts. How the
/// sender joins `?action=` to an address that has a query already is not known, so a second `?` separates as `&` does.
pub fn query(text: &str) -> Query {
    let (mut action, mut version) = (None, None);
    for (name, value) in text.split('?').flat_map(|part| form_urlencoded::parse(part.as_bytes())) {
        match &*name {
            "action" if action.is_none() => action = Some(value),
            "version" if version.is_none() => version = Some(value),
            _ => {}
        }
    }
    let action = match action.as_deref() {
        None | Some("") => Err(ActionError::Missing),
        Some(text) if !is_visible(text, ACTION_LEN_MAX) => Err(ActionError::Unusable),
        Some(text) => Ok(tccc::known_action(text).unwrap_or(text).to_owned()),
    };
    Query {
        action,
        version: version.filter(|text| is_visible(text, VERSION_LEN_MAX)).map(std::borrow::Cow::into_owned),
    }
}

/// The push id that the sender gave, where it is 1–128 visible ASCII characters.
pub fn push_id(headers: &HeaderMap) -> Option<PushId> {
    let text = headers.get(PUSH_ID)?.to_str().ok()?;
    is_visible(text, PUSH_ID_LEN_MAX).then(|| PushId::from(text))
}

/// Whether the body comes as it is: no content encoding but `identity`.
pub fn is_unencoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().all(|value| {
        value.to_str().is_ok_and(|text| {
            text.split(',').map(str::trim).all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case("identity"))
        })
    })
}

/// The trace context, where it is valid by W3C Trace Context §3.2 in the form of version 00 (55 characters).
pub fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, parent, flags] = parts[..] else { return None };
    let is_hex =
        |text: &str, len| text.len() == len && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    let valid = is_hex(version, 2) && version != "ff" && is_hex(trace, 32) && is_hex(parent, 16) && is_hex(flags, 2);
    (valid && !is_zero(trace) && !is_zero(parent)).then(|| text.to_owned())
}

fn is_visible(text: &str, len_max: usize) -> bool {
    (1..=len_max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn action(text: &str) -> Result<String, ActionError> {
        query(text).action
    }

    #[test]
    fn the_action_is_found_in_any_order_and_case() {
        for text in [
            "action=cdr",
            "version=1&action=CDR",
            "tenant=a?action=cdr&version=1",
            "x=%26action%3Drecord&action=c%64r",
            "action=cdr&action=record",
        ] {
            assert_eq!(action(text), Ok("cdr".to_owned()), "{text}");
        }
        assert_eq!(action("action=VIDEOCDR"), Ok("videoCdr".to_owned()));
        assert_eq!(action("action=newKind"), Ok("newKind".to_owned()));
        assert_eq!(query("tenant=a?action=cdr&version=1").version.as_deref(), Some("1"));
    }

    #[test]
    fn a_missing_or_unusable_action_is_told_apart() {
        assert_eq!(action(""), Err(ActionError::Missing));
        assert_eq!(action("Action=cdr&action="), Err(ActionError::Missing));
        assert_eq!(action("action=c+d"), Err(ActionError::Unusable));
        assert_eq!(action("action=%E5%BD%95"), Err(ActionError::Unusable));
        assert_eq!(action(&format!("action={}", "a".repeat(65))), Err(ActionError::Unusable));
    }

    #[test]
    fn push_ids_are_visible_ascii_of_bounded_length() {
        let id = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(PUSH_ID, HeaderValue::from_bytes(value).unwrap());
            push_id(&headers)
        };
        assert_eq!(id(b"p-1"), Some(PushId::from("p-1")));
        assert!(id(&[b'a'; 128]).is_some());
        for unusable in [&b""[..], b"a b", b"a\xc3\xa9", &[b'a'; 129]] {
            assert_eq!(id(unusable), None);
        }
        assert_eq!(push_id(&HeaderMap::new()), None);
    }

    #[test]
    fn only_identity_is_no_encoding() {
        for (value, unencoded) in
            [("identity", true), ("Identity, identity", true), ("", true), ("gzip", false), ("identity, br", false)]
        {
            let headers = HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static(value))]);
            assert_eq!(is_unencoded(&headers), unencoded, "{value}");
        }
    }

    #[test]
    fn a_trace_context_is_kept_only_where_valid() {
        let kept = |text: &str| {
            traceparent(&HeaderMap::from_iter([(
                http::HeaderName::from_static("traceparent"),
                HeaderValue::from_str(text).unwrap(),
            )]))
        };
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(kept(valid).as_deref(), Some(valid));
        for invalid in [
            "",
            "00",
            &valid.to_uppercase(),
            &valid.replace("00-4b", "ff-4b"),
            &valid[..54],
            &format!("{valid}-x"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        ] {
            assert_eq!(kept(invalid), None, "{invalid}");
        }
    }
}
