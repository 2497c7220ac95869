//! One push, as the contact centre sends it (PROTOCOL.md section 1): the same push id on every attempt, at most so many retries, and
//! nothing but a JSON reply with the number 0 as `ErrCode` is an acknowledgement, whatever the HTTP status.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::Value;

use super::oauth::Tokens;

const PUSH_ID: HeaderName = HeaderName::from_static("x-tccc-push-uuid");

/// Replies are tens of bytes; what goes on for longer is none.
const REPLY_SIZE_MAX: usize = 64 << 10;

/// The end of an error message of the other side is cut, so that a summary stays one.
const MESSAGE_CHARS_MAX: usize = 200;

/// The sending side: connections, address and manners.
#[derive(Debug, Clone)]
pub struct Vendor {
    pub client: Client,
    /// With `action` and `version` in its query.
    pub url: Url,
    /// What every push has beside content type and push id: credentials.
    pub headers: HeaderMap,
    /// Where every push gets a token from, in place of fixed credentials.
    pub tokens: Option<Arc<Tokens>>,
    /// Attempts after the first.
    pub retries: u32,
    pub retry_delay: Duration,
}

/// What became of all attempts at one push.
#[derive(Debug)]
pub struct Attempts {
    pub made: u32,
    /// Whether any of them got an HTTP reply.
    pub answered: bool,
    /// `ErrCode` of the last reply that had one.
    pub err_code: Option<Value>,
    /// Of the last attempt.
    pub result: Result<(), Failure>,
}

/// Why an attempt was no acknowledgement. Shown in the summary of failures; holds nothing of the push, its URL or its credentials.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Failure {
    #[error("not reachable: {0}")]
    NotReachable(String),
    #[error("no reply in time")]
    Timeout,
    #[error("no whole reply: {0}")]
    Broken(String),
    #[error("status {status}, a reply that is not JSON")]
    NotJson { status: u16 },
    #[error("status {status}, a JSON reply without ErrCode")]
    NoErrCode { status: u16 },
    /// Code and message as the other side gave them: the code in JSON, the message without control characters.
    #[error("status {status}, ErrCode {code}{}", message.as_ref().map(|m| format!(": {m}")).unwrap_or_default())]
    Refused { status: u16, code: String, message: Option<String> },
    #[error("no token: {0}")]
    Token(String),
    #[error("interrupted before its reply")]
    Interrupted,
}

/// `{"ErrCode": …, "ErrMsg": …}`, not trusted to have the documented types.
#[derive(Deserialize)]
struct Reply {
    #[serde(rename = "ErrCode")]
    code: Option<Value>,
    #[serde(rename = "ErrMsg")]
    message: Option<Value>,
}

impl Vendor {
    /// Sends a push until it is acknowledged or its retries are used up. Without a push id the header is left out. Total: trouble of
    /// any kind is in the answer.
    pub async fn push(&self, push_id: &HeaderValue, body: &Bytes) -> Attempts {
        let mut attempts = Attempts { made: 0, answered: false, err_code: None, result: Ok(()) };
        loop {
            attempts.made += 1;
            attempts.result = self.attempt(push_id, body, &mut attempts).await;
            if attempts.result.is_ok() || attempts.made > self.retries {
                return attempts;
            }
            tokio::time::sleep(self.retry_delay).await;
        }
    }

    async fn attempt(&self, push_id: &HeaderValue, body: &Bytes, attempts: &mut Attempts) -> Result<(), Failure> {
        let response = match &self.tokens {
            None => self.send(push_id, body, None).await?,
            Some(tokens) => {
                let token = tokens.field(None).await?;
                let response = self.send(push_id, body, Some(&token)).await?;
                if response.status() == StatusCode::UNAUTHORIZED {
                    let another = tokens.field(Some(&token)).await?;
                    self.send(push_id, body, Some(&another)).await?
                } else {
                    response
                }
            }
        };
        attempts.answered = true;
        let status = response.status();
        let reply = read_reply(response).await?;
        let (code, result) = judge(status, &reply);
        attempts.err_code = code.or(attempts.err_code.take());
        result
    }

    async fn send(
        &self,
        push_id: &HeaderValue,
        body: &Bytes,
        token: Option<&HeaderValue>,
    ) -> Result<Response, Failure> {
        let mut request = self
            .client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .header(CONTENT_TYPE, "application/json; charset=utf8")
            .body(body.clone());
        if !push_id.is_empty() {
            request = request.header(PUSH_ID, push_id);
        }
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token);
        }
        request.send().await.map_err(transport_failure)
    }
}

pub async fn read_reply(mut response: Response) -> Result<Bytes, Failure> {
    let mut reply = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(transport_failure)? {
        if reply.len() + chunk.len() > REPLY_SIZE_MAX {
            return Err(Failure::Broken(format!("it is longer than {REPLY_SIZE_MAX} bytes")));
        }
        reply.extend_from_slice(&chunk);
    }
    Ok(reply.freeze())
}

/// Whether a reply is an acknowledgement, and its `ErrCode` as it stands. The string `"0"` is not the number 0.
fn judge(status: StatusCode, reply: &[u8]) -> (Option<Value>, Result<(), Failure>) {
    let status = status.as_u16();
    let Ok(value) = serde_json::from_slice::<Value>(reply) else {
        return (None, Err(Failure::NotJson { status }));
    };
    match serde_json::from_value(value) {
        Ok(Reply { code: Some(code), .. }) if code.as_f64() == Some(0.0) => (Some(code), Ok(())),
        Ok(Reply { code: Some(code), message }) => {
            let failure =
                Failure::Refused { status, code: shown(&code.to_string()), message: message.map(message_text) };
            (Some(code), Err(failure))
        }
        _ => (None, Err(Failure::NoErrCode { status })),
    }
}

fn message_text(message: Value) -> String {
    match message {
        Value::String(text) => shown(&text),
        other => shown(&other.to_string()),
    }
}

/// Text of the other side, safe to show on a terminal.
pub fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect()
}

/// The client library's errors in our words. Their own texts would show the URL, whose query is private.
pub fn transport_failure(error: reqwest::Error) -> Failure {
    if error.is_timeout() {
        return Failure::Timeout;
    }
    let mut cause: &dyn Error = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    match error.source() {
        None => Failure::Broken("the request could not be sent".to_owned()),
        Some(_) if error.is_connect() => Failure::NotReachable(shown(&cause.to_string())),
        Some(_) => Failure::Broken(shown(&cause.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(reply: &str) -> Result<(), Failure> {
        judge(StatusCode::OK, reply.as_bytes()).1
    }

    #[test]
    fn only_the_number_0_is_an_acknowledgement() {
        for reply in [r#"{"ErrCode":0,"ErrMsg":"ok"}"#, r#" { "ErrCode" : 0 } "#, r#"{"ErrCode":0.0,"more":[1]}"#] {
            assert_eq!(judged(reply), Ok(()), "{reply}");
        }
        for reply in [
            r#"{"ErrCode":"0","ErrMsg":"ok"}"#,
            r#"{"ErrCode":1,"ErrMsg":"no"}"#,
            r#"{"ErrCode":null}"#,
            r#"{"ErrCode":false}"#,
            r#"{"errcode":0}"#,
            "[0]",
            "0",
            "ok",
            "",
            r#"{"ErrCode":0}}"#,
        ] {
            assert!(judged(reply).is_err(), "{reply}");
        }
    }

    #[test]
    fn a_refusal_is_shown_with_status_code_and_message() {
        let (code, result) = judge(StatusCode::BAD_REQUEST, br#"{"ErrCode":4002,"ErrMsg":"no\u001b[31m JSON"}"#);
        assert_eq!(code, Some(Value::from(4002)));
        assert_eq!(result.unwrap_err().to_string(), "status 400, ErrCode 4002: no[31m JSON");
        let (_, result) = judge(StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!(result.unwrap_err().to_string(), "status 502, a reply that is not JSON");
    }

    #[test]
    fn the_status_alone_decides_nothing() {
        assert_eq!(judge(StatusCode::INTERNAL_SERVER_ERROR, br#"{"ErrCode":0}"#).1, Ok(()));
    }
}
