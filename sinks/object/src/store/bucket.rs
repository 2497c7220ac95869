//! A bucket of S3 or COS, through the client library.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::TryStreamExt;
use http::{HeaderMap, HeaderName, HeaderValue};
use md5::{Digest, Md5};
use opendal::options::{ListOptions, WriteOptions};
use opendal::services::{Cos, S3};
use opendal::{HttpTransporter, Lister, OperationContext, Operator, Writer};
use reqwest::ClientBuilder;
use reqwest::redirect::Policy;
use secrecy::ExposeSecret;
use sink_api::BuildError;
use sink_api::settings::Secret;

use super::error::Error;
use super::settings::{Encryption, Provider, StoreSettings, customer_key};
use super::transport::{EncryptionHeaders, Transport};
use super::{Description, Listed};

/// An object larger than this goes up in parts of this size: the smallest that S3 takes. The ten thousand parts that it takes make
/// 48 GiB.
const PART_SIZE: usize = 5 << 20;

/// Time for look-up, TCP and TLS.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// Unused connections are closed after this time: sooner than common servers do, so that no request meets a connection that is being
/// closed just then.
const IDLE_TIME_MAX: Duration = Duration::from_secs(4);

/// Objects that differ in their extension alone are few.
const KEYS_MAX: usize = 20;

/// Where AWS is meant when nothing says otherwise.
const REGION_DEFAULT: &str = "us-east-1";

pub(super) struct Bucket {
    operator: Operator,
    /// Of one request, with its body.
    timeout: Duration,
    /// Whether the store, as far as is known, takes the condition that nothing lies under the key.
    takes_conditions: AtomicBool,
}

impl Bucket {
    /// Resolves the secrets; connects nowhere. `client` brings what is not said here, such as a resolver.
    pub(super) fn new(settings: &StoreSettings, client: ClientBuilder) -> Result<Self, BuildError> {
        let failed = |error: opendal::Error| BuildError(format!("the store cannot be set up: {}", error.message()));
        let operator = match settings.provider {
            Provider::Cos => Operator::new(cos(settings)?).map_err(failed)?,
            Provider::S3 | Provider::Disk => Operator::new(s3(settings)?).map_err(failed)?,
        };
        let client = client
            .redirect(Policy::none())
            .timeout(settings.timeout.0)
            .connect_timeout(CONNECT_TIME_MAX)
            .pool_idle_timeout(IDLE_TIME_MAX)
            .build()
            .map_err(|error| BuildError(format!("TLS cannot be set up: {error}")))?;
        let (headers, etag_is_md5) = match (&settings.encryption, settings.provider) {
            (Some(encryption), Provider::Cos) => {
                (cos_encryption(encryption)?, matches!(encryption, Encryption::Managed {}))
            }
            (encryption, _) => {
                (EncryptionHeaders::default(), matches!(encryption, None | Some(Encryption::Managed {})))
            }
        };
        let transport = Transport::new(client, host(settings)?, headers, etag_is_md5);
        let context = OperationContext::new().with_http_transport(HttpTransporter::new(transport));
        let takes_conditions = AtomicBool::new(operator.info().capability().write_with_if_not_exists);
        Ok(Self { operator: operator.with_context(context), timeout: settings.timeout.0, takes_conditions })
    }

    pub(super) async fn begin(&self, key: &str, description: &Description) -> Result<BucketUpload<'_>, Error> {
        let has_condition = description.is_new && self.takes_conditions.load(Ordering::Relaxed);
        let metadata: HashMap<String, String> = description.metadata.iter().cloned().collect();
        let options = WriteOptions {
            content_type: Some(description.content_type.to_owned()),
            user_metadata: Some(metadata).filter(|metadata| !metadata.is_empty()),
            chunk: Some(PART_SIZE),
            concurrent: 1,
            if_not_exists: has_condition,
            ..WriteOptions::default()
        };
        let writer = self.within(self.operator.writer_options(key, options)).await?;
        Ok(BucketUpload { bucket: self, writer, has_condition })
    }

    pub(super) async fn length_of(&self, key: &str) -> Result<u64, Error> {
        Ok(self.within(self.operator.stat(key)).await?.content_length())
    }

    pub(super) async fn describe(&self, key: &str) -> Result<(u64, HashMap<String, String>), Error> {
        let metadata = self.within(self.operator.stat(key)).await?;
        let named = metadata.user_metadata().into_iter().flatten();
        let named = named.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        Ok((metadata.content_length(), named))
    }

    /// The keys that begin with `start`, as far as one page of a list goes.
    pub(super) async fn keys_from(&self, start: &str) -> Result<Vec<String>, Error> {
        let options = ListOptions { limit: Some(KEYS_MAX), recursive: true, ..ListOptions::default() };
        let mut lister = self.within(self.operator.lister_options(start, options)).await?;
        let mut keys = Vec::new();
        while keys.len() < KEYS_MAX
            && let Some(entry) = self.within(lister.try_next()).await?
        {
            keys.push(entry.path().to_owned());
        }
        Ok(keys)
    }

    /// The object's bytes, piece by piece, each given to `take`.
    pub(super) async fn read(&self, key: &str, mut take: impl FnMut(&[u8])) -> Result<(), Error> {
        // A reader makes an error of an object without bytes.
        if self.length_of(key).await? == 0 {
            return Ok(());
        }
        let reader = self.within(self.operator.reader(key)).await?;
        let mut pieces = self.within(reader.into_stream(..)).await?;
        while let Some(buffer) = self.within(pieces.try_next()).await? {
            buffer.for_each(|piece| take(&piece));
        }
        Ok(())
    }

    pub(super) async fn list(&self, prefix: &str) -> Result<BucketList, Error> {
        let options = ListOptions { recursive: true, ..ListOptions::default() };
        let lister = self.within(self.operator.lister_options(prefix, options)).await?;
        Ok(BucketList { lister, timeout: self.timeout })
    }

    /// Asks for one name at most. Changes nothing.
    pub(super) async fn probe(&self) -> Result<(), Error> {
        let options = ListOptions { limit: Some(1), recursive: true, ..ListOptions::default() };
        let mut lister = self.within(self.operator.lister_options("", options)).await?;
        self.within(lister.try_next()).await.map(drop)
    }

    async fn within<T>(&self, call: impl Future<Output = opendal::Result<T>>) -> Result<T, Error> {
        within(self.timeout, call).await
    }
}

/// An object on its way. Dropped half-way it leaves parts behind that no one sees.
pub(super) struct BucketUpload<'a> {
    bucket: &'a Bucket,
    writer: Writer,
    has_condition: bool,
}

impl BucketUpload<'_> {
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        within(self.bucket.timeout, self.writer.write(bytes)).await
    }

    /// The last part, and the request that makes one object of them.
    pub(super) async fn finish(&mut self) -> Result<(), Error> {
        let finished = within(self.bucket.timeout * 2, self.writer.close()).await;
        // A store that does not know the condition says so; the next try goes without.
        if self.has_condition && matches!(&finished, Err(Error::Refused(refusal)) if refusal.status == 501) {
            self.bucket.takes_conditions.store(false, Ordering::Relaxed);
        }
        finished.map(drop)
    }

    pub(super) async fn abandon(&mut self) -> Result<(), Error> {
        within(self.bucket.timeout, self.writer.abort()).await
    }
}

pub(super) struct BucketList {
    lister: Lister,
    timeout: Duration,
}

impl BucketList {
    pub(super) async fn next(&mut self) -> Result<Option<Listed>, Error> {
        while let Some(entry) = within(self.timeout, self.lister.try_next()).await? {
            if entry.metadata().is_file() {
                let length_bytes = entry.metadata().content_length();
                return Ok(Some(Listed { key: entry.path().to_owned(), length_bytes }));
            }
        }
        Ok(None)
    }
}

/// The timeout of the HTTP client ends a request that hangs; this one, a little later, whatever else does.
async fn within<T>(timeout: Duration, call: impl Future<Output = opendal::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(timeout + CONNECT_TIME_MAX, call).await {
        Ok(answer) => answer.map_err(|error| Error::of(&error, timeout)),
        Err(_) => Err(Error::TimedOut { limit: timeout }),
    }
}

fn s3(settings: &StoreSettings) -> Result<S3, BuildError> {
    let mut builder = S3::default()
        .bucket(settings.bucket.as_deref().unwrap_or_default())
        .endpoint(&endpoint(settings))
        .region(&region(settings));
    if !settings.path_style {
        builder = builder.enable_virtual_host_style();
    }
    if let (Some(id), Some(secret)) = (&settings.access_key_id, &settings.secret_access_key) {
        builder = builder
            .access_key_id(&resolve("access_key_id", id)?)
            .secret_access_key(&resolve("secret_access_key", secret)?)
            .disable_config_load()
            .disable_ec2_metadata();
    }
    if let Some(token) = &settings.session_token {
        builder = builder.session_token(&resolve("session_token", token)?);
    }
    Ok(match &settings.encryption {
        None => builder,
        Some(Encryption::Managed {}) => builder.server_side_encryption_with_s3_key(),
        Some(Encryption::Kms { key_id: None }) => builder.server_side_encryption_with_aws_managed_kms_key(),
        Some(Encryption::Kms { key_id: Some(id) }) => builder.server_side_encryption_with_customer_managed_kms_key(id),
        Some(Encryption::Customer { key }) => {
            builder.server_side_encryption_with_customer_key("AES256", &resolve_customer_key(key)?)
        }
    })
}

fn cos(settings: &StoreSettings) -> Result<Cos, BuildError> {
    let mut builder =
        Cos::default().bucket(settings.bucket.as_deref().unwrap_or_default()).endpoint(&endpoint(settings));
    if let (Some(id), Some(secret)) = (&settings.access_key_id, &settings.secret_access_key) {
        builder = builder
            .secret_id(&resolve("access_key_id", id)?)
            .secret_key(&resolve("secret_access_key", secret)?)
            .disable_config_load();
    }
    if let Some(token) = &settings.session_token {
        builder = builder.security_token(&resolve("session_token", token)?);
    }
    Ok(builder)
}

/// Source: the common request headers of COS for encryption on the server.
fn cos_encryption(encryption: &Encryption) -> Result<EncryptionHeaders, BuildError> {
    let mut headers = EncryptionHeaders::default();
    let add = |map: &mut HeaderMap, name: &'static str, value: &str| -> Result<(), BuildError> {
        let mut value =
            HeaderValue::from_str(value).map_err(|_| BuildError("encryption.key_id is not ASCII".to_owned()))?;
        value.set_sensitive(true);
        map.insert(HeaderName::from_static(name), value);
        Ok(())
    };
    match encryption {
        Encryption::Managed {} => add(&mut headers.begin, "x-cos-server-side-encryption", "AES256")?,
        Encryption::Kms { key_id } => {
            add(&mut headers.begin, "x-cos-server-side-encryption", "cos/kms")?;
            if let Some(id) = key_id {
                add(&mut headers.begin, "x-cos-server-side-encryption-cos-kms-key-id", id)?;
            }
        }
        Encryption::Customer { key } => {
            let key = resolve_customer_key(key)?;
            let always = &mut headers.always;
            add(always, "x-cos-server-side-encryption-customer-algorithm", "AES256")?;
            add(always, "x-cos-server-side-encryption-customer-key", &BASE64.encode(&key))?;
            add(always, "x-cos-server-side-encryption-customer-key-md5", &BASE64.encode(Md5::digest(&key)))?;
        }
    }
    Ok(headers)
}

fn region(settings: &StoreSettings) -> String {
    let from_environment = || std::env::var("AWS_REGION").or_else(|_| std::env::var("AWS_DEFAULT_REGION")).ok();
    settings.region.clone().or_else(from_environment).unwrap_or_else(|| REGION_DEFAULT.to_owned())
}

/// Where requests go, but for the bucket in front of the host.
pub(super) fn endpoint(settings: &StoreSettings) -> String {
    if let Some(endpoint) = &settings.endpoint {
        return endpoint.trim_end_matches('/').to_owned();
    }
    if settings.provider == Provider::Cos {
        return format!("https://cos.{}.myqcloud.com", settings.region.as_deref().unwrap_or_default());
    }
    std::env::var("AWS_ENDPOINT_URL").unwrap_or_else(|_| {
        let region = region(settings);
        let country = if region.starts_with("cn-") { ".cn" } else { "" };
        format!("https://s3.{region}.amazonaws.com{country}")
    })
}

/// What the host names of the store's requests end with.
fn host(settings: &StoreSettings) -> Result<String, BuildError> {
    let endpoint: Option<http::Uri> = endpoint(settings).parse().ok();
    let host = endpoint.as_ref().and_then(http::Uri::host).map(str::to_owned);
    host.ok_or_else(|| BuildError("the store's endpoint is no address".to_owned()))
}

fn resolve(name: &str, secret: &Secret) -> Result<String, BuildError> {
    let text = secret.resolve().map_err(|error| BuildError(format!("{name}: {error}")))?;
    Ok(text.expose_secret().to_owned())
}

fn resolve_customer_key(key: &Secret) -> Result<Vec<u8>, BuildError> {
    let text = resolve("encryption.key", key)?;
    customer_key(&text).ok_or_else(|| BuildError("encryption.key is not 32 bytes in Base64".to_owned()))
}
