//! Encrypted and authenticated connections, and what a refused login looks like.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sink_api::{Context, Format, SinkKind as _};
use test_servers::kafka::{PASSWORD, USER};

use crate::harness::{numbered, shared, sink, told};

fn topic(name: &str) -> String {
    shared().create_topic(name, 1, 1, &[]);
    format!("topic = \"{name}\"\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_shows_our_certificate_and_checks_theirs() {
    let (kafka, topic) = (shared(), topic("encrypted"));
    let files = kafka.certificates();
    let ours = format!("cert_file = {:?}, key_file = {:?}", files.client, files.client_key);
    let known = sink(&kafka.tls_brokers(), &format!("{topic}tls = {{ ca_file = {:?}, {ours} }}", files.ca));
    assert_eq!(known.probe().await, Ok(()));
    assert_eq!(told(&known.deliver(&numbered("encrypted", 3)).await), ["delivered"; 3]);
    known.close().await;

    let stranger = sink(&kafka.tls_brokers(), &format!("{topic}tls = {{ {ours} }}"));
    let fault = stranger.probe().await.unwrap_err();
    assert_eq!(fault.code, "ssl", "{fault:?}");
    assert_eq!(told(&stranger.deliver(&numbered("stranger", 1)).await), ["away ssl"]);
    stranger.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_there_is_found_when_the_sink_is_made() {
    let settings = toml::from_str("brokers = \"k:9092\"\ntls = { ca_file = \"/nowhere/ca.pem\" }").unwrap();
    let context = Context { name: "stream".into(), format: Format::CloudEvents };
    let error = sink_kafka::Kafka::build(settings, context).err().unwrap();
    assert!(error.0.starts_with("tls.ca_file: /nowhere/ca.pem"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_taken_by_plain_and_scram_and_wrong_ones_are_the_sinks_trouble() {
    let (kafka, topic) = (shared(), topic("login"));
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let login = |password: &str| {
            format!("{topic}sasl = {{ mechanism = \"{mechanism}\", username = \"{USER}\", password = \"{password}\" }}")
        };
        let right = sink(&kafka.sasl_brokers(), &login(PASSWORD));
        assert_eq!(told(&right.deliver(&numbered(mechanism, 2)).await), ["delivered"; 2], "{mechanism}");
        assert_eq!(right.probe().await, Ok(()));
        right.close().await;

        let wrong = sink(&kafka.sasl_brokers(), &login("hunter2"));
        let fault = wrong.probe().await.unwrap_err();
        assert_eq!(fault.code, "authentication", "{mechanism}: {fault:?}");
        assert!(!fault.reason.contains("hunter2"), "{fault:?}");
        assert_eq!(told(&wrong.deliver(&numbered(mechanism, 1)).await), ["away authentication"]);
        wrong.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_with_client_credentials() {
    let (kafka, topic) = (shared(), topic("token"));
    let url = token_endpoint();
    let login = |secret: &str| {
        format!(
            "{topic}sasl = {{ mechanism = \"OAUTHBEARER\", token_url = \"{url}\", client_id = \"gateway\", client_secret = \"{secret}\", scope = \"events\" }}"
        )
    };
    let right = sink(&kafka.sasl_brokers(), &login("s3cret"));
    assert_eq!(right.probe().await, Ok(()));
    assert_eq!(told(&right.deliver(&numbered("token", 2)).await), ["delivered"; 2]);
    right.close().await;

    let wrong = sink(&kafka.sasl_brokers(), &login("hunter2"));
    let fault = wrong.probe().await.unwrap_err();
    assert_eq!(fault.code, "token-401", "{fault:?}");
    assert!(!fault.reason.contains("hunter2") && !fault.reason.contains("/private"), "{fault:?}");
    assert_eq!(told(&wrong.deliver(&numbered("wrong", 1)).await), ["away token-401"]);
    wrong.close().await;
}

/// Gives an unsigned token, which Kafka takes by default, for the right secret. Ends with the test's process.
fn token_endpoint() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).unwrap() > 0 {}
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let mut form = vec![0; length.unwrap_or(0)];
            stream.read_exact(&mut form).unwrap();
            assert_eq!(String::from_utf8(form).unwrap(), "grant_type=client_credentials&scope=events");
            // gateway:s3cret
            let is_right = head.contains("Basic Z2F0ZXdheTpzM2NyZXQ=");
            let (status, body) = if is_right { ("200 OK", token()) } else { ("401 Unauthorized", String::new()) };
            let length = body.len();
            write!(
                stream.get_mut(),
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
            .unwrap();
        }
    });
    format!("http://{address}/private/token")
}

fn token() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = format!(r#"{{"sub":"gateway","iat":{now},"exp":{}}}"#, now + 300);
    let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let token = format!("{}.{}.", part(r#"{"alg":"none"}"#), part(&claims));
    format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":300}}"#)
}
