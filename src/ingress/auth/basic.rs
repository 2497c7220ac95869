//! HTTP Basic (RFC 7617).
//!
//! Name and password are compared as SHA-256 digests, both always and in constant time, so that neither the time nor the text of
//! a refusal tells an unknown name from a wrong password.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use secrecy::ExposeSecret as _;
use sink_api::settings::{Secret, SecretError};
use subtle::ConstantTimeEq as _;

use super::{Digest, Failure, credentials, sha256};

/// Some senders leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The one name and password that pass.
pub struct Basic {
    username: Digest,
    password: Digest,
}

impl Basic {
    /// Resolves the password.
    pub fn new(username: &str, password: &Secret) -> Result<Self, SecretError> {
        let password = sha256(password.resolve()?.expose_secret().as_bytes());
        Ok(Self { username: sha256(username.as_bytes()), password })
    }

    pub fn check(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let (name, password) = pair(headers)?;
        let same_name = sha256(&name).ct_eq(&self.username);
        let same_password = sha256(&password).ct_eq(&self.password);
        if bool::from(same_name & same_password) { Ok(()) } else { Err(Failure::Wrong) }
    }
}

/// Name and password as the `Authorization` field gives them.
pub fn pair(headers: &HeaderMap) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let mut name = BASE64.decode(credentials(headers, "basic")?).map_err(|_| Failure::Wrong)?;
    // A name cannot hold a colon (RFC 7617 §2), a password can.
    let colon = name.iter().position(|byte| *byte == b':').ok_or(Failure::Wrong)?;
    let password = name.split_off(colon + 1);
    name.truncate(colon);
    Ok((name, password))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::AUTHORIZATION;

    use super::*;

    fn check(value: Option<&str>) -> Result<(), Failure> {
        let basic = Basic::new("tccc", &"s:1".into()).unwrap();
        let value = value.map(|value| (AUTHORIZATION, HeaderValue::from_str(value).unwrap()));
        basic.check(&value.into_iter().collect())
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
        assert_eq!(check(Some("Bearer x")), Err(Failure::Wrong));
        assert_eq!(check(Some("Basic")), Err(Failure::Wrong));
        assert_eq!(check(None), Err(Failure::Missing));
    }
}
