//! What a connection needs for TLS, read from the files of `tls` once, when the sink is made.

use std::path::Path;

use lapin::tcp::{RustlsConnector, RustlsConnectorConfig};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sink_api::BuildError;
use sink_api::settings::TlsFiles;

/// TLS as `tls` says: with `ca_file` its certificates are trusted and no others.
pub(crate) fn connector(tls: &TlsFiles) -> Result<RustlsConnector, BuildError> {
    let wrong = |error: std::io::Error| BuildError(format!("tls cannot be set up: {error}"));
    let config = match &tls.ca_file {
        Some(path) => {
            let mut config = RustlsConnectorConfig::default();
            config.add_parsable_certificates(certificates("ca_file", path)?);
            config
        }
        None => RustlsConnectorConfig::new_with_native_certs().map_err(wrong)?,
    };
    let (Some(cert_file), Some(key_file)) = (&tls.cert_file, &tls.key_file) else {
        return config.connector_with_no_client_auth().map_err(wrong);
    };
    let pem = read("key_file", key_file)?;
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| BuildError(format!("tls.key_file: {} holds no PEM private key", key_file.display())))?;
    config.connector_with_single_cert(certificates("cert_file", cert_file)?, key).map_err(wrong)
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, BuildError> {
    let pem = read(key, path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem).flatten().collect();
    if found.is_empty() {
        return Err(BuildError(format!("tls.{key}: {} holds no PEM certificate that can be read", path.display())));
    }
    Ok(found)
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, BuildError> {
    std::fs::read(path).map_err(|error| BuildError(format!("tls.{key}: {} cannot be read: {error}", path.display())))
}
