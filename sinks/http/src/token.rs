//! Access tokens by the client credentials grant, RFC 6749 section 4.4: fetched when first needed, kept until shortly before they
//! end, and fetched anew when the receiver refuses one.

use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use reqwest::{Method, Request, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::address::Address;
use crate::client::Client;
use crate::error::{Error, Reply};
use crate::headers;

/// A token is not used in the last tenth of its life, at most for so long.
const MARGIN_MAX: Duration = Duration::from_secs(30);

/// RFC 6749 section 5.2. No other text of a refusal is repeated.
const ERRORS: [&str; 6] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
];

/// Where tokens come from.
pub(crate) struct TokenSource {
    pub address: Address,
    pub client_id: String,
    pub client_secret: SecretString,
    pub scope: Option<String>,
    /// Held while a token is fetched, so that one is fetched for all who wait.
    pub kept: Mutex<Option<Token>>,
}

pub(crate) struct Token {
    authorization: HeaderValue,
    /// `None`: until it is refused.
    renew_at: Option<Instant>,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    token_type: Option<String>,
    /// Seconds; some servers write them as text.
    expires_in: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

impl TokenSource {
    /// The value of `Authorization`. `refused` is one that the receiver did not take: it is not given again.
    pub(crate) async fn authorization(
        &self,
        client: &Client,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue, Error> {
        let mut kept = self.kept.lock().await;
        if let Some(token) = &*kept
            && token.renew_at.is_none_or(|at| Instant::now() < at)
            && refused != Some(&token.authorization)
        {
            return Ok(token.authorization.clone());
        }
        *kept = None;
        let token = self.fetch(client).await?;
        let authorization = token.authorization.clone();
        *kept = Some(token);
        Ok(authorization)
    }

    async fn fetch(&self, client: &Client) -> Result<Token, Error> {
        let asked_at = Instant::now();
        let (reply, body) = match client.fetch(&self.address, self.request()).await {
            Ok(answer) => answer,
            Err(error) => return Err(Error::NoToken(Box::new(error))),
        };
        if reply.status != StatusCode::OK {
            return Err(self.refused(&reply, &body));
        }
        token(&body, asked_at).ok_or_else(|| Error::TokenReply { place: self.address.host_and_port() })
    }

    fn request(&self) -> Request {
        // RFC 6749 section 2.3.1: both parts are form-encoded before they become Basic credentials.
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let secret = SecretString::from(encoded(self.client_secret.expose_secret()));
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = &self.scope {
            form.append_pair("scope", scope);
        }
        let mut request = Request::new(Method::POST, self.address.url.clone());
        *request.headers_mut() = HeaderMap::from_iter([
            (AUTHORIZATION, headers::basic(&encoded(&self.client_id), &secret)),
            (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
            (ACCEPT, HeaderValue::from_static("application/json")),
            (USER_AGENT, headers::OURS),
        ]);
        *request.body_mut() = Some(form.finish().into());
        request
    }

    fn refused(&self, reply: &Reply, body: &[u8]) -> Error {
        let said = serde_json::from_slice::<Refusal>(body).ok();
        let error = said.and_then(|said| ERRORS.into_iter().find(|known| *known == said.error));
        Error::TokenRefused { place: self.address.host_and_port(), status: reply.status, error }
    }
}

/// RFC 6749 section 5.1. None where the reply is not a usable bearer token.
fn token(body: &[u8], asked_at: Instant) -> Option<Token> {
    let granted: Granted = serde_json::from_slice(body).ok()?;
    let is_bearer = granted.token_type.is_none_or(|kind| kind.eq_ignore_ascii_case("bearer"));
    let authorization = headers::bearer(&granted.access_token.into()).filter(|_| is_bearer)?;
    let life = granted.expires_in.and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
    let life = life.map(Duration::from_secs);
    let renew_at = life.and_then(|life| asked_at.checked_add(life - MARGIN_MAX.min(life / 10)));
    Some(Token { authorization, renew_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_shortly_before_its_end() {
        let now = Instant::now();
        let life = |json: &str| token(json.as_bytes(), now).unwrap().renew_at.map(|at| (at - now).as_secs());
        assert_eq!(life(r#"{"access_token":"t","token_type":"Bearer","expires_in":3600}"#), Some(3570));
        assert_eq!(life(r#"{"access_token":"t","token_type":"bearer","expires_in":"100"}"#), Some(90));
        assert_eq!(life(r#"{"access_token":"t"}"#), None);
        assert_eq!(life(r#"{"access_token":"t","expires_in":18446744073709551615}"#), None);
    }

    #[test]
    fn what_is_not_a_bearer_token_is_not_used() {
        for json in [
            "",
            "{}",
            "[]",
            r#"{"access_token":"t","token_type":"mac"}"#,
            r#"{"access_token":"a\nb","token_type":"bearer"}"#,
            r#"{"access_token":1}"#,
        ] {
            assert!(token(json.as_bytes(), Instant::now()).is_none(), "{json}");
        }
    }
}
