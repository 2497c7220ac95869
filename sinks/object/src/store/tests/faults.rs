//! A store that misbehaves.

use std::time::{Duration, Instant};

use test_servers::s3::{ACCESS_KEY_ID, S3, SECRET_ACCESS_KEY};

use super::scripted::{Act, Scripted, agreeable, refusal};
use super::*;

fn by(server: &Scripted, more: &str) -> Store {
    let toml = format!(
        "provider = 's3'\nbucket = 'archive'\nendpoint = 'http://{}'\npath_style = true\naccess_key_id = '{ACCESS_KEY_ID}'\nsecret_access_key = '{SECRET_ACCESS_KEY}'\n{more}",
        server.addr
    );
    store(&toml)
}

async fn code_of_put(store: &Store, length: usize) -> String {
    let error = put(store, "a/b", &bytes(length)).await.expect_err("it is not stored");
    store.fault(error).code.into_owned()
}

#[tokio::test]
async fn a_store_that_asks_for_patience_says_until_when() {
    let slow_down = |_: usize, _: &str| Act::Answer(refusal("503 Slow Down", "retry-after: 7\r\n", "SlowDown"));
    let store = by(&Scripted::start(None, slow_down), "");
    let error = put(&store, "a/b", &bytes(10)).await.unwrap_err();
    assert_eq!(error.after(), Some(Duration::from_secs(7)));
    assert_eq!(store.fault(error).code, "slow-down");
    assert_eq!(store.fault(store.probe().await.unwrap_err()).code, "slow-down");
}

#[tokio::test]
async fn a_store_that_knows_no_conditions_is_asked_without() {
    let real = S3::start(&["archive"]);
    let script = |_: usize, head: &str| match head.to_lowercase().contains("if-none-match") {
        true => Act::Answer(refusal("501 Not Implemented", "", "NotImplemented")),
        false => Act::Pass,
    };
    for length in [10, 6 << 20] {
        let store = by(&Scripted::start(Some(real.addr()), script), "");
        let key = format!("a/object-{length}");
        assert!(put_new(&store, &key, &bytes(length)).await.is_err());
        put_new(&store, &key, &bytes(length)).await.unwrap();
        assert_eq!(store.length_of(&key).await.unwrap(), Some(length as u64));
    }
}

/// Whichever reply of an upload in parts is damaged: there is an error, and the next try succeeds.
#[tokio::test]
async fn a_reply_that_breaks_off_is_no_success() {
    let real = S3::start(&["archive"]);
    let requests = 5;
    for damaged in 0..requests {
        let script = move |number: usize, head: &str| match number == damaged {
            true if head.starts_with("HEAD") => Act::Cut(4),
            true => Act::Cut(20),
            false => Act::Pass,
        };
        let store = by(&Scripted::start(Some(real.addr()), script), "");
        let first = put(&store, "a/b", &bytes(6 << 20)).await;
        assert!(first.is_err(), "reply {damaged} broke off");
        put(&store, "a/b", &bytes(6 << 20)).await.unwrap();
    }
    assert_eq!(std::fs::read(real.bucket_dir("archive").join("a/b")).unwrap(), bytes(6 << 20));
}

#[tokio::test]
async fn a_store_that_took_something_else_is_found_out() {
    let wrong_etag = |_: usize, head: &str| match head.starts_with("PUT") {
        true => Act::Answer(format!(
            "HTTP/1.1 200 OK\r\netag: \"{}\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            "0".repeat(32)
        )),
        false => agreeable(head, 10),
    };
    assert_eq!(code_of_put(&by(&Scripted::start(None, wrong_etag), ""), 10).await, "checksum-mismatch");
    let wrong_length = |_: usize, head: &str| agreeable(head, 9);
    assert_eq!(code_of_put(&by(&Scripted::start(None, wrong_length), ""), 10).await, "checksum-mismatch");
    let error_within = |_: usize, head: &str| {
        let post = head.starts_with("POST");
        match head {
            _ if post && head.contains("uploads") => {
                let body = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>";
                Act::Answer(format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                ))
            }
            _ if post => Act::Answer(refusal("200 OK", "", "InternalError")),
            _ => agreeable(head, 6 << 20),
        }
    };
    assert_eq!(code_of_put(&by(&Scripted::start(None, error_within), ""), 6 << 20).await, "store-error");
}

#[tokio::test]
async fn every_body_goes_out_with_its_md5() {
    let real = S3::start(&["archive"]);
    let server = Scripted::start(Some(real.addr()), |_, _| Act::Pass);
    put(&by(&server, ""), "a/b", &bytes(6 << 20)).await.unwrap();
    let heads = server.heads();
    let puts: Vec<_> = heads.iter().filter(|head| head.starts_with("put")).collect();
    assert_eq!(puts.len(), 2, "{heads:#?}");
    assert!(puts.iter().all(|head| head.contains("\r\ncontent-md5: ")), "{puts:#?}");
}

#[tokio::test]
async fn a_store_that_hangs_is_given_up() {
    let store = by(&Scripted::start(None, |_, _| Act::Hang), "timeout = '300ms'");
    let began = Instant::now();
    assert_eq!(code_of_put(&store, 10).await, "timeout");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn encryption_is_asked_for_by_headers() {
    let of = |encryption: &str| format!("encryption = {encryption}");
    let cases = [
        (of("{ type = 'managed' }"), vec!["x-amz-server-side-encryption: aes256"]),
        (
            of("{ type = 'kms', key_id = 'key-1' }"),
            vec!["x-amz-server-side-encryption: aws:kms", "x-amz-server-side-encryption-aws-kms-key-id: key-1"],
        ),
    ];
    for (more, expected) in cases {
        let server = Scripted::start(None, |_, head| agreeable(head, 10));
        put(&by(&server, &more), "a/b", &bytes(10)).await.unwrap();
        let heads = server.heads();
        for header in expected {
            assert!(heads[0].contains(&format!("\r\n{header}\r\n")), "{header}: {heads:#?}");
        }
    }
}

#[tokio::test]
async fn cos_is_asked_for_encryption_too() {
    let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let cases = [
        ("{ type = 'managed' }".to_owned(), vec!["x-cos-server-side-encryption: aes256"]),
        ("{ type = 'kms' }".to_owned(), vec!["x-cos-server-side-encryption: cos/kms"]),
        (
            format!("{{ type = 'customer', key = '{key}' }}"),
            vec![
                "x-cos-server-side-encryption-customer-algorithm: aes256",
                "x-cos-server-side-encryption-customer-key-md5: mtaymzq1njc4",
            ],
        ),
    ];
    for (encryption, expected) in cases {
        let server = Scripted::start(None, |_, head| agreeable(head, 10));
        let toml = format!(
            "provider = 'cos'\nbucket = 'archive-1250000000'\nendpoint = 'http://cos.test:{}'\naccess_key_id = 'i'\nsecret_access_key = 's'\nencryption = {encryption}",
            server.addr.port()
        );
        let client = reqwest::Client::builder().resolve("archive-1250000000.cos.test", server.addr);
        // A customer's key over plain HTTP is refused by the check; here nothing leaves the machine.
        let store = Store::with_client(&toml::from_str(&toml).unwrap(), client).unwrap();
        put(&store, "a/b", &bytes(10)).await.unwrap();
        let heads = server.heads();
        for header in expected {
            let (name, value) = header.split_once(": ").unwrap();
            let found = heads[0].contains(&format!("\r\n{name}: "))
                && (name.ends_with("md5") || heads[0].contains(&format!(": {value}\r\n")));
            assert!(found, "{header}: {heads:#?}");
        }
        let repeated = heads.iter().filter(|head| head.starts_with("head") && head.contains("customer-key")).count();
        assert_eq!(repeated > 0, encryption.contains("customer"), "{heads:#?}");
    }
}
