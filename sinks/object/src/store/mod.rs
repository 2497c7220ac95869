//! Where objects are kept: a bucket of S3 or COS, or a directory.
//!
//! It promises that an object whose [`Upload::finish`] answered `Ok` is there in whole, durable, and with the bytes that were
//! written: the store confirmed it, every request that carried bytes carried their MD5 for the store to compare, its own checksum was
//! compared where it tells one, and so was the object's length afterwards. Before that, nobody sees any of it under its key; an object
//! that was there under the same key stays until then and is replaced whole.
//!
//! It refuses to retry, to hold more of an object than two parts of 5 MiB, and to let a credential or the query of a URL into an
//! error.
//!
//! ```text
//! Store ─begin(key)─▶ Upload ─write…─▶ ─finish─▶ Stored          S3, COS: bucket ─▶ client library ─▶ transport ─▶ HTTP
//!                                      ─abandon─▶ gone           disk:    disk ─▶ files
//! ```

mod settings;
mod bucket;
mod transport;
mod disk;
mod error;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use sink_api::{BuildError, Fault};

use self::bucket::{Bucket, BucketList, BucketUpload};
use self::disk::{Disk, DiskList, DiskUpload};
pub use self::error::{Error, Refusal};
pub(crate) use self::settings::timeout_default;
pub use self::settings::{Encryption, Provider, StoreSettings};

/// A place for objects. Cheap to share by reference; connections are opened as they are needed.
pub struct Store {
    backend: Backend,
    /// The bucket's name, or the directory.
    bucket: String,
    /// For a person: which store.
    place: String,
}

enum Backend {
    Bucket(Bucket),
    Disk(Disk),
}

/// What an object is, beside its bytes.
#[derive(Debug, Clone, Default)]
pub struct Description {
    /// Its media type.
    pub content_type: &'static str,
    /// Names and values of visible ASCII; names are kept in lower case. A disk keeps them as extended attributes, where its file
    /// system has any.
    pub metadata: Vec<(String, String)>,
    /// Nothing is known to lie under the key, and what appears there meanwhile is not replaced, where the store can see to that: a disk
    /// can, and so can S3. Else an object is replaced.
    pub is_new: bool,
}

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    pub length_bytes: u64,
    metadata: HashMap<String, String>,
}

impl Described {
    /// The value of the object's metadata under `name`, in lower case.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.metadata.get(name).map(String::as_str)
    }
}

/// An object that a store confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub length_bytes: u64,
    /// In lower-case hex.
    pub sha256: String,
}

/// An object in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub key: String,
    pub length_bytes: u64,
}

impl Store {
    /// Resolves secrets; opens and connects nothing.
    ///
    /// # Errors
    /// When a secret's reference leads nowhere, or the settings were never checked.
    pub fn new(settings: &StoreSettings) -> Result<Self, BuildError> {
        Self::with_client(settings, reqwest::Client::builder())
    }

    /// As [`Store::new`], for a client that resolves names in its own way.
    fn with_client(settings: &StoreSettings, client: reqwest::ClientBuilder) -> Result<Self, BuildError> {
        let bucket = settings.bucket.clone().unwrap_or_default();
        if settings.provider == Provider::Disk {
            let root = settings.root.clone().unwrap_or_default();
            let bucket = root.display().to_string();
            return Ok(Self { backend: Backend::Disk(Disk::new(root)), place: format!("directory {bucket}"), bucket });
        }
        let place = format!("bucket {bucket} at {}", bucket::endpoint(settings));
        Ok(Self { backend: Backend::Bucket(Bucket::new(settings, client)?), bucket, place })
    }

    /// The bucket's name, or the directory.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// `error` as a fault that names this store.
    pub fn fault(&self, error: Error) -> Fault {
        error.into_fault(&self.place)
    }

    /// Begins an object under `key`, a path of safe characters. Nothing is seen of it before [`Upload::finish`].
    pub async fn begin(&self, key: &str, description: &Description) -> Result<Upload<'_>, Error> {
        let way = match &self.backend {
            Backend::Bucket(bucket) => Way::Bucket(Box::new(bucket.begin(key, description).await?)),
            Backend::Disk(disk) => Way::Disk(disk.begin(key, description).await?),
        };
        Ok(Upload { store: self, key: key.to_owned(), way, sha256: Context::new(&SHA256), length_bytes: 0 })
    }

    /// The length of the object under `key`; `None` where there is none.
    pub async fn length_of(&self, key: &str) -> Result<Option<u64>, Error> {
        let length = match &self.backend {
            Backend::Bucket(bucket) => bucket.length_of(key).await,
            Backend::Disk(disk) => disk.length_of(key).await,
        };
        match length {
            Ok(length) => Ok(Some(length)),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Length and metadata of the object under `key`; `None` where there is none.
    pub async fn describe(&self, key: &str) -> Result<Option<Described>, Error> {
        let described = match &self.backend {
            Backend::Bucket(bucket) => bucket.describe(key).await,
            Backend::Disk(disk) => disk.describe(key).await,
        };
        match described {
            Ok((length_bytes, metadata)) => Ok(Some(Described { length_bytes, metadata })),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The keys that are `stem`, a dot and an extension; hardly ever more than one.
    pub async fn keys_with_extension(&self, stem: &str) -> Result<Vec<String>, Error> {
        let mut keys = match &self.backend {
            Backend::Bucket(bucket) => bucket.keys_from(&format!("{stem}.")).await?,
            Backend::Disk(disk) => disk.keys_beside(stem).await?,
        };
        let is_extension = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let behind =
            |key: &str| key.strip_prefix(stem).and_then(|rest| rest.strip_prefix('.')).is_some_and(is_extension);
        keys.retain(|key| behind(key));
        Ok(keys)
    }

    /// Reads the object under `key` to its end; `None` where there is none.
    pub async fn digest(&self, key: &str) -> Result<Option<Stored>, Error> {
        let read = match &self.backend {
            Backend::Disk(disk) => disk.digest(key).await,
            Backend::Bucket(bucket) => {
                let (mut sha256, mut length_bytes) = (Context::new(&SHA256), 0);
                let read = bucket.read(key, |piece| {
                    sha256.update(piece);
                    length_bytes += piece.len() as u64;
                });
                read.await.map(|()| (sha256_bytes(sha256), length_bytes))
            }
        };
        match read {
            Ok((sha256, length_bytes)) => Ok(Some(Stored { length_bytes, sha256: hex(&sha256) })),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The objects whose keys begin with `prefix`, which is empty or ends with `/`, in no particular order.
    pub async fn list(&self, prefix: &str) -> Result<List, Error> {
        Ok(List(match &self.backend {
            Backend::Bucket(bucket) => Rest::Bucket(bucket.list(prefix).await?),
            Backend::Disk(disk) => Rest::Disk(disk.list(prefix).await?),
        }))
    }

    /// Whether the store can be reached and lets us in. Changes nothing.
    pub async fn probe(&self) -> Result<(), Error> {
        match &self.backend {
            Backend::Bucket(bucket) => bucket.probe().await,
            Backend::Disk(disk) => disk.probe().await,
        }
    }
}

/// An object on its way. One that is dropped rather than finished or abandoned never appears, but a bucket keeps its parts until a
/// lifecycle rule removes them.
pub struct Upload<'a> {
    store: &'a Store,
    key: String,
    way: Way<'a>,
    sha256: Context,
    length_bytes: u64,
}

enum Way<'a> {
    Bucket(Box<BucketUpload<'a>>),
    Disk(DiskUpload),
}

impl Upload<'_> {
    /// Appends `bytes`. After an error nothing but [`Upload::abandon`] makes sense.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.sha256.update(&bytes);
        self.length_bytes += bytes.len() as u64;
        match &mut self.way {
            Way::Bucket(upload) => upload.write(bytes).await,
            Way::Disk(upload) => upload.write(bytes).await,
        }
    }

    /// Makes an object of what was written and holds what the store has against it.
    pub async fn finish(mut self) -> Result<Stored, Error> {
        let sha256 = sha256_bytes(self.sha256.clone());
        let finished = match &mut self.way {
            Way::Bucket(upload) => upload.finish().await,
            Way::Disk(upload) => upload.finish(sha256, self.length_bytes).await,
        };
        if let Err(error) = finished {
            self.abandon().await;
            return Err(error);
        }
        let held = self.store.length_of(&self.key).await?;
        if held != Some(self.length_bytes) {
            let held = held.map_or_else(|| "nothing".to_owned(), |length| length.to_string());
            return Err(Error::Mismatch { what: "length", sent: self.length_bytes.to_string(), held });
        }
        Ok(Stored { length_bytes: self.length_bytes, sha256: hex(&sha256) })
    }

    /// Gives the object up and removes what was written of it, as far as the store lets us.
    pub async fn abandon(mut self) {
        // A disk's unfinished file goes with the value.
        if let Way::Bucket(upload) = &mut self.way
            && upload.abandon().await.is_err()
        {
            tracing::debug!(key = self.key, "parts of an unfinished object remain in the bucket");
        }
    }
}

/// The rest of a list.
pub struct List(Rest);

enum Rest {
    Bucket(BucketList),
    Disk(DiskList),
}

impl List {
    /// The next object, or `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Listed>, Error> {
        match &mut self.0 {
            Rest::Bucket(list) => list.next().await,
            Rest::Disk(list) => list.next().await,
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

fn sha256_bytes(context: Context) -> [u8; 32] {
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}
