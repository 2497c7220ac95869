//! Tokens of a foreign identity provider (RFC 7519, with the cautions of RFC 8725).
//!
//! The config says which algorithms are taken and the provider which keys there are; a token only names one of each. `iss` and
//! `aud` must be ours, `exp` must be there, and `exp` and `nbf` are held with [`LEEWAY`] for clocks that differ.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;

use super::Failure;
use super::jwks::{Jwks, JwksError, NoKey};
use crate::config::model;
use crate::names::SourceName;

/// In seconds.
const LEEWAY: u64 = 60;

/// Judges the tokens of one provider.
pub struct Jwt {
    issuer: String,
    audience: String,
    algorithms: Vec<Algorithm>,
    jwks: Arc<Jwks>,
}

#[derive(Deserialize)]
struct End {
    exp: f64,
}

/// Why a token is not taken.
#[derive(Debug, PartialEq, Eq)]
enum Flaw {
    UnknownKey,
    Final(Failure),
}

impl Jwt {
    /// Reads keys from a file; those of a URL are taken over from `former` where it has the same.
    pub fn new(config: &model::Jwt, former: Option<&Self>) -> Result<Self, JwksError> {
        let kept = former.map(|former| &former.jwks).filter(|jwks| jwks.is_of(config));
        let jwks = match kept {
            Some(jwks) => Arc::clone(jwks),
            None => Arc::new(Jwks::open(config)?),
        };
        let algorithms = config.algorithms.iter().filter_map(|algorithm| asymmetric(*algorithm)).collect();
        Ok(Self { issuer: config.issuer.clone(), audience: config.audience.clone(), algorithms, jwks })
    }

    /// Whether `token` is good at `now` (Unix seconds). Waits only where it names a key that is not known.
    pub async fn check(&self, token: &[u8], now: u64) -> Result<(), Failure> {
        let first = self.judge(token, now);
        if first == Err(Flaw::UnknownKey) {
            self.jwks.ask_again().await;
            return self.judge(token, now).map_err(Flaw::failure);
        }
        first.map_err(Flaw::failure)
    }

    pub async fn keep_fresh(&self, source: &SourceName) {
        self.jwks.keep_fresh(source).await;
    }

    fn judge(&self, token: &[u8], now: u64) -> Result<(), Flaw> {
        let keys = self.jwks.keys();
        // The same keys may serve several sources, so what was found good is remembered for one audience and issuer.
        let name = [self.issuer.as_bytes(), b"\0", self.audience.as_bytes(), b"\0", token].concat();
        let earliest = now.saturating_sub(LEEWAY);
        let end = match keys.verified.end_of(&name) {
            Some(end) => end,
            None => {
                let wrong = Flaw::Final(Failure::Wrong);
                let Ok(header) = jsonwebtoken::decode_header(token) else { return Err(wrong) };
                if !self.algorithms.contains(&header.alg) || header.crit.is_some() {
                    return Err(wrong);
                }
                let key = keys.find(header.kid.as_deref(), header.alg).map_err(|missing| match missing {
                    NoKey::Unknown => Flaw::UnknownKey,
                    NoKey::Unfit => Flaw::Final(Failure::Wrong),
                })?;
                let decoded = jsonwebtoken::decode::<End>(token, key, &self.validation(header.alg));
                let Ok(decoded) = decoded else { return Err(wrong) };
                // Fractions of a second are allowed; a number below 0 becomes 0.
                let end = decoded.claims.exp as u64;
                keys.verified.remember(&name, end, earliest);
                end
            }
        };
        if end > earliest { Ok(()) } else { Err(Flaw::Final(Failure::Expired)) }
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["iss", "aud", "exp"]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        // Judged by the caller, who tells an expired token from a wrong one.
        validation.validate_exp = false;
        validation
    }
}

impl Flaw {
    fn failure(self) -> Failure {
        match self {
            Self::UnknownKey => Failure::Wrong,
            Self::Final(failure) => failure,
        }
    }
}

/// The algorithm, unless its key would be shared; the config refuses such.
fn asymmetric(algorithm: model::Algorithm) -> Option<Algorithm> {
    use model::Algorithm as Named;
    Some(match algorithm {
        Named::RS256 => Algorithm::RS256,
        Named::RS384 => Algorithm::RS384,
        Named::RS512 => Algorithm::RS512,
        Named::PS256 => Algorithm::PS256,
        Named::PS384 => Algorithm::PS384,
        Named::PS512 => Algorithm::PS512,
        Named::ES256 => Algorithm::ES256,
        Named::ES384 => Algorithm::ES384,
        Named::EdDSA => Algorithm::EdDSA,
        Named::HS256 | Named::HS384 | Named::HS512 => return None,
    })
}
