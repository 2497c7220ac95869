//! Judges credentials: HTTP Basic (RFC 7617), or none.
//!
//! Name and password are compared as SHA-256 digests, both always and in constant time, so that neither the time nor the text of
//! a refusal tells an unknown name from a wrong password.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use secrecy::ExposeSecret as _;
use sink_api::settings::SecretError;
use subtle::ConstantTimeEq as _;

use crate::config::model;

/// Some senders leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a source asks of its sender.
pub enum Auth {
    None,
    Basic { username: [u8; 32], password: [u8; 32] },
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No credentials, or none of the kind that is asked for.
    Missing,
    Wrong,
}

impl Failure {
    /// As in [`crate::metrics::AUTH_FAILURES`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Wrong => "wrong",
        }
    }
}

impl Auth {
    /// Resolves the secret.
    pub fn new(config: &model::Auth) -> Result<Self, SecretError> {
        Ok(match config {
            model::Auth::None => Self::None,
            model::Auth::Basic { username, password } => Self::Basic {
                username: sha256(username.as_bytes()),
                password: sha256(password.resolve()?.expose_secret().as_bytes()),
            },
        })
    }

    pub fn check(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let Self::Basic { username, password } = self else { return Ok(()) };
        let given = headers.get(AUTHORIZATION).ok_or(Failure::Missing)?.as_bytes();
        let (scheme, credentials) = given.split_at_checked(6).ok_or(Failure::Missing)?;
        if !scheme.eq_ignore_ascii_case(b"basic ") {
            return Err(Failure::Missing);
        }
        let decoded = BASE64.decode(credentials.trim_ascii()).map_err(|_| Failure::Wrong)?;
        // A name cannot hold a colon (RFC 7617 §2), a password can.
        let colon = decoded.iter().position(|byte| *byte == b':').ok_or(Failure::Wrong)?;
        let same_name = sha256(&decoded[..colon]).ct_eq(username);
        let same_password = sha256(&decoded[colon + 1..]).ct_eq(password);
        if bool::from(same_name & same_password) { Ok(()) } else { Err(Failure::Wrong) }
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(value: Option<&str>) -> Result<(), Failure> {
        let auth = Auth::new(&model::Auth::Basic { username: "tccc".into(), password: "s:1".into() }).unwrap();
        let value = value.map(|value| (AUTHORIZATION, HeaderValue::from_str(value).unwrap()));
        auth.check(&value.into_iter().collect())
    }

    fn basic(credentials: &str) -> String {
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(credentials))
    }

    #[test]
    fn the_right_name_and_password_pass() {
        assert_eq!(check(Some(&basic("tccc:s:1"))), Ok(()));
        assert_eq!(check(Some(&basic("tccc:s:1").replace("Basic", "bASIC"))), Ok(()));
        assert_eq!(check(Some(basic("tccc:s:1").trim_end_matches('='))), Ok(()));
    }

    #[test]
    fn anything_else_does_not() {
        for wrong in ["tccc:s:2", "tcc:s:1", "tccc", ":", "", "tccc:s:1 "] {
            assert_eq!(check(Some(&basic(wrong))), Err(Failure::Wrong), "{wrong}");
        }
        assert_eq!(check(Some("Basic !!")), Err(Failure::Wrong));
        assert_eq!(check(Some("Bearer x")), Err(Failure::Missing));
        assert_eq!(check(Some("Basic")), Err(Failure::Missing));
        assert_eq!(check(None), Err(Failure::Missing));
    }
}
