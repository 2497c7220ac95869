//! The mask of a sink, made ready from its settings.

use secrecy::ExposeSecret;
use sink_api::settings::SecretError;

use crate::config::{MaskRule, model};
use crate::event::{Mask, MaskPath, Method, PathError};

/// A sink's `mask` cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum MaskError {
    #[error("mask {path:?} {source}")]
    Path { path: String, source: PathError },
    #[error("mask {path:?}: {source}")]
    Key { path: String, source: SecretError },
}

/// `None` where nothing is masked. Reads the keys, which may be in the environment or in files.
///
/// # Errors
/// A path is none, or a key's reference leads nowhere.
pub fn mask_of(settings: &model::Sink) -> Result<Option<Mask>, MaskError> {
    if settings.mask.is_empty() {
        return Ok(None);
    }
    let mut rules = Vec::with_capacity(settings.mask.len());
    for (text, rule) in &settings.mask {
        let path: MaskPath = text.parse().map_err(|source| MaskError::Path { path: text.clone(), source })?;
        let method = match rule {
            MaskRule::Last4 => Method::Last4,
            MaskRule::Drop => Method::Drop,
            MaskRule::Hmac { hmac_key } => {
                let key = hmac_key.resolve().map_err(|source| MaskError::Key { path: text.clone(), source })?;
                Method::hmac(key.expose_secret().as_bytes())
            }
        };
        rules.push((path, method));
    }
    Ok(Some(Mask::new(rules)))
}
