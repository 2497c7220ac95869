//! How a masked field is written: `"last4"`, `"drop"`, or `{ hmac_key = … }`.

use std::fmt;

use serde::de::{self, Deserializer, MapAccess, Unexpected, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use sink_api::settings::Secret;

const HMAC_KEY: &str = "hmac_key";

/// What becomes of a masked field.
#[derive(Debug, Clone, PartialEq)]
pub enum MaskRule {
    /// All but the last four characters hidden.
    Last4,
    /// Null.
    Drop,
    /// A pseudonym: HMAC-SHA256 with this key.
    Hmac { hmac_key: Secret },
}

impl Serialize for MaskRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Last4 => serializer.serialize_str("last4"),
            Self::Drop => serializer.serialize_str("drop"),
            Self::Hmac { hmac_key } => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(HMAC_KEY, hmac_key)?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for MaskRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RuleVisitor)
    }
}

struct RuleVisitor;

impl<'de> Visitor<'de> for RuleVisitor {
    type Value = MaskRule;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"last4\", \"drop\" or { hmac_key = … }")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<MaskRule, E> {
        match word {
            "last4" => Ok(MaskRule::Last4),
            "drop" => Ok(MaskRule::Drop),
            other => Err(E::invalid_value(Unexpected::Str(other), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MaskRule, A::Error> {
        let mut hmac_key = None;
        while let Some(key) = map.next_key::<String>()? {
            if key != HMAC_KEY {
                return Err(de::Error::unknown_field(&key, &[HMAC_KEY]));
            }
            hmac_key = Some(map.next_value()?);
        }
        let hmac_key = hmac_key.ok_or_else(|| de::Error::missing_field(HMAC_KEY))?;
        Ok(MaskRule::Hmac { hmac_key })
    }
}
