//! The value types that settings are written in: durations (`"30s"`), sizes (`"64MiB"`), secrets, the files of TLS.
//!
//! The gateway's own config uses the same types, so that a user meets one notation everywhere.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A duration written as number and unit: `"200ms"`, `"30s"`, `"15m"`, `"24h"`, `"1h 30m"`. A bare number is refused, since it
/// does not say its unit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(pub Duration);

impl Period {
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }
}

impl std::str::FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is not a duration; write a number and its unit, such as \"200ms\", \"30s\" or \"24h\"")
        };
        let signed: jiff::SignedDuration = text.trim().parse().map_err(|_| wrong())?;
        Duration::try_from(signed).map(Self).map_err(|_| wrong())
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        match millis {
            0 => write!(f, "0s"),
            m if m.is_multiple_of(3_600_000) => write!(f, "{}h", m / 3_600_000),
            m if m.is_multiple_of(60_000) => write!(f, "{}m", m / 60_000),
            m if m.is_multiple_of(1_000) => write!(f, "{}s", m / 1_000),
            m => write!(f, "{m}ms"),
        }
    }
}

impl fmt::Debug for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PeriodVisitor;
        impl Visitor<'_> for PeriodVisitor {
            type Value = Period;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration with its unit such as \"30s\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Period, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(PeriodVisitor)
    }
}

/// A number of bytes written as number and unit: `"64MiB"`, `"1MB"`, `"512KiB"`. A bare integer counts bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.trim().parse::<bytesize::ByteSize>().map(|size| Self(size.as_u64())).map_err(|_| {
            format!("{text:?} is not a size; write a number and its unit, such as \"512KiB\", \"64MiB\" or \"10GiB\"")
        })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match UNITS.iter().find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl fmt::Debug for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;
        impl Visitor<'_> for SizeVisitor {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"64MiB\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                u64::try_from(bytes).map(Size).map_err(|_| E::custom("a size cannot be negative"))
            }
        }
        deserializer.deserialize_any(SizeVisitor)
    }
}

/// A secret in the config: written out, or a reference to an environment variable or a file. Never shown: `Debug` and `Serialize`
/// mask it.
#[derive(Clone)]
pub enum Secret {
    Inline(SecretString),
    /// `{ env = "NAME" }`
    Env(String),
    /// `{ file = "PATH" }`; a trailing newline is cut
    File(PathBuf),
}

/// A secret's reference leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("the environment variable {0} is not set, or is not UTF-8")]
    Env(String),
    #[error("the secret file {path} cannot be read: {source}")]
    File { path: PathBuf, source: std::io::Error },
}

impl Secret {
    /// The secret itself. Reads the environment or the file each time, so that a rotated file is seen.
    pub fn resolve(&self) -> Result<SecretString, SecretError> {
        match self {
            Self::Inline(secret) => Ok(secret.clone()),
            Self::Env(name) => std::env::var(name).map(SecretString::from).map_err(|_| SecretError::Env(name.clone())),
            Self::File(path) => {
                let text =
                    std::fs::read_to_string(path).map_err(|source| SecretError::File { path: path.clone(), source })?;
                let text = text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t));
                Ok(SecretString::from(text.to_owned()))
            }
        }
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::Inline(SecretString::from(text.to_owned()))
    }
}

impl PartialEq for Secret {
    /// Compares what is written in the config; for noticing a changed config, not for checking credentials.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Inline(a), Self::Inline(b)) => a.expose_secret() == b.expose_secret(),
            (Self::Env(a), Self::Env(b)) => a == b,
            (Self::File(a), Self::File(b)) => a == b,
            _ => false,
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("***"),
            Self::Env(name) => write!(f, "env {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

impl Serialize for Secret {
    /// `"***"`, or the reference as it was written.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let (key, value) = match self {
            Self::Inline(_) => return serializer.serialize_str("***"),
            Self::Env(name) => ("env", name.clone()),
            Self::File(path) => ("file", path.display().to_string()),
        };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(key, &value)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SecretVisitor;
        impl<'de> Visitor<'de> for SecretVisitor {
            type Value = Secret;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, { env = \"NAME\" } or { file = \"PATH\" }")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret::from(text))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
                let wrong = || de::Error::custom("expected exactly one of the keys `env` and `file`");
                let (key, value): (String, String) = map.next_entry()?.ok_or_else(wrong)?;
                if map.next_key::<String>()?.is_some() {
                    return Err(wrong());
                }
                match key.as_str() {
                    "env" => Ok(Secret::Env(value)),
                    "file" => Ok(Secret::File(value.into())),
                    _ => Err(de::Error::unknown_field(&key, &["env", "file"])),
                }
            }
        }
        deserializer.deserialize_any(SecretVisitor)
    }
}

/// PEM files of a TLS client: the table `tls`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The CA certificates to trust, and no others; those of the system where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Our own certificate, with its chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

impl TlsFiles {
    /// What is missing where only one of certificate and key is there: its path in the settings, and what to say.
    pub fn missing(&self) -> Option<(&'static str, &'static str)> {
        match (&self.cert_file, &self.key_file) {
            (Some(_), None) => Some(("tls.key_file", "is missing beside cert_file")),
            (None, Some(_)) => Some(("tls.cert_file", "is missing beside key_file")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_shown_with_their_unit() {
        for (text, millis) in [("200ms", 200), ("30s", 30_000), ("15m", 900_000), ("24h", 86_400_000), ("0s", 0)] {
            let period: Period = text.parse().unwrap();
            assert_eq!(period.0.as_millis(), millis);
            assert_eq!(period.to_string(), text);
        }
        for text in ["5", "", "-3s", "soon"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_and_shown_with_their_unit() {
        for (text, bytes) in [("64MiB", 64 << 20), ("10GiB", 10 << 30), ("1KiB", 1024), ("1000B", 1000)] {
            let size: Size = text.parse().unwrap();
            assert_eq!(size.0, bytes);
            assert_eq!(size.to_string(), text);
        }
        assert_eq!("1MB".parse::<Size>().unwrap().0, 1_000_000);
        assert!("big".parse::<Size>().is_err());
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret: Secret = serde_json::from_str(r#""hunter2""#).unwrap();
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(serde_json::to_string(&secret).unwrap(), r#""***""#);
        let secret: Secret = serde_json::from_str(r#"{"env":"NAME"}"#).unwrap();
        assert_eq!(serde_json::to_string(&secret).unwrap(), r#"{"env":"NAME"}"#);
        assert!(serde_json::from_str::<Secret>(r#"{"env":"A","file":"B"}"#).is_err());
        assert!(serde_json::from_str::<Secret>(r#"{"evn":"A"}"#).is_err());
    }
}
