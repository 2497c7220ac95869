//! The public keys of a foreign provider: a JWK Set (RFC 7517 §5) from a file or a URL, kept fresh.
//!
//! Promises: a key that is new at the provider is known within a minute; a set that cannot be had, or holds nothing usable, leaves
//! the earlier one in use; at most one fetch is under way, and at most one a second begins, however many tokens name unknown keys;
//! nobody who needs a known key waits for it. Refuses: symmetric keys, sets past [`SET_SIZE_MAX`], redirects.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use reqwest::{Client, Url, redirect};
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::verified::Verified;
use super::{Digest, sha256};
use crate::config::model;
use crate::names::SourceName;

/// In bytes.
const SET_SIZE_MAX: usize = 1 << 20;
const KEYS_MAX: usize = 256;
const FETCH_EVERY: Duration = Duration::from_secs(30);
const READ_EVERY: Duration = Duration::from_secs(5);
/// After a failure.
const TRY_EVERY: Duration = Duration::from_secs(5);
/// Between two beginnings, whatever is asked for.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a token with an unknown key waits for the next set.
const PATIENCE: Duration = Duration::from_secs(3);

/// A set of keys cannot be had. Shows no more of a URL than its host.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    #[error("the keys in {} cannot be read: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error("the keys cannot be fetched from {host}: {cause}")]
    Fetch { host: String, cause: String },
    #[error("the set of keys is larger than {SET_SIZE_MAX} bytes")]
    TooLarge,
    #[error("this is no JSON Web Key Set")]
    NotASet,
    #[error("the set holds no key that signatures can be checked with")]
    NoKey,
    #[error("no keys can be fetched: {0}")]
    Client(reqwest::Error),
}

/// The keys in use, and where they come from.
pub struct Jwks {
    place: Place,
    keys: ArcSwap<KeySet>,
    /// Somebody met a token with an unknown key.
    wanted: Notify,
    /// Counts attempts that have ended.
    tried: watch::Sender<u64>,
}

enum Place {
    File(PathBuf),
    Url { url: Url, client: Client },
}

/// Keys, and the tokens that were found good under them.
#[derive(Default)]
pub struct KeySet {
    keys: Vec<Key>,
    document: Digest,
    pub verified: Verified,
}

struct Key {
    id: Option<String>,
    /// The signatures it may make.
    algorithms: Vec<Algorithm>,
    verifying: DecodingKey,
}

/// Why a set has no key for a token.
#[derive(Debug, PartialEq, Eq)]
pub enum NoKey {
    /// A newer set may have it.
    Unknown,
    /// No set will: the key that is named does not go with the algorithm, or none is named among several.
    Unfit,
}

impl Jwks {
    /// Reads a file; a URL is fetched by [`Self::keep_fresh`].
    pub fn open(config: &model::Jwt) -> Result<Self, JwksError> {
        let (place, keys) = match (&config.jwks_file, &config.jwks_url) {
            (Some(path), _) => {
                let path = path.clone();
                let document = std::fs::read(&path).map_err(|error| JwksError::File { path: path.clone(), error })?;
                (Place::File(path), KeySet::read(&document)?)
            }
            (None, url) => {
                let url: Option<Url> = url.as_ref().and_then(|url| url.parse().ok());
                let url = url.expect("a checked config has a file or a URL of keys");
                let client = client(&url).map_err(JwksError::Client)?;
                (Place::Url { url, client }, KeySet::default())
            }
        };
        Ok(Self { place, keys: ArcSwap::from_pointee(keys), wanted: Notify::new(), tried: watch::Sender::new(0) })
    }

    pub fn is_of(&self, config: &model::Jwt) -> bool {
        match &self.place {
            Place::File(path) => config.jwks_file.as_ref() == Some(path),
            Place::Url { url, .. } => {
                config.jwks_file.is_none()
                    && config.jwks_url.as_ref().is_some_and(|other| other.parse() == Ok(url.clone()))
            }
        }
    }

    pub fn keys(&self) -> Arc<KeySet> {
        self.keys.load_full()
    }

    /// Asks for a newer set and waits until one was tried for, or not much longer.
    pub async fn ask_again(&self) {
        let mut tried = self.tried.subscribe();
        self.wanted.notify_one();
        let _late = timeout(PATIENCE, tried.changed()).await;
    }

    /// Keeps the set fresh, for ever. Whoever polls this is the one fetch that is under way.
    pub async fn keep_fresh(&self, source: &SourceName) {
        let mut is_failing = false;
        loop {
            let begun = Instant::now();
            let outcome = self.load().await;
            self.tried.send_modify(|attempts| *attempts += 1);
            match &outcome {
                Ok(()) if is_failing => tracing::info!(%source, "keys of the identity provider can be had again"),
                Err(error) if !is_failing => {
                    tracing::warn!(%source, %error, "no keys of the identity provider, those known stay in use");
                }
                _ => {}
            }
            is_failing = outcome.is_err();
            let pause = match &self.place {
                _ if is_failing => TRY_EVERY,
                Place::File(_) => READ_EVERY,
                Place::Url { .. } => FETCH_EVERY,
            };
            sleep_until(begun + PAUSE_MIN).await;
            let _nobody_asked = timeout(pause, self.wanted.notified()).await;
        }
    }

    async fn load(&self) -> Result<(), JwksError> {
        let document = match &self.place {
            Place::File(path) => {
                tokio::fs::read(path).await.map_err(|error| JwksError::File { path: path.clone(), error })?
            }
            Place::Url { url, client } => fetch(client, url).await?,
        };
        // The same set keeps what is remembered of it.
        if self.keys.load().document != sha256(&document) {
            self.keys.store(Arc::new(KeySet::read(&document)?));
        }
        Ok(())
    }
}

fn client(url: &Url) -> Result<Client, reqwest::Error> {
    let builder = Client::builder()
        .user_agent(concat!("trunkline/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .redirect(redirect::Policy::none())
        .timeout(FETCH_TIMEOUT);
    // Works on a machine without any CA certificates too.
    let builder = if url.scheme() == "http" { builder.tls_certs_only([]) } else { builder };
    builder.build()
}

async fn fetch(client: &Client, url: &Url) -> Result<Vec<u8>, JwksError> {
    let failed = |cause: String| JwksError::Fetch { host: url.host_str().unwrap_or_default().to_owned(), cause };
    let broken = |error: reqwest::Error| failed(innermost(&error.without_url()));
    let mut response = client.get(url.clone()).send().await.map_err(broken)?;
    if !response.status().is_success() {
        return Err(failed(format!("status {}", response.status().as_u16())));
    }
    let mut document = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if document.len() + chunk.len() > SET_SIZE_MAX {
            return Err(JwksError::TooLarge);
        }
        document.extend_from_slice(&chunk);
    }
    Ok(document)
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

impl KeySet {
    /// Reads a set. Keys that we cannot use are passed over (RFC 7517 §5).
    fn read(document: &[u8]) -> Result<Self, JwksError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        if document.len() > SET_SIZE_MAX {
            return Err(JwksError::TooLarge);
        }
        let set: Set = serde_json::from_slice(document).map_err(|_| JwksError::NotASet)?;
        let keys: Vec<Key> = set.keys.into_iter().filter_map(Key::read).take(KEYS_MAX).collect();
        if keys.is_empty() {
            return Err(JwksError::NoKey);
        }
        Ok(Self { keys, document: sha256(document), verified: Verified::default() })
    }

    /// The key for a token: the one that it names, or where it names none, the only one for its algorithm.
    pub fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&DecodingKey, NoKey> {
        let fits = |key: &&Key| key.algorithms.contains(&algorithm);
        let Some(id) = id else {
            let mut fitting = self.keys.iter().filter(fits);
            return match (fitting.next(), fitting.next()) {
                (Some(key), None) => Ok(&key.verifying),
                (Some(_), Some(_)) => Err(NoKey::Unfit),
                (None, _) => Err(NoKey::Unknown),
            };
        };
        let mut named = self.keys.iter().filter(|key| key.id.as_deref() == Some(id)).peekable();
        let missing = if named.peek().is_some() { NoKey::Unfit } else { NoKey::Unknown };
        named.find(fits).map(|key| &key.verifying).ok_or(missing)
    }
}

impl Key {
    fn read(value: serde_json::Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let is_for_signatures = jwk.common.public_key_use.as_ref().is_none_or(|it| *it == PublicKeyUse::Signature)
            && jwk.common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => vec![
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => vec![Algorithm::ES256],
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => vec![Algorithm::ES384],
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
            _ => Vec::new(),
        };
        if let Some(only) = jwk.common.key_algorithm {
            algorithms.retain(|algorithm| Algorithm::try_from(only).as_ref() == Ok(algorithm));
        }
        let verifying = DecodingKey::from_jwk(&jwk).ok()?;
        let is_usable = is_for_signatures && !algorithms.is_empty();
        is_usable.then_some(Self { id: jwk.common.key_id, algorithms, verifying })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn set(keys: &str) -> Result<KeySet, JwksError> {
        KeySet::read(format!(r#"{{"keys":[{keys}]}}"#).as_bytes())
    }

    fn ed(more: &str) -> String {
        format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{X}"{more}}}"#)
    }

    #[test]
    fn keys_that_cannot_check_a_signature_are_passed_over() {
        for useless in [
            r#"{"kty":"oct","k":"c2VjcmV0"}"#.to_owned(),
            r#"{"kty":"oct","k":"c2VjcmV0","alg":"EdDSA"}"#.to_owned(),
            r#"{"kty":"OKP","crv":"X25519","x":"AAAA"}"#.to_owned(),
            r#"{"kty":"new"}"#.to_owned(),
            "7".to_owned(),
            ed(r#","use":"enc""#),
            ed(r#","key_ops":["sign"]"#),
            ed(r#","alg":"RS256""#),
        ] {
            assert!(matches!(set(&useless), Err(JwksError::NoKey)), "{useless}");
            assert_eq!(set(&format!("{useless},{}", ed(""))).unwrap().keys.len(), 1, "{useless}");
        }
        assert!(matches!(KeySet::read(b"[]"), Err(JwksError::NotASet)));
        assert!(matches!(KeySet::read(&vec![b' '; SET_SIZE_MAX + 1]), Err(JwksError::TooLarge)));
    }

    #[test]
    fn a_key_is_found_by_its_name_or_where_it_is_alone() {
        let one = set(&ed(r#","kid":"a""#)).unwrap();
        assert!(one.find(Some("a"), Algorithm::EdDSA).is_ok());
        assert!(one.find(None, Algorithm::EdDSA).is_ok());
        assert_eq!(one.find(Some("b"), Algorithm::EdDSA).err(), Some(NoKey::Unknown));
        assert_eq!(one.find(Some("a"), Algorithm::RS256).err(), Some(NoKey::Unfit));
        assert_eq!(one.find(None, Algorithm::RS256).err(), Some(NoKey::Unknown));
        let two = set(&format!("{},{}", ed(r#","kid":"a""#), ed(r#","kid":"b""#))).unwrap();
        assert_eq!(two.find(None, Algorithm::EdDSA).err(), Some(NoKey::Unfit));
        assert!(KeySet::default().find(None, Algorithm::EdDSA).is_err());
    }
}
