use super::harness::*;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::model;
use crate::serve::tls::{Tls, TlsError};

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Ca {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes `cert.pem` and `key.pem` for localhost.
fn write_pair(dir: &Path, ca: &Ca) {
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, ca).unwrap();
    std::fs::write(dir.join("cert.pem"), cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
}

fn files(dir: &Path) -> model::Tls {
    model::Tls { cert_file: dir.join("cert.pem"), key_file: dir.join("key.pem"), client_ca_file: None }
}

/// A client that trusts `ca`; with a certificate of `own` where given.
async fn connect(
    running: &Running,
    ca: &Ca,
    version: &'static SupportedProtocolVersion,
    own: Option<&Ca>,
) -> std::io::Result<Client<TlsStream<TcpStream>>> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let key = KeyPair::generate().unwrap();
            let cert = CertificateParams::new(vec!["client".to_owned()]).unwrap().signed_by(&key, own).unwrap();
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder.with_client_auth_cert(vec![cert.der().clone()], key).unwrap()
        }
    };
    let stream = TcpStream::connect(running.addr).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map(Client::new)
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_served() {
    let (dir, ca) = (tempfile::tempdir().unwrap(), ca());
    write_pair(dir.path(), &ca);
    let running = ingress(|config| config.tls = Some(files(dir.path()))).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut client = connect(&running, &ca, version, None).await.unwrap();
        client.send(push("p-1", "{}")).await;
        assert_eq!(client.reply().await.said(), (200, 0));
    }
    assert!(running.metric("trunkline_tls_not_after_seconds").parse::<f64>().unwrap() > 1.7e9);
}

#[tokio::test]
async fn a_client_without_the_right_certificate_is_not_let_in() {
    let (dir, ca, other) = (tempfile::tempdir().unwrap(), ca(), ca());
    write_pair(dir.path(), &ca);
    std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
    let tls = model::Tls { client_ca_file: Some(dir.path().join("ca.pem")), ..files(dir.path()) };
    let running = ingress(|config| config.tls = Some(tls)).await;
    let mut client = connect(&running, &ca, &rustls::version::TLS13, Some(&ca)).await.unwrap();
    client.send(push("p-1", "{}")).await;
    assert_eq!(client.reply().await.said(), (200, 0));
    for own in [None, Some(&other)] {
        assert!(connect(&running, &ca, &rustls::version::TLS12, own).await.is_err());
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_given_up() {
    let (dir, ca) = (tempfile::tempdir().unwrap(), ca());
    write_pair(dir.path(), &ca);
    let running = ingress(|config| {
        config.tls = Some(files(dir.path()));
        config.handshake_timeout = sink_api::settings::Period::from_millis(200);
    })
    .await;
    running.connect().await.ended().await;
}

#[tokio::test]
async fn changed_certificates_are_taken_only_when_they_are_good() {
    let (dir, first, second) = (tempfile::tempdir().unwrap(), ca(), ca());
    write_pair(dir.path(), &first);
    let gauge = prometheus::Gauge::new("x", "x").unwrap();
    let tls = Tls::load(files(dir.path()), false, gauge).unwrap().checked_every(SHORT / 10);
    let running = ingress_with_tls(tls).await;
    let good = |ca| connect(&running, ca, &rustls::version::TLS13, None);
    assert!(good(&first).await.is_ok() && good(&second).await.is_err());
    let renewed = tempfile::tempdir().unwrap();
    write_pair(renewed.path(), &second);
    std::fs::copy(renewed.path().join("cert.pem"), dir.path().join("cert.pem")).unwrap();
    tokio::time::sleep(SHORT).await;
    assert!(good(&first).await.is_ok(), "a certificate without its key is not taken");
    std::fs::copy(renewed.path().join("key.pem"), dir.path().join("key.pem")).unwrap();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while good(&second).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the new certificate is taken");
        tokio::time::sleep(SHORT / 10).await;
    }
}

#[test]
fn unusable_files_are_told_apart() {
    let (dir, ca) = (tempfile::tempdir().unwrap(), ca());
    let load = || Tls::load(files(dir.path()), false, prometheus::Gauge::new("x", "x").unwrap()).err();
    assert!(matches!(load(), Some(TlsError::Read { .. })));
    write_pair(dir.path(), &ca);
    assert!(load().is_none());
    std::fs::write(dir.path().join("key.pem"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(matches!(load(), Some(TlsError::Unusable { .. })));
    std::fs::write(dir.path().join("key.pem"), "no key").unwrap();
    assert!(matches!(load(), Some(TlsError::Pem { .. })));
    std::fs::write(dir.path().join("cert.pem"), "").unwrap();
    assert!(matches!(load(), Some(TlsError::NoCertificate { .. })));
}

#[tokio::test]
async fn http2_is_chosen_in_the_handshake() {
    let (dir, ca) = (tempfile::tempdir().unwrap(), ca());
    write_pair(dir.path(), &ca);
    let running = ingress(|config| {
        config.tls = Some(files(dir.path()));
        config.http2 = true;
    })
    .await;
    let client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(ca.pem().as_bytes()).unwrap()])
        .resolve("localhost", running.addr)
        .no_proxy()
        .build()
        .unwrap();
    let url = format!("https://localhost:{}/push?action=cdr", running.addr.port());
    let replies = (0..20).map(|id| client.post(&url).header("x-tccc-push-uuid", id.to_string()).body("{}").send());
    for reply in futures::future::join_all(replies).await {
        let reply = reply.unwrap();
        assert_eq!((reply.version(), reply.status().as_u16()), (http::Version::HTTP_2, 200));
    }
    assert_eq!(running.journal.bodies().len(), 20);
    let refused = client.post(&url).header("x-tccc-push-uuid", "slow").body(vec![b'x'; 2 << 20]).send().await.unwrap();
    assert_eq!(refused.status().as_u16(), 413);
}
