//! TLS 1.2 and 1.3 for a listener, from PEM files that are looked at again every few seconds.
//!
//! A changed file is taken only when the whole set is good: certificates and key parse, the key belongs to the certificate, the
//! client CAs are usable. Otherwise the earlier certificates stay and an ERROR line says why, once per content. Connections that
//! are open keep what they were made with.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{Context, SHA256};
use prometheus::Gauge;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::not_after::not_after;
use crate::config::model;

const CHECK_EVERY: Duration = Duration::from_secs(5);

/// The files of a listener's TLS do not make a usable set.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path} cannot be read: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not PEM as expected: {detail}")]
    Pem { path: PathBuf, detail: String },
    #[error("{path} holds no certificate")]
    NoCertificate { path: PathBuf },
    /// The key does not belong to the certificate, or is of a kind that is not supported.
    #[error("{cert_file} and {key_file} cannot be used together: {detail}")]
    Unusable { cert_file: PathBuf, key_file: PathBuf, detail: String },
    #[error("the client CAs in {path} cannot be used: {detail}")]
    ClientCa { path: PathBuf, detail: String },
}

/// The certificates in use, and where they come from.
pub struct Tls {
    files: model::Tls,
    http2: bool,
    current: ArcSwap<ServerConfig>,
    loaded: [u8; 32],
    not_after_seconds: Gauge,
    check_every: Duration,
}

/// The files' bytes as they were read together.
struct Material {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Tls {
    /// Reads the files. `not_after_seconds` shows when the first certificate of the chain to expire does, in Unix seconds.
    pub fn load(files: model::Tls, http2: bool, not_after_seconds: Gauge) -> Result<Self, TlsError> {
        let material = Material::read(&files)?;
        let (config, expiry) = material.to_config(&files, http2)?;
        not_after_seconds.set(expiry);
        let loaded = material.digest();
        let current = ArcSwap::from_pointee(config);
        Ok(Self { files, http2, current, loaded, not_after_seconds, check_every: CHECK_EVERY })
    }

    #[cfg(test)]
    pub fn checked_every(self, check_every: Duration) -> Self {
        Self { check_every, ..self }
    }

    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Takes changed files over for as long as it is polled.
    pub(super) async fn watch(&self) -> Infallible {
        let mut seen = self.loaded;
        let mut unreadable = false;
        loop {
            tokio::time::sleep(self.check_every).await;
            let files = self.files.clone();
            let read =
                tokio::task::spawn_blocking(move || Material::read(&files)).await.expect("reading does not panic");
            let material = match read {
                Ok(material) => material,
                Err(error) => {
                    if !std::mem::replace(&mut unreadable, true) {
                        tracing::error!(%error, "tls files cannot be read, the earlier certificates stay");
                    }
                    continue;
                }
            };
            unreadable = false;
            let digest = material.digest();
            if digest == seen {
                continue;
            }
            seen = digest;
            match material.to_config(&self.files, self.http2) {
                Ok((config, expiry)) => {
                    self.current.store(Arc::new(config));
                    self.not_after_seconds.set(expiry);
                    tracing::info!(cert_file = %self.files.cert_file.display(), "tls certificates reloaded");
                }
                Err(error) => {
                    tracing::error!(%error, "changed tls files are not usable, the earlier certificates stay")
                }
            }
        }
    }
}

impl Material {
    fn read(files: &model::Tls) -> Result<Self, TlsError> {
        let read = |path: &Path| std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source });
        Ok(Self {
            cert: read(&files.cert_file)?,
            key: read(&files.key_file)?,
            client_ca: files.client_ca_file.as_deref().map(read).transpose()?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        for part in [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()].into_iter().flatten() {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// The server's config, and when its first certificate expires in Unix seconds (0 where that cannot be read).
    fn to_config(&self, files: &model::Tls, http2: bool) -> Result<(ServerConfig, f64), TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = certificates(&self.cert, &files.cert_file)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| TlsError::Pem { path: files.key_file.clone(), detail: error.to_string() })?;
        let expiry = chain.iter().filter_map(|certificate| not_after(certificate)).min();
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("the provider supports TLS 1.2 and 1.3");
        let builder = match (&self.client_ca, &files.client_ca_file) {
            (Some(pem), Some(path)) => {
                let wrong = |detail: String| TlsError::ClientCa { path: path.clone(), detail };
                let mut roots = RootCertStore::empty();
                for certificate in certificates(pem, path)? {
                    roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|error| wrong(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| TlsError::Unusable {
            cert_file: files.cert_file.clone(),
            key_file: files.key_file.clone(),
            detail: error.to_string(),
        })?;
        if http2 {
            config.alpn_protocols.push(b"h2".to_vec());
        }
        config.alpn_protocols.push(b"http/1.1".to_vec());
        #[allow(clippy::cast_precision_loss, reason = "seconds of our age fit a double")]
        Ok((config, expiry.map_or(0.0, |at| at.as_second() as f64)))
    }
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::Pem { path: path.to_owned(), detail: error.to_string() })?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned() });
    }
    Ok(found)
}
