//! TLS: HTTP/2 where it is offered, our own certificate, and whom we trust.

use std::path::Path;
use std::sync::Arc;

use hyper::Version;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sink_api::conformance::{batch, event};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto};

use crate::receiver::{Answer, Receiver, deliver, sink, told};

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Ca {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A server for `localhost`; with `clients`, it asks for a certificate of theirs.
fn acceptor(ca: &Ca, clients: Option<&Ca>, protocols: &[&str]) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, ca).unwrap();
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

fn write_ca(dir: &Path, ca: &Ca) -> String {
    let path = dir.join("ca.pem");
    std::fs::write(&path, ca.pem()).unwrap();
    format!("ca_file = {path:?}")
}

fn write_client(dir: &Path, ca: &Ca) -> String {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["client".to_owned()]).unwrap().signed_by(&key, ca).unwrap();
    let (cert_file, key_file) = (dir.join("client.pem"), dir.join("client.key"));
    std::fs::write(&cert_file, certificate.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    format!("cert_file = {cert_file:?}, key_file = {key_file:?}")
}

fn url(receiver: &Receiver) -> String {
    format!("https://localhost:{}/hook?token=hunter2", receiver.address.port())
}

#[tokio::test]
async fn http_2_is_spoken_where_it_is_offered() {
    let (dir, ca) = (tempfile::tempdir().unwrap(), ca());
    let trust = write_ca(dir.path(), &ca);
    for (protocols, version) in
        [(&["h2", "http/1.1"][..], Version::HTTP_2), (&["http/1.1"], Version::HTTP_11), (&[], Version::HTTP_11)]
    {
        let receiver = Receiver::start_with(Some(acceptor(&ca, None, protocols)), |_| Answer::status(200)).await;
        let sink = sink(&url(&receiver), &format!("tls = {{ {trust} }}"));
        sink.probe().await.unwrap();
        let events = (0..200).map(|n| event(&format!("p-{n}"), &format!("s-{}", n % 20))).collect();
        let outcomes = sink.deliver(&batch(0, 1, events)).await;
        assert!(outcomes.iter().all(|outcome| told(outcome).0 == "delivered"));
        let posted = receiver.posted();
        assert_eq!(posted.len(), 200);
        assert!(posted.iter().all(|received| received.version == version));
        if version == Version::HTTP_2 {
            assert_eq!(receiver.connections(), 1, "streams share a connection");
        }
    }
}

#[tokio::test]
async fn a_certificate_of_ours_is_shown_where_it_is_asked_for() {
    let (dir, ca, clients) = (tempfile::tempdir().unwrap(), ca(), ca());
    let (trust, own) = (write_ca(dir.path(), &ca), write_client(dir.path(), &clients));
    let receiver =
        Receiver::start_with(Some(acceptor(&ca, Some(&clients), &["h2", "http/1.1"])), |_| Answer::status(200)).await;
    let without = sink(&url(&receiver), &format!("tls = {{ {trust} }}"));
    assert_eq!(told(&deliver(&*without).await), ("away", "tls"));
    let with = sink(&url(&receiver), &format!("tls = {{ {trust}, {own} }}"));
    assert_eq!(told(&deliver(&*with).await).0, "delivered");
}

#[tokio::test]
async fn a_receiver_whom_nobody_vouches_for_is_not_trusted() {
    let (dir, ca, other) = (tempfile::tempdir().unwrap(), ca(), ca());
    let receiver = Receiver::start_with(Some(acceptor(&ca, None, &[])), |_| Answer::status(200)).await;
    let other = format!("tls = {{ {} }}", write_ca(dir.path(), &other));
    assert_eq!(told(&deliver(&*sink(&url(&receiver), &other)).await), ("away", "tls"));
    let trusted = format!("tls = {{ {} }}", write_ca(dir.path(), &ca));
    let by_address = url(&receiver).replace("localhost", "127.0.0.1");
    assert_eq!(told(&deliver(&*sink(&by_address, &trusted)).await), ("away", "tls"));
    assert_eq!(sink(&by_address, &trusted).probe().await.unwrap_err().code, "tls");
    assert_eq!(receiver.received().len(), 0);
}
