//! How a sender shows who it is, as it is written.

use std::fmt;
use std::path::PathBuf;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserializer, IntoDeserializer as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use sink_api::settings::{Period, Secret};

/// What a source asks of its sender.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", from = "AuthTable")]
pub enum Auth {
    #[default]
    None,
    Basic {
        username: String,
        password: Secret,
    },
    /// Short-lived tokens of our own, given out for a client's secret (RFC 6749 §4.4).
    OAuth2(OAuth2),
    /// Tokens of a foreign identity provider.
    Jwt(Jwt),
}

/// The client that may fetch tokens, and how those are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OAuth2 {
    /// Where tokens are fetched, on the listener that pushes come to.
    #[serde(default = "OAuth2::default_token_path")]
    pub token_path: String,
    pub client_id: String,
    /// One, or during a rotation two: either is taken, and tokens are signed with a key derived from the first.
    pub client_secret: Secrets,
    /// How long a token is good for.
    #[serde(default = "OAuth2::default_token_ttl")]
    pub token_ttl: Period,
    /// Ed25519, PKCS #8 in PEM; tokens are signed with it in place of the derived key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<Secret>,
}

impl OAuth2 {
    fn default_token_path() -> String {
        "/oauth/token".to_owned()
    }

    const fn default_token_ttl() -> Period {
        Period::from_secs(15 * 60)
    }
}

/// Whose tokens are taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// Must be the token's `iss`.
    pub issuer: String,
    /// Must be in the token's `aud`.
    pub audience: String,
    /// The provider's public keys as a JWK Set (RFC 7517 §5). Read again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_file: Option<PathBuf>,
    /// The same, fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// The only ones taken, whatever a token says.
    #[serde(default = "Jwt::default_algorithms")]
    pub algorithms: Vec<Algorithm>,
}

impl Jwt {
    fn default_algorithms() -> Vec<Algorithm> {
        vec![Algorithm::RS256]
    }
}

/// Signature algorithms by their names of RFC 7518 §3.1 and RFC 8037. The HMAC ones can be read so that their refusal says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
    HS256,
    HS384,
    HS512,
}

/// One secret, or a list of them.
#[derive(Clone, PartialEq)]
pub struct Secrets(pub Vec<Secret>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Secrets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [secret] => secret.serialize(serializer),
            list => list.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Secrets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Secrets;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, { env = \"NAME\" }, { file = \"PATH\" }, or a list of these")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secrets, E> {
                Secret::deserialize(text.into_deserializer()).map(|secret| Secrets(vec![secret]))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Secrets, A::Error> {
                Secret::deserialize(MapAccessDeserializer::new(map)).map(|secret| Secrets(vec![secret]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Secrets, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Secrets)
            }
        }
        deserializer.deserialize_any(OneOrMore)
    }
}

/// [`Auth`] as it is read: serde denies unknown fields to a variant with braces only.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum AuthTable {
    None {},
    Basic { username: String, password: Secret },
    OAuth2(OAuth2),
    Jwt(Jwt),
}

impl From<AuthTable> for Auth {
    fn from(table: AuthTable) -> Self {
        match table {
            AuthTable::None {} => Self::None,
            AuthTable::Basic { username, password } => Self::Basic { username, password },
            AuthTable::OAuth2(oauth2) => Self::OAuth2(oauth2),
            AuthTable::Jwt(jwt) => Self::Jwt(jwt),
        }
    }
}
