//! Tokens of our own: made here, verified by any replica with the same config.
//!
//! A token is a JWT (RFC 7519) of four claims:
//!
//! ```text
//! { "alg": "HS256" or "EdDSA", "typ": "JWT", "kid": … } . { "iss": "trunkline", "aud": source, "iat": …, "exp": … } . signature
//! ```
//!
//! Without a signing key it is signed with HS256 under a key derived from the client's secret by HKDF-SHA256 (RFC 5869), whose info
//! names the purpose and the source; so a token of one source is none of another's, even under the same secret. `kid` is made from
//! the key, and the key that it names fixes the algorithm. A token ends at `exp`, to the second.

use std::time::Duration;

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::verified::Verified;
use super::{Failure, sha256};
use crate::names::SourceName;

const ISSUER: &str = "trunkline";
const KEY_LEN: usize = 32;
/// What of a key's digest names it.
const KEY_ID_LEN: usize = 12;

/// A signing key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("this is no Ed25519 private key in PEM (PKCS #8), as `openssl genpkey -algorithm ed25519` makes one")]
    NotEd25519,
}

/// Makes and judges the tokens of one source.
pub struct Tokens {
    /// Any verifies, the first signs.
    keys: Vec<Key>,
    ttl: Duration,
    audience: String,
    verified: Verified,
}

struct Key {
    id: String,
    signing: EncodingKey,
    verifying: DecodingKey,
    validation: Validation,
}

#[derive(Serialize, Deserialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
}

#[derive(Deserialize)]
struct End {
    exp: u64,
}

impl Tokens {
    /// Tokens under keys derived from a client's secrets.
    pub fn derived_from(secrets: &[SecretString], ttl: Duration, source: &SourceName) -> Self {
        let keys = secrets.iter().map(|secret| Key::derived(secret.expose_secret().as_bytes(), source)).collect();
        Self { keys, ttl, audience: source.to_string(), verified: Verified::default() }
    }

    /// Tokens under an Ed25519 key in PEM.
    pub fn signed_with(pem: &SecretString, ttl: Duration, source: &SourceName) -> Result<Self, KeyError> {
        let keys = vec![Key::ed25519(pem.expose_secret().as_bytes(), source)?];
        Ok(Self { keys, ttl, audience: source.to_string(), verified: Verified::default() })
    }

    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// A new token, good from `now` (Unix seconds) for [`Self::ttl`].
    pub fn issue(&self, now: u64) -> String {
        let key = &self.keys[0];
        let mut header = Header::new(key.validation.algorithms[0]);
        header.kid = Some(key.id.clone());
        let claims = Claims { iss: ISSUER, aud: &self.audience, iat: now, exp: now + self.ttl.as_secs() };
        jsonwebtoken::encode(&header, &claims, &key.signing).expect("the key was tried when it was read")
    }

    /// Whether `token` is one of ours, for this source, and good at `now`.
    pub fn check(&self, token: &[u8], now: u64) -> Result<(), Failure> {
        let end = match self.verified.end_of(token) {
            Some(end) => end,
            None => {
                let end = self.end_of(token).ok_or(Failure::Wrong)?;
                self.verified.remember(token, end, now);
                end
            }
        };
        if end > now { Ok(()) } else { Err(Failure::Expired) }
    }

    fn end_of(&self, token: &[u8]) -> Option<u64> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        let id = header.kid.filter(|_| header.crit.is_none())?;
        let key = self.keys.iter().find(|key| key.id == id)?;
        let token = jsonwebtoken::decode::<End>(token, &key.verifying, &key.validation).ok()?;
        Some(token.claims.exp)
    }
}

impl Key {
    fn derived(secret: &[u8], source: &SourceName) -> Self {
        struct Len;
        impl KeyType for Len {
            fn len(&self) -> usize {
                KEY_LEN
            }
        }
        let info = [b"trunkline access token, HS256, source ".as_slice(), source.as_str().as_bytes()];
        let mut key = [0; KEY_LEN];
        let pseudo_random = Salt::new(HKDF_SHA256, b"").extract(secret);
        let expanded = pseudo_random.expand(&info, Len).and_then(|key_material| key_material.fill(&mut key));
        expanded.expect("32 bytes are fewer than HKDF-SHA256 can give");
        Self::new(&key, Algorithm::HS256, EncodingKey::from_secret(&key), DecodingKey::from_secret(&key), source)
    }

    fn ed25519(pem: &[u8], source: &SourceName) -> Result<Self, KeyError> {
        let signing = EncodingKey::from_ed_pem(pem).map_err(|_| KeyError::NotEd25519)?;
        let pair = Ed25519KeyPair::from_pkcs8(signing.as_bytes()).map_err(|_| KeyError::NotEd25519)?;
        let public = pair.public_key().as_ref();
        Ok(Self::new(public, Algorithm::EdDSA, signing, DecodingKey::from_ed_der(public), source))
    }

    fn new(
        named_by: &[u8],
        algorithm: Algorithm,
        signing: EncodingKey,
        verifying: DecodingKey,
        source: &SourceName,
    ) -> Self {
        let id = URL_SAFE_NO_PAD.encode(&sha256(&[b"key id ", named_by].concat())[..KEY_ID_LEN]);
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["iss", "aud", "exp"]);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[source]);
        // Judged here, without leeway, and told from a wrong token.
        validation.validate_exp = false;
        Self { id, signing, verifying, validation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(900);
    const NOW: u64 = 1_800_000_000;

    fn tokens(secrets: &[&str], source: &str) -> Tokens {
        let secrets: Vec<SecretString> = secrets.iter().map(|secret| SecretString::from(*secret)).collect();
        Tokens::derived_from(&secrets, TTL, &SourceName::from(source))
    }

    fn pem() -> SecretString {
        SecretString::from(rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem())
    }

    fn check(tokens: &Tokens, token: &str, now: u64) -> Result<(), Failure> {
        tokens.check(token.as_bytes(), now)
    }

    #[test]
    fn a_token_is_good_on_any_replica_until_it_ends_to_the_second() {
        let pem = pem();
        let signed = || Tokens::signed_with(&pem, TTL, &SourceName::from("main")).unwrap();
        for (one, other) in [(tokens(&["s"], "main"), tokens(&["s"], "main")), (signed(), signed())] {
            let token = one.issue(NOW);
            for _ in 0..2 {
                assert_eq!(check(&other, &token, NOW), Ok(()));
                assert_eq!(check(&other, &token, NOW + 899), Ok(()));
                assert_eq!(check(&other, &token, NOW + 900), Err(Failure::Expired));
            }
        }
    }

    #[test]
    fn a_token_of_another_source_or_secret_is_wrong() {
        let token = tokens(&["s"], "main").issue(NOW);
        for other in [tokens(&["s"], "other"), tokens(&["t"], "main"), tokens(&["s"], "main2")] {
            assert_eq!(check(&other, &token, NOW), Err(Failure::Wrong));
        }
        let pem = pem();
        let signed = |source| Tokens::signed_with(&pem, TTL, &SourceName::from(source)).unwrap();
        assert_eq!(check(&signed("other"), &signed("main").issue(NOW), NOW), Err(Failure::Wrong));
    }

    #[test]
    fn with_two_secrets_tokens_of_either_are_good_and_the_first_signs() {
        let (old, both, new) = (tokens(&["old"], "m"), tokens(&["new", "old"], "m"), tokens(&["new"], "m"));
        assert_eq!(check(&both, &old.issue(NOW), NOW), Ok(()));
        assert_eq!(check(&both, &new.issue(NOW), NOW), Ok(()));
        assert_eq!(check(&new, &both.issue(NOW), NOW), Ok(()));
        assert_eq!(check(&old, &both.issue(NOW), NOW), Err(Failure::Wrong));
    }

    #[test]
    fn a_token_that_was_tampered_with_is_wrong() {
        let tokens = tokens(&["s"], "main");
        let token = tokens.issue(NOW);
        let parts: Vec<&str> = token.split('.').collect();
        let kid = &tokens.keys[0].id;
        let encode = |json: String| URL_SAFE_NO_PAD.encode(json);
        let none = encode(format!(r#"{{"alg":"none","typ":"JWT","kid":"{kid}"}}"#));
        let later = encode(format!(r#"{{"iss":"trunkline","aud":"main","iat":{NOW},"exp":{}}}"#, NOW + 9_999_999));
        let other = encode(r#"{"alg":"HS256","typ":"JWT","kid":"other"}"#.to_owned());
        for wrong in [
            format!("{none}.{}.", parts[1]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{}.{later}.{}", parts[0], parts[2]),
            format!("{other}.{}.{}", parts[1], parts[2]),
            format!("{}.{}", parts[0], parts[1]),
            format!("{token}x"),
            String::new(),
            "..".to_owned(),
        ] {
            assert_eq!(check(&tokens, &wrong, NOW), Err(Failure::Wrong), "{wrong}");
        }
        assert_eq!(check(&tokens, &token, NOW), Ok(()));
    }

    #[test]
    fn only_an_ed25519_key_signs() {
        let p256 = SecretString::from(rcgen::KeyPair::generate().unwrap().serialize_pem());
        for pem in [p256, SecretString::from("hunter2")] {
            assert_eq!(Tokens::signed_with(&pem, TTL, &SourceName::from("m")).err(), Some(KeyError::NotEd25519));
        }
    }
}
