//! The body that is sent: read once, bounded, and as it is unless sessions were asked for.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Far more than any gateway takes, so that "too large" can be tried; yet not the whole memory.
const SIZE_MAX: u64 = 64 << 20;

/// Why there is no body to send.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("name a file, or pipe the body in: standard input is a terminal")]
    Terminal,
    #[error("{} cannot be read: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("the body is larger than {SIZE_MAX} bytes")]
    TooLarge,
    #[error("--sessions needs a body that is a JSON object with a string \"SessionId\"")]
    NoSession,
}

/// What every push of one command carries.
#[derive(Debug, Clone)]
pub struct Body {
    bytes: Bytes,
    session: Option<Session>,
    /// In how many sessions the pushes are; 0 leaves the body as it is.
    sessions: u64,
}

/// The session id inside the body.
#[derive(Debug, Clone, PartialEq)]
struct Session {
    id: String,
    /// Where its text stands, without the quotes.
    text: Range<usize>,
}

impl Body {
    /// Reads `path`, or standard input where it is absent or `-`.
    pub fn read(path: Option<&Path>) -> Result<Self, BodyError> {
        let path = path.unwrap_or(Path::new("-"));
        let unreadable = |error| BodyError::Unreadable { path: path.to_owned(), error };
        let mut bytes = Vec::new();
        if path == Path::new("-") {
            if io::stdin().is_terminal() {
                return Err(BodyError::Terminal);
            }
            io::stdin().lock().take(SIZE_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        } else {
            let file = File::open(path).map_err(unreadable)?;
            file.take(SIZE_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        }
        if bytes.len() as u64 > SIZE_MAX {
            return Err(BodyError::TooLarge);
        }
        Ok(Self::new(bytes.into()))
    }

    pub fn new(bytes: Bytes) -> Self {
        Self { session: find_session(&bytes), bytes, sessions: 0 }
    }

    /// Spreads the pushes over `sessions` sessions.
    pub fn spread(mut self, sessions: u64) -> Result<Self, BodyError> {
        if self.session.is_none() {
            return Err(BodyError::NoSession);
        }
        self.sessions = sessions;
        Ok(self)
    }

    /// What is wrong with it as a push: it is sent nonetheless. Never quotes the body.
    pub fn warning(&self) -> Option<String> {
        // The text first: what is skipped in bytes is not checked to be UTF-8.
        let Ok(text) = str::from_utf8(&self.bytes) else { return Some("the body is not UTF-8".to_owned()) };
        match serde_json::from_str::<IgnoredAny>(text) {
            Err(error) => Some(format!("the body is not JSON: {error}")),
            Ok(_) if first_byte(&self.bytes) != Some(b'{') => Some("the body is JSON but not an object".to_owned()),
            Ok(_) => None,
        }
    }

    /// The body of the push with this number, and its session id.
    pub fn of_push(&self, number: u64) -> (Bytes, Option<String>) {
        let Some(session) = &self.session else { return (self.bytes.clone(), None) };
        if self.sessions == 0 {
            return (self.bytes.clone(), Some(session.id.clone()));
        }
        let suffix = format!("-{}", number % self.sessions);
        let (head, tail) = self.bytes.split_at(session.text.end);
        ([head, suffix.as_bytes(), tail].concat().into(), Some(format!("{}{suffix}", session.id)))
    }
}

fn first_byte(json: &[u8]) -> Option<u8> {
    json.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

/// The last top-level `SessionId`, as a receiver reads it (PROTOCOL.md section 4, number 2), where it is a string.
fn find_session(body: &[u8]) -> Option<Session> {
    let text = str::from_utf8(body).ok()?;
    let raw = serde_json::Deserializer::from_str(text).deserialize_map(LastSessionId).ok()??;
    let id = serde_json::from_str(raw.get()).ok()?;
    // `raw` is borrowed from `text`, so that the distance of their addresses is its place.
    let start = raw.get().as_ptr() as usize - text.as_ptr() as usize;
    Some(Session { id, text: start + 1..start + raw.get().len() - 1 })
}

struct LastSessionId;

impl<'de> Visitor<'de> for LastSessionId {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            let value: &'de RawValue = map.next_value().map_err(de::Error::custom)?;
            if key == "SessionId" {
                found = Some(value);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &'static str) -> Body {
        Body::new(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn without_sessions_the_body_is_sent_byte_for_byte() {
        let text = "{ \"SessionId\" : \"s\\u0031\",\n \"Duration\":1 , \"Duration\":2}\n";
        assert_eq!(body(text).of_push(3), (Bytes::from_static(text.as_bytes()), Some("s1".to_owned())));
    }

    #[test]
    fn sessions_change_the_session_id_and_nothing_else() {
        let body =
            body(r#"{"a":{"SessionId":"inner"},"SessionId":"first","SessionId":"s\"1","n":1.0}"#).spread(2).unwrap();
        let (bytes, session) = body.of_push(5);
        assert_eq!(bytes, &br#"{"a":{"SessionId":"inner"},"SessionId":"first","SessionId":"s\"1-1","n":1.0}"#[..]);
        assert_eq!(session.as_deref(), Some("s\"1-1"));
        assert_eq!(body.of_push(7).1, session);
        assert_ne!(body.of_push(6).1, session);
    }

    #[test]
    fn sessions_need_a_string_to_replace() {
        for text in ["", "[]", "{}", r#"{"SessionId":7}"#, r#"{"a":{"SessionId":"x"}}"#] {
            assert!(matches!(body(text).spread(2), Err(BodyError::NoSession)), "{text}");
        }
    }

    #[test]
    fn what_is_no_push_is_warned_about() {
        assert_eq!(body(" {\"SessionId\":\"s\"}\n").warning(), None);
        assert!(body("{\"Caller\":\"0086138").warning().unwrap().starts_with("the body is not JSON"));
        assert!(!body("{\"Caller\":0086138").warning().unwrap().contains("0086138"));
        assert!(body("[1]").warning().unwrap().contains("not an object"));
        assert!(Body::new(Bytes::from_static(b"{\"a\":\"\xff\"}")).warning().is_some());
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Body::read(Some(Path::new("no-such-file.json"))).unwrap_err();
        assert!(error.to_string().starts_with("no-such-file.json cannot be read"), "{error}");
    }
}
