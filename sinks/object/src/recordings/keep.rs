//! A recording in the store: putting it there, and knowing it again.
//!
//! What must be known of it later lies beside it as the object's metadata: its SHA-256, how long it plays, and the event, session and
//! recording that it belongs to. An object without that is not known, and is replaced.

use bytes::Bytes;
use sink_api::Outcome;

use super::error::{Error, of_store};
use super::fetch::Fetched;
use super::media::Media;
use super::spool::Spooled;
use crate::store::{self, Described, Description, Store};

pub(super) const EVENT_ID: &str = "event-id";
pub(super) const SESSION_ID: &str = "session-id";
pub(super) const RECORDING_ID: &str = "recording-id";
const SHA256: &str = "sha256";
const DURATION_SECONDS: &str = "duration-seconds";

/// A longer value is cut: stores bound all metadata of an object to 2 KB.
const VALUE_LEN_MAX: usize = 400;

/// What is told of an archived recording.
pub(super) struct Facts {
    pub(super) key: String,
    pub(super) length_bytes: u64,
    /// In lower-case hex.
    pub(super) sha256: String,
    pub(super) content_type: &'static str,
    pub(super) duration_seconds: Option<f64>,
}

/// The recording at `place`, whatever its extension, if it was archived by us.
pub(super) async fn find(store: &Store, place: &str) -> Result<Option<Facts>, store::Error> {
    for key in store.keys_with_extension(place).await? {
        if let Some(described) = store.describe(&key).await?
            && let Some(facts) = facts_of(key, &described)
        {
            return Ok(Some(facts));
        }
    }
    Ok(None)
}

/// The id of the event that the object under `key` was archived for.
pub(super) async fn event_of(store: &Store, key: &str) -> Result<Option<String>, store::Error> {
    let described = store.describe(key).await?;
    Ok(described.and_then(|described| described.value(EVENT_ID).map(decoded)))
}

/// Puts a recording to its place, and compares what the store has with what was fetched.
pub(super) async fn put(
    store: &Store,
    place: &str,
    fetched: Fetched,
    named: &[(String, String)],
) -> Result<Facts, Outcome> {
    let Fetched { mut bytes, media } = fetched;
    let duration_seconds = bytes.seconds.filter(|_| media.is_mp3());
    let mut metadata = named.to_vec();
    metadata.push((SHA256.to_owned(), bytes.sha256.clone()));
    metadata.extend(duration_seconds.map(|seconds| (DURATION_SECONDS.to_owned(), seconds.to_string())));
    let key = format!("{place}.{}", media.extension);
    let description = Description { content_type: media.content_type, metadata, is_new: false };
    upload(store, &key, &description, &mut bytes).await?;
    let Spooled { length_bytes, sha256, .. } = bytes;
    Ok(Facts { key, length_bytes, sha256, content_type: media.content_type, duration_seconds })
}

/// A key without its extension.
pub(super) fn place_of(key: &str) -> &str {
    match key.rsplit_once('.') {
        Some((place, extension)) if !extension.contains('/') => place,
        _ => key,
    }
}

async fn upload(store: &Store, key: &str, description: &Description, bytes: &mut Spooled) -> Result<(), Outcome> {
    let failed = |error| of_store(error, store);
    let mut upload = store.begin(key, description).await.map_err(failed)?;
    loop {
        let written = match bytes.piece().await {
            Ok(piece) if piece.is_empty() => break,
            Ok(piece) => upload.write(piece).await.map_err(failed),
            Err(error) => Err(Error::Spool(error).into()),
        };
        if let Err(outcome) = written {
            upload.abandon().await;
            return Err(outcome);
        }
    }
    let stored = upload.finish().await.map_err(failed)?;
    if stored.sha256 != bytes.sha256 || stored.length_bytes != bytes.length_bytes {
        let (sent, held) = (bytes.sha256.clone(), stored.sha256);
        return Err(failed(store::Error::Mismatch { what: "checksum", sent, held }));
    }
    Ok(())
}

fn facts_of(key: String, described: &Described) -> Option<Facts> {
    let (_, extension) = key.rsplit_once('.')?;
    let content_type = Media::of_extension(extension).content_type;
    let sha256 = described.value(SHA256)?.to_owned();
    let duration_seconds = described.value(DURATION_SECONDS).and_then(|seconds| seconds.parse().ok());
    Some(Facts { length_bytes: described.length_bytes, sha256, content_type, duration_seconds, key })
}

/// Visible ASCII, as the values of metadata must be: other bytes as `%XX`.
pub(super) fn encoded(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        match byte {
            b'!'..=b'~' if byte != b'%' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
        if text.len() >= VALUE_LEN_MAX {
            break;
        }
    }
    text
}

fn decoded(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let hex = behind.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&Bytes::from(bytes)).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn a_place_is_a_key_without_its_extension() {
        assert_eq!(place_of("a/b.c/r.1.mp3"), "a/b.c/r.1");
        assert_eq!(place_of("a/b.c/r"), "a/b.c/r");
    }

    proptest! {
        #[test]
        fn ids_of_any_characters_survive_as_metadata(value in ".{0,30}") {
            let text = encoded(&value);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert_eq!(decoded(&text), value);
        }
    }
}
