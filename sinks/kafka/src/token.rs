//! Access tokens for OAUTHBEARER by the client credentials grant, RFC 6749 section 4.4. librdkafka says when it wants one, about
//! when four fifths of the last one's life are over.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rdkafka::client::OAuthToken;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Client, Url, redirect};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use sink_api::{BuildError, Fault};
use tokio::runtime::Handle;

use crate::settings::{Sasl, Settings};

const FETCH_PATIENCE: Duration = Duration::from_secs(10);

/// Of tokens that do not say how long they live.
const LIFE_DEFAULT: Duration = Duration::from_secs(300);

/// A reply is read to here.
const REPLY_BYTES_MAX: usize = 64 << 10;

/// Where tokens come from.
#[derive(Clone)]
pub(crate) struct TokenSettings {
    url: Url,
    client_id: String,
    client_secret: SecretString,
    scope: Option<String>,
    http: Client,
}

/// As [`TokenSettings`], usable by librdkafka's threads.
pub(crate) struct TokenSource {
    settings: TokenSettings,
    runtime: Handle,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    /// Seconds; some servers write them as text.
    expires_in: Option<serde_json::Value>,
}

impl TokenSettings {
    pub(crate) fn of(settings: &Settings) -> Result<Option<Self>, BuildError> {
        let Some(Sasl::OAuthBearer { token_url, client_id, client_secret, scope }) = &settings.sasl else {
            return Ok(None);
        };
        let secret = client_secret.resolve().map_err(|error| BuildError(format!("sasl.client_secret: {error}")))?;
        let url = Url::parse(token_url).map_err(|error| BuildError(format!("sasl.token_url: {error}")))?;
        let http = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .timeout(FETCH_PATIENCE)
            .build()
            .map_err(|_| BuildError("sasl.token_url: no HTTP client can be made".to_owned()))?;
        Ok(Some(Self { url, client_id: client_id.clone(), client_secret: secret, scope: scope.clone(), http }))
    }

    pub(crate) fn source(&self, runtime: Handle) -> TokenSource {
        TokenSource { settings: self.clone(), runtime }
    }

    /// Host and port: a path or a query may be private.
    fn place(&self) -> String {
        format!("{}:{}", self.url.host_str().unwrap_or_default(), self.url.port_or_known_default().unwrap_or_default())
    }

    async fn fetch(&self) -> Result<OAuthToken, Fault> {
        let failed = |code: &'static str, what: &str| Fault::new(code, format!("{} {what}", self.place()));
        // RFC 6749 section 2.3.1: both parts are form-encoded before they become Basic credentials.
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let login = format!("{}:{}", encoded(&self.client_id), encoded(self.client_secret.expose_secret()));
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = &self.scope {
            form.append_pair("scope", scope);
        }
        let request = self
            .http
            .post(self.url.clone())
            .header(AUTHORIZATION, format!("Basic {}", STANDARD.encode(login)))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(form.finish());
        let mut response =
            request.send().await.map_err(|_| failed("token-endpoint", "cannot be reached for a token"))?;
        if !response.status().is_success() {
            let status = response.status();
            let reason = format!("{} refuses a token with {status}", self.place());
            return Err(Fault::new(format!("token-{}", status.as_u16()), reason));
        }
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() > REPLY_BYTES_MAX {
                break;
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        token(&body, &self.client_id, now)
            .ok_or_else(|| failed("token-reply", "answers with something else than a token"))
    }
}

impl TokenSource {
    /// Blocks; for threads of librdkafka.
    pub(crate) fn fetch(&self) -> Result<OAuthToken, Fault> {
        self.runtime.block_on(self.settings.fetch())
    }
}

/// RFC 6749 section 5.1; `now` since 1970.
fn token(body: &[u8], client_id: &str, now: Duration) -> Option<OAuthToken> {
    let granted: Granted = serde_json::from_slice(body).ok()?;
    let life = granted.expires_in.and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
    let ends = now.checked_add(life.map_or(LIFE_DEFAULT, Duration::from_secs))?;
    Some(OAuthToken {
        token: granted.access_token,
        principal_name: client_id.to_owned(),
        lifetime_ms: i64::try_from(ends.as_millis()).unwrap_or(i64::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_ends_when_the_reply_says() {
        let ends = |json: &str| token(json.as_bytes(), "c", Duration::from_secs(1)).map(|token| token.lifetime_ms);
        assert_eq!(ends(r#"{"access_token":"t","expires_in":60}"#), Some(61_000));
        assert_eq!(ends(r#"{"access_token":"t","expires_in":"60"}"#), Some(61_000));
        assert_eq!(ends(r#"{"access_token":"t"}"#), Some(301_000));
        assert_eq!(ends("{}"), None);
    }
}
