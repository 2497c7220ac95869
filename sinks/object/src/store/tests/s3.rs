//! Against a real S3 server that checks signatures, checksums and parts.

use std::net::SocketAddr;

use test_servers::s3::{ACCESS_KEY_ID, DOMAIN, S3, SECRET_ACCESS_KEY};

use super::*;

fn toml(endpoint: &str, bucket: &str, secret: &str) -> String {
    format!(
        "provider = 's3'\nbucket = '{bucket}'\nendpoint = '{endpoint}'\nregion = 'us-east-1'\naccess_key_id = '{ACCESS_KEY_ID}'\nsecret_access_key = '{secret}'\n"
    )
}

fn by_path(server: &S3, bucket: &str, secret: &str) -> Store {
    store(&(toml(&server.endpoint(), bucket, secret) + "path_style = true"))
}

#[tokio::test]
async fn objects_of_every_size_arrive_whole() {
    let server = S3::start(&["archive"]);
    let store = by_path(&server, "archive", SECRET_ACCESS_KEY);
    store.probe().await.unwrap();
    for length in [0, 1, 5 << 20, (5 << 20) + 1, 12 << 20] {
        let key = format!("a/b=c/object-{length}.bin");
        let content = bytes(length);
        assert_eq!(store.length_of(&key).await.unwrap(), None);
        let stored = put(&store, &key, &content).await.unwrap();
        assert_eq!(stored.length_bytes, length as u64);
        assert_eq!(std::fs::read(server.bucket_dir("archive").join(&key)).unwrap(), content);
        assert_eq!(store.length_of(&key).await.unwrap(), Some(length as u64));
        assert_eq!(store.digest(&key).await.unwrap(), Some(stored));
        assert_eq!(put(&store, &key, &bytes(3)).await.unwrap().length_bytes, 3, "it is replaced");
    }
    assert_eq!(keys(&store, "a/").await.len(), 5);
    assert_eq!(keys(&store, "a/b=c/object-0.bin/").await, Vec::<String>::new());
    assert_eq!(store.digest("not/there").await.unwrap(), None);
}

#[tokio::test]
async fn what_is_new_replaces_nothing() {
    let server = S3::start(&["archive"]);
    let store = by_path(&server, "archive", SECRET_ACCESS_KEY);
    for length in [10, 6 << 20] {
        let key = format!("a/object-{length}");
        let first = put_new(&store, &key, &bytes(length)).await.unwrap();
        let fault = store.fault(put_new(&store, &key, &bytes(length + 1)).await.unwrap_err());
        assert_eq!(fault.code, "key-taken", "{}", fault.reason);
        assert_eq!(store.digest(&key).await.unwrap(), Some(first));
        assert_eq!(large_files(&server), usize::from(length > 5 << 20), "parts of the second remain");
        put(&store, &key, &bytes(length - 1)).await.unwrap();
    }
}

#[tokio::test]
async fn virtual_host_style_works_too() {
    let server = S3::start_with_virtual_hosts(&["archive"]);
    let endpoint = format!("http://{DOMAIN}:{}", server.addr().port());
    let settings = settings(&toml(&endpoint, "archive", SECRET_ACCESS_KEY));
    let client = reqwest::Client::builder().resolve(&format!("archive.{DOMAIN}"), server.addr());
    let store = Store::with_client(&settings, client).unwrap();
    let content = bytes(6 << 20);
    put(&store, "v/object", &content).await.unwrap();
    assert_eq!(std::fs::read(server.bucket_dir("archive").join("v/object")).unwrap(), content);
}

#[tokio::test]
async fn what_a_store_refuses_has_a_code_and_no_secret() {
    let server = S3::start(&["archive"]);
    let canary = "canary-secret-0123456789";
    let nobody = SocketAddr::from(([127, 0, 0, 1], test_servers::process::free_port()));
    let cases = [
        (by_path(&server, "archive", canary), "bad-credentials"),
        (by_path(&server, "missing", SECRET_ACCESS_KEY), "no-such-bucket"),
        (store(&(toml(&format!("http://{nobody}"), "archive", canary) + "path_style = true")), "unreachable"),
    ];
    for (store, code) in cases {
        for error in [store.probe().await.unwrap_err(), put(&store, "a/b", &bytes(10)).await.unwrap_err()] {
            let shown = format!("{error:?}");
            let fault = store.fault(error);
            assert_eq!(fault.code, code, "{}", fault.reason);
            assert!(fault.reason.starts_with("bucket "), "{}", fault.reason);
            assert!(!(shown + &fault.reason).contains(canary));
        }
    }
}

#[tokio::test]
async fn an_abandoned_upload_leaves_nothing() {
    let server = S3::start(&["archive"]);
    let store = by_path(&server, "archive", SECRET_ACCESS_KEY);
    let mut upload = store.begin("a/b", &Description::default()).await.unwrap();
    for _ in 0..3 {
        upload.write(bytes(5 << 20)).await.unwrap();
    }
    assert!(large_files(&server) > 0, "parts of it are there before");
    upload.abandon().await;
    assert_eq!(large_files(&server), 0, "parts remain");
    assert_eq!(keys(&store, "").await, Vec::<String>::new());
}

/// Files as large as a part: objects, and the parts of unfinished uploads, which the server keeps in hidden folders of the bucket.
fn large_files(server: &S3) -> usize {
    fn count(dir: &std::path::Path) -> usize {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let count_of = |path: std::path::PathBuf| match path.is_dir() {
            true => count(&path),
            false => usize::from(path.metadata().is_ok_and(|metadata| metadata.len() >= 5 << 20)),
        };
        entries.map(|entry| count_of(entry.path())).sum()
    }
    count(&server.bucket_dir("archive"))
}
