//! Judges credentials: HTTP Basic, bearer tokens of our own or of a foreign provider, or none.
//!
//! Promises: whoever is not let in learns that, and nothing of why; right credentials pass however many wrong ones come; a token is
//! verified without asking anybody, so any replica can. Refuses: algorithms that a token chooses for itself, keys that it brings
//! along, and credentials in the URI.
//!
//! In reading order: [`basic`]; [`token_endpoint`] gives out [`tokens`] of our own; [`jwt`] judges those of a foreign provider with
//! the keys that [`jwks`] keeps; [`verified`] remembers which tokens were found good.

pub mod basic;
pub mod token_endpoint;
pub mod tokens;
pub mod jwt;
mod jwks;
mod verified;

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sink_api::settings::SecretError;

use self::basic::Basic;
use self::jwks::JwksError;
use self::jwt::Jwt;
use self::token_endpoint::Client;
use self::tokens::{KeyError, Tokens};
use crate::config::model;
use crate::names::SourceName;

type Digest = [u8; 32];

/// What a source asks of its sender.
pub enum Auth {
    None,
    Basic(Basic),
    OAuth2(OAuth2),
    Jwt(Jwt),
}

/// Tokens, and the client that may fetch them.
pub struct OAuth2 {
    pub client: Client,
    pub tokens: Tokens,
}

/// Credentials cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("signing_key: {0}")]
    SigningKey(#[from] KeyError),
    #[error(transparent)]
    Jwks(#[from] JwksError),
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No credentials at all.
    Missing,
    /// Wrong ones, or some of another kind than is asked for.
    Wrong,
    /// A token that was good once. Nobody is guessing, its sender has only to fetch another.
    Expired,
}

/// What a refused sender is told to come with, in `WWW-Authenticate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    Bearer,
    /// A bearer token, another than the one that came (RFC 6750 §3.1).
    AnotherBearer,
}

impl Failure {
    /// As in [`crate::metrics::AUTH_FAILURES`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Wrong => "wrong",
            Self::Expired => "expired",
        }
    }
}

impl Challenge {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Basic => r#"Basic realm="trunkline", charset="UTF-8""#,
            Self::Bearer => r#"Bearer realm="trunkline""#,
            Self::AnotherBearer => r#"Bearer realm="trunkline", error="invalid_token""#,
        }
    }
}

impl Auth {
    /// Resolves secrets, and reads a file of keys. Keys that are fetched are taken over from `former` where that has them, and else
    /// are there once [`Self::keep_fresh`] has run.
    pub fn new(config: &model::Auth, source: &SourceName, former: Option<&Self>) -> Result<Self, AuthError> {
        Ok(match config {
            model::Auth::None => Self::None,
            model::Auth::Basic { username, password } => Self::Basic(Basic::new(username, password)?),
            model::Auth::OAuth2(config) => {
                let secrets = config.client_secret.0.iter().map(|secret| secret.resolve());
                let secrets = secrets.collect::<Result<Vec<_>, _>>()?;
                let tokens = match &config.signing_key {
                    Some(key) => Tokens::signed_with(&key.resolve()?, config.token_ttl.0, source)?,
                    None => Tokens::derived_from(&secrets, config.token_ttl.0, source),
                };
                Self::OAuth2(OAuth2 { client: Client::new(&config.client_id, &secrets), tokens })
            }
            model::Auth::Jwt(config) => {
                let former = match former {
                    Some(Self::Jwt(jwt)) => Some(jwt),
                    _ => None,
                };
                Self::Jwt(Jwt::new(config, former)?)
            }
        })
    }

    /// Whether a request with these header fields is let in. Waits for nothing but the keys of a foreign provider, for at most a few
    /// seconds, when a token names a key that is not known.
    pub async fn check(&self, headers: &HeaderMap) -> Result<(), Failure> {
        match self {
            Self::None => Ok(()),
            Self::Basic(basic) => basic.check(headers),
            Self::OAuth2(oauth2) => oauth2.tokens.check(credentials(headers, "bearer")?, unix_now()),
            Self::Jwt(jwt) => jwt.check(credentials(headers, "bearer")?, unix_now()).await,
        }
    }

    /// What to tell a sender that failed.
    pub fn challenge(&self, failure: Failure) -> Challenge {
        match (self, failure) {
            (Self::None | Self::Basic(_), _) => Challenge::Basic,
            (_, Failure::Missing) => Challenge::Bearer,
            (_, Failure::Wrong | Failure::Expired) => Challenge::AnotherBearer,
        }
    }

    /// Keeps the keys of a foreign provider fresh; ends at once where there are none to keep, else never.
    pub async fn keep_fresh(&self, source: &SourceName) {
        if let Self::Jwt(jwt) = self {
            jwt.keep_fresh(source).await;
        }
    }
}

/// What follows the word `scheme`, which is compared without case, in the `Authorization` field.
fn credentials<'a>(headers: &'a HeaderMap, scheme: &str) -> Result<&'a [u8], Failure> {
    let given = headers.get(AUTHORIZATION).ok_or(Failure::Missing)?.as_bytes();
    let (word, rest) = given.split_at_checked(scheme.len()).ok_or(Failure::Wrong)?;
    match rest.split_first() {
        Some((b' ', rest)) if word.eq_ignore_ascii_case(scheme.as_bytes()) => Ok(rest.trim_ascii()),
        _ => Err(Failure::Wrong),
    }
}

fn sha256(bytes: &[u8]) -> Digest {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
