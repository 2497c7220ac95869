//! The receiver: turns messages into requests with signature and credentials, and replies into outcomes.

use std::sync::Arc;
use std::time::SystemTime;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Request, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use sink_api::http::Lookup;
use sink_api::settings::Secret;
use sink_api::{BuildError, Fault, Outcome};
use tokio::sync::Mutex;

use crate::address::Address;
use crate::client::Client;
use crate::error::{Error, Reply};
use crate::headers;
use crate::message::Message;
use crate::settings::{Auth, Settings};
use crate::signature::{Signer, signatures};
use crate::token::TokenSource;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

pub(crate) struct Target {
    address: Address,
    /// `host:port`, for messages.
    place: String,
    headers: HeaderMap,
    signers: Vec<Signer>,
    tokens: Option<TokenSource>,
    client: Client,
}

impl Target {
    /// Resolves secrets and reads certificates; connects nowhere.
    pub(crate) fn new(settings: &Settings, lookup: Arc<dyn Lookup>) -> Result<Self, BuildError> {
        let url = resolved("url", &settings.url)?;
        let address = Address::parse(url.expose_secret()).map_err(|wrong| BuildError(format!("url: {wrong}")))?;
        let tokens = tokens(settings.auth.as_ref())?;
        let has_credentials = settings.auth.is_some() || address.credentials.is_some();
        if settings.auth.is_some() && address.credentials.is_some() {
            return Err(BuildError("auth: the url holds credentials already; leave one of the two out".to_owned()));
        }
        let authorization = authorization(settings.auth.as_ref(), &address)?;
        let is_https = |address: &Address| address.url.scheme() == "https";
        let any_https = is_https(&address) || tokens.as_ref().is_some_and(|tokens| is_https(&tokens.address));
        Ok(Self {
            place: address.host_and_port(),
            headers: headers::common(&settings.headers, authorization, has_credentials)?,
            signers: signers(&settings.signing_secret.0)?,
            client: Client::new(settings, any_https, lookup)?,
            tokens,
            address,
        })
    }

    /// Posts `message` and says what that means for the events in it.
    pub(crate) async fn post(&self, message: &Message) -> Outcome {
        let Ok(id) = HeaderValue::from_str(&message.id) else {
            return Outcome::rejected(Fault::new("bad-id", "the event's id cannot stand in a header"));
        };
        match self.exchange(|| self.request(message, &id)).await {
            Ok(reply) => reply.outcome(&self.place),
            Err(error @ Error::Lost { .. }) => self.lost(error).await,
            Err(error) => error.into(),
        }
    }

    /// A connection that is lost before the reply does not say why. Where the receiver cannot be reached either, it is away; where it
    /// can, it may have choked on this event.
    async fn lost(&self, error: Error) -> Outcome {
        match self.exchange(|| self.options()).await {
            Err(away) if !matches!(away, Error::Lost { .. }) => Outcome::unavailable(away.into()),
            _ => error.into(),
        }
    }

    /// Asks for the receiver's options, which changes nothing there. Any reply shows that it can be reached, since few receivers know
    /// the method; but for those by which a proxy says that nobody is behind it.
    pub(crate) async fn probe(&self) -> Result<(), Fault> {
        let reply = self.exchange(|| self.options()).await?;
        match reply.outcome(&self.place) {
            Outcome::Retry { fault, .. } if matches!(reply.status.as_u16(), 502..=504) => Err(fault),
            _ => Ok(()),
        }
    }

    pub(crate) fn close(&self) {
        self.client.close();
    }

    /// Sends a request. A token that is refused may have been withdrawn before its end, so one refusal leads to a fresh one.
    async fn exchange(&self, request: impl Fn() -> Request) -> Result<Reply, Error> {
        let Some(tokens) = &self.tokens else {
            return self.client.send(&self.address, request()).await;
        };
        let with_token = |token: &HeaderValue| {
            let mut request = request();
            request.headers_mut().insert(AUTHORIZATION, token.clone());
            request
        };
        let token = tokens.authorization(&self.client, None).await?;
        let reply = self.client.send(&self.address, with_token(&token)).await?;
        if reply.status != StatusCode::UNAUTHORIZED {
            return Ok(reply);
        }
        let fresh = tokens.authorization(&self.client, Some(&token)).await?;
        self.client.send(&self.address, with_token(&fresh)).await
    }

    fn options(&self) -> Request {
        let mut request = Request::new(Method::OPTIONS, self.address.url.clone());
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// The time is that of this try: a receiver refuses signatures of long ago.
    fn request(&self, message: &Message, id: &HeaderValue) -> Request {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut request = Request::new(Method::POST, self.address.url.clone());
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        headers.extend(message.headers.clone());
        headers.insert(ID, id.clone());
        headers.insert(TIMESTAMP, HeaderValue::from(now));
        if !self.signers.is_empty() {
            let signatures = signatures(&self.signers, &message.id, now, &message.body);
            headers.insert(SIGNATURE, HeaderValue::from_str(&signatures).expect("base64, commas and spaces"));
        }
        *request.body_mut() = Some(message.body.clone().into());
        request
    }
}

fn resolved(path: &str, secret: &Secret) -> Result<SecretString, BuildError> {
    secret.resolve().map_err(|error| BuildError(format!("{path}: {error}")))
}

fn authorization(auth: Option<&Auth>, address: &Address) -> Result<Option<HeaderValue>, BuildError> {
    match auth {
        None => Ok(address.credentials.as_ref().map(|(user, password)| headers::basic(user, password))),
        Some(Auth::Basic { username, password }) => {
            Ok(Some(headers::basic(username, &resolved("auth.password", password)?)))
        }
        Some(Auth::Bearer { token }) => {
            let value = headers::bearer(&resolved("auth.token", token)?);
            let wrong = || BuildError("auth.token: holds characters that a header cannot".to_owned());
            value.ok_or_else(wrong).map(Some)
        }
        Some(Auth::OAuth2 { .. }) => Ok(None),
    }
}

fn tokens(auth: Option<&Auth>) -> Result<Option<TokenSource>, BuildError> {
    let Some(Auth::OAuth2 { token_url, client_id, client_secret, scope }) = auth else { return Ok(None) };
    Ok(Some(TokenSource {
        address: Address::parse(token_url).map_err(|wrong| BuildError(format!("auth.token_url: {wrong}")))?,
        client_id: client_id.clone(),
        client_secret: resolved("auth.client_secret", client_secret)?,
        scope: scope.clone(),
        kept: Mutex::new(None),
    }))
}

fn signers(secrets: &[Secret]) -> Result<Vec<Signer>, BuildError> {
    let signer = |(number, secret)| {
        let path = "signing_secret";
        Signer::parse(&resolved(path, secret)?).map_err(|wrong| BuildError(format!("{path}: number {number} {wrong}")))
    };
    (1..).zip(secrets).map(signer).collect()
}
