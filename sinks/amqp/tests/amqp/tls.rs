//! TLS against a broker that asks for certificates.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use test_servers::rabbitmq::{RabbitMq, Tls};

use crate::support::{deliver_alike, events, sink_at};

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ca_file: PathBuf,
}

impl Authority {
    fn new(dir: &Path, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let ca_file = dir.join(format!("{name}.crt"));
        std::fs::write(&ca_file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), ca_file }
    }

    /// Certificate and key for `host`.
    fn issue(&self, dir: &Path, host: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let (cert_file, key_file) = (dir.join(format!("{host}.crt")), dir.join(format!("{host}.key")));
        std::fs::write(&cert_file, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        (cert_file, key_file)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_show_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let (trusted, foreign) = (Authority::new(dir.path(), "trusted"), Authority::new(dir.path(), "foreign"));
    let (cert_file, key_file) = trusted.issue(dir.path(), "localhost");
    let files = Tls { ca_file: &trusted.ca_file, cert_file: &cert_file, key_file: &key_file };
    let broker = RabbitMq::start_with("", Some(files));
    let (client_cert, client_key) = trusted.issue(dir.path(), "client");
    let toml = |ca: &Path, identity: bool| {
        let identity =
            if identity { format!(", cert_file = {client_cert:?}, key_file = {client_key:?}") } else { String::new() };
        format!("exchange = \"tls\"\ndeclare = {{ queue = \"tls\" }}\ntls = {{ ca_file = {ca:?}{identity} }}")
    };

    let sink = sink_at(&broker.tls_url(), &toml(&trusted.ca_file, true));
    assert_eq!(deliver_alike(&sink, events("tls", 100)).await, "delivered");
    sink.close().await;
    assert_eq!(broker.reader().drain("tls").len(), 100);

    let wary = sink_at(&broker.tls_url(), &toml(&foreign.ca_file, true));
    assert_eq!(deliver_alike(&wary, events("wary", 1)).await, "away tls");
    let unknown = sink_at(&broker.tls_url(), &toml(&trusted.ca_file, false));
    let outcome = deliver_alike(&unknown, events("unknown", 1)).await;
    // The broker may close before its complaint is read.
    assert!(["away tls", "away connection-lost", "away connect"].contains(&outcome.as_str()), "{outcome}");
    let other_name = sink_at(&broker.tls_url().replace("localhost", "127.0.0.1"), &toml(&trusted.ca_file, true));
    assert_eq!(deliver_alike(&other_name, events("name", 1)).await, "away tls");
}
