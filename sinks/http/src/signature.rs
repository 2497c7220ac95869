//! Standard Webhooks signatures, <https://github.com/standard-webhooks/standard-webhooks>: HMAC-SHA256 over
//! `<webhook-id>.<webhook-timestamp>.<body>`, as `v1,<base64>`, one for each secret, parted by spaces.
//!
//! An id may hold full stops. What is signed is unambiguous all the same: a body is JSON and begins with neither digit nor stop.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::{ExposeSecret as _, SecretString};

const PREFIX: &str = "whsec_";
/// The specification's bounds on a secret, in bytes.
const SECRET_LEN: std::ops::RangeInclusive<usize> = 24..=64;

/// One secret, ready to sign.
pub(crate) struct Signer(hmac::Key);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadSecret {
    #[error("does not begin with {PREFIX}")]
    Prefix,
    #[error("is not base64 after {PREFIX}")]
    Base64,
    #[error("holds {found} bytes; must hold {} to {}", SECRET_LEN.start(), SECRET_LEN.end())]
    Length { found: usize },
}

impl Signer {
    /// Reads `whsec_<base64>`.
    pub(crate) fn parse(secret: &SecretString) -> Result<Self, BadSecret> {
        let text = secret.expose_secret().strip_prefix(PREFIX).ok_or(BadSecret::Prefix)?;
        let bytes = BASE64_STANDARD.decode(text).map_err(|_| BadSecret::Base64)?;
        if !SECRET_LEN.contains(&bytes.len()) {
            return Err(BadSecret::Length { found: bytes.len() });
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
    }
}

/// The value of `webhook-signature`. `timestamp` in seconds since 1970.
pub(crate) fn signatures(signers: &[Signer], id: &str, timestamp: u64, body: &[u8]) -> String {
    let signed: Vec<_> = signers.iter().map(|signer| signer.sign(id, timestamp, body)).collect();
    signed.join(" ")
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(text: &str) -> Result<Signer, BadSecret> {
        Signer::parse(&text.into())
    }

    #[test]
    fn the_example_of_the_reference_library_is_signed_alike() {
        let signer = signer("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = signatures(&[signer], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_secret_signs() {
        let key = |byte: u8| signer(&format!("whsec_{}", BASE64_STANDARD.encode([byte; 24]))).unwrap();
        let both = signatures(&[key(1), key(2)], "p-1", 1, b"{}");
        assert_eq!(
            both,
            format!("{} {}", signatures(&[key(1)], "p-1", 1, b"{}"), signatures(&[key(2)], "p-1", 1, b"{}"))
        );
    }

    #[test]
    fn a_secret_of_another_kind_is_refused() {
        assert_eq!(signer("hunter2").unwrap_err(), BadSecret::Prefix);
        assert_eq!(signer("whsec_%%%").unwrap_err(), BadSecret::Base64);
        assert_eq!(signer("whsec_c2hvcnQ=").unwrap_err(), BadSecret::Length { found: 5 });
    }
}
