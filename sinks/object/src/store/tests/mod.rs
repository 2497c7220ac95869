//! Stores against real servers, scripted ones, and a disk.

mod s3;
mod cos;
mod disk;
mod faults;
mod scripted;

use bytes::Bytes;

use super::{Description, Error, Store, StoreSettings, Stored};

fn settings(toml: &str) -> StoreSettings {
    let settings: StoreSettings = toml::from_str(toml).unwrap();
    assert_eq!(settings.problems(), [], "{toml}");
    settings
}

fn store(toml: &str) -> Store {
    Store::new(&settings(toml)).unwrap()
}

/// Bytes that do not repeat soon.
fn bytes(length: usize) -> Bytes {
    (0..length as u64).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

async fn put(store: &Store, key: &str, content: &Bytes) -> Result<Stored, Error> {
    put_as(store, key, content, false).await
}

/// As [`put`], where nothing may lie under the key.
async fn put_new(store: &Store, key: &str, content: &Bytes) -> Result<Stored, Error> {
    put_as(store, key, content, true).await
}

async fn put_as(store: &Store, key: &str, content: &Bytes, is_new: bool) -> Result<Stored, Error> {
    let metadata = vec![("session".to_owned(), "s-1".to_owned())];
    let mut upload = store.begin(key, &Description { content_type: "application/zstd", metadata, is_new }).await?;
    for piece in content.chunks(100_000) {
        if let Err(error) = upload.write(content.slice_ref(piece)).await {
            upload.abandon().await;
            return Err(error);
        }
    }
    upload.finish().await
}

async fn keys(store: &Store, prefix: &str) -> Vec<String> {
    let mut list = store.list(prefix).await.unwrap();
    let mut keys = Vec::new();
    while let Some(listed) = list.next().await.unwrap() {
        keys.push(format!("{} {}", listed.key, listed.length_bytes));
    }
    keys.sort();
    keys
}
