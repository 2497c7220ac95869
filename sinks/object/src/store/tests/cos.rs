//! COS by its own protocol, every request of which the vendor's SDK signs again.

use test_servers::cos::{BUCKET, Cos, DOMAIN, SECRET_ID, SECRET_KEY};

use super::*;

fn of(server: &Cos, secret: &str) -> Store {
    let toml = format!(
        "provider = 'cos'\nbucket = '{BUCKET}'\nendpoint = '{}'\naccess_key_id = '{SECRET_ID}'\nsecret_access_key = '{secret}'",
        server.endpoint()
    );
    let client = reqwest::Client::builder().resolve(&format!("{BUCKET}.{DOMAIN}"), server.addr());
    Store::with_client(&settings(&toml), client).unwrap()
}

#[tokio::test]
async fn objects_of_every_size_arrive_whole() {
    let server = Cos::start();
    let store = of(&server, SECRET_KEY);
    store.probe().await.unwrap();
    for length in [0, 1, 5 << 20, (5 << 20) + 1] {
        let key = format!("a/b=c/object-{length}.bin");
        assert_eq!(store.length_of(&key).await.unwrap(), None);
        let stored = put(&store, &key, &bytes(length)).await.unwrap();
        assert_eq!(stored.length_bytes, length as u64);
        assert_eq!(store.digest(&key).await.unwrap(), Some(stored));
    }
    put(&store, "other/object", &bytes(3)).await.unwrap();
    assert_eq!(keys(&store, "a/").await.len(), 4);
    assert_eq!(keys(&store, "").await.len(), 5);
}

#[tokio::test]
async fn a_wrong_secret_is_refused_and_an_abandoned_upload_gone() {
    let server = Cos::start();
    let error = put(&of(&server, "canary-wrong"), "a/b", &bytes(10)).await.unwrap_err();
    let fault = of(&server, "canary-wrong").fault(error);
    assert_eq!(fault.code, "bad-credentials", "{}", fault.reason);
    assert!(!fault.reason.contains("canary"));
    let store = of(&server, SECRET_KEY);
    let mut upload = store.begin("a/b", &Description::default()).await.unwrap();
    for _ in 0..3 {
        upload.write(bytes(5 << 20)).await.unwrap();
    }
    upload.abandon().await;
    assert_eq!(store.length_of("a/b").await.unwrap(), None);
}
