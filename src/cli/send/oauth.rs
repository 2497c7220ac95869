//! Tokens for the pushes (RFC 6749 §4.4): fetched with the client's credentials, kept until they end, fetched anew when the receiver
//! does not take them any more.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, RequestBuilder, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::vendor::{Failure, read_reply, shown, transport_failure};

/// A token is not used in its last moments, so that it is still good when it arrives.
const MARGIN: Duration = Duration::from_secs(5);
/// Where the server does not say how long a token is good for.
const ASSUMED_LIFE: Duration = Duration::from_secs(60);

/// How the client shows who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ClientAuth {
    /// In an `Authorization: Basic` header.
    Basic,
    /// As fields of the form.
    Form,
}

/// Where tokens come from. Concurrent pushes share one fetch.
#[derive(Debug)]
pub struct Tokens {
    pub client: Client,
    pub url: Url,
    pub client_id: String,
    pub client_secret: SecretString,
    pub client_auth: ClientAuth,
    pub cached: Mutex<Option<Token>>,
}

#[derive(Debug)]
pub struct Token {
    field: HeaderValue,
    ends: Instant,
}

/// `{"access_token": …, "expires_in": …}`, or `{"error": …}`.
#[derive(Deserialize)]
struct Reply {
    access_token: Option<String>,
    token_type: Option<String>,
    expires_in: Option<f64>,
    error: Option<String>,
}

impl Tokens {
    /// The `Authorization` field of a push; another than `refused`.
    pub async fn field(&self, refused: Option<&HeaderValue>) -> Result<HeaderValue, Failure> {
        let mut cached = self.cached.lock().await;
        if let Some(token) = &*cached
            && token.ends > Instant::now()
            && Some(&token.field) != refused
        {
            return Ok(token.field.clone());
        }
        let token = self.fetch().await?;
        Ok(cached.insert(token).field.clone())
    }

    async fn fetch(&self) -> Result<Token, Failure> {
        let asked = Instant::now();
        let response = self.request().send().await.map_err(no_token)?;
        let status = response.status();
        let reply: Option<Reply> = serde_json::from_slice(&read_reply(response).await?).ok();
        match reply {
            Some(Reply { access_token: Some(token), token_type, expires_in, .. }) if status.is_success() => {
                if token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
                    return Err(Failure::Token("the token is no bearer token".to_owned()));
                }
                let life = expires_in.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                let ends = asked.checked_add(life.unwrap_or(ASSUMED_LIFE).saturating_sub(MARGIN)).unwrap_or(asked);
                Ok(Token { field: bearer(&token)?, ends })
            }
            Some(Reply { error: Some(error), .. }) => {
                Err(Failure::Token(format!("status {}, {}", status.as_u16(), shown(&error))))
            }
            _ => Err(Failure::Token(format!("status {}, a reply without a token", status.as_u16()))),
        }
    }

    /// The request of §4.4.2.
    fn request(&self) -> RequestBuilder {
        let (id, secret) = (&*self.client_id, self.client_secret.expose_secret());
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        let mut request = self.client.post(self.url.clone());
        match self.client_auth {
            ClientAuth::Form => {
                form.append_pair("client_id", id).append_pair("client_secret", secret);
            }
            ClientAuth::Basic => request = request.header(AUTHORIZATION, basic(id, secret)),
        }
        request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.finish())
    }
}

fn no_token(error: reqwest::Error) -> Failure {
    Failure::Token(transport_failure(error).to_string())
}

fn bearer(token: &str) -> Result<HeaderValue, Failure> {
    let mut field = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| Failure::Token("the token cannot stand in a header".to_owned()))?;
    field.set_sensitive(true);
    Ok(field)
}

/// Id and secret are form-encoded first (RFC 6749 §2.3.1).
fn basic(id: &str, secret: &str) -> HeaderValue {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = BASE64_STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret)));
    let mut field = HeaderValue::from_str(&format!("Basic {pair}")).expect("base64 is visible ASCII");
    field.set_sensitive(true);
    field
}
