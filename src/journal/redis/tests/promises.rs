//! What a server must promise before the journal opens on it.

use test_servers::redis::{DURABLE, Program, Redis};

use super::super::connect::Servers;
use super::super::{Durability, Mode, OpenError, Options, RedisJournal, try_servers};
use super::support::{open, options, place};
use crate::journal::{Journal, conformance};
use crate::metrics::Metrics;

async fn refusal(options: Options) -> String {
    match RedisJournal::open(options, Metrics::new().journal).await {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

fn at(redis: &Redis, durability: Durability) -> Options {
    options(place(Mode::Standalone, vec![redis.url()]), durability)
}

#[tokio::test]
async fn a_server_that_promises_less_is_refused_unless_that_is_agreed() {
    let redis = Redis::start(Program::Redis, &["appendonly no"]);
    let said = refusal(at(&redis, Durability::Fsync)).await;
    for setting in ["appendonly", "appendfsync always", "maxmemory"] {
        assert!(said.contains(setting), "{setting} is missing in: {said}");
    }
    assert!(refusal(at(&redis, Durability::Replicated)).await.contains("min-replicas-to-write"));
    assert!(refusal(at(&redis, Durability::Strict)).await.contains("WAITAOF"));
    let weaker = Options { allow_weaker: true, ..at(&redis, Durability::Fsync) };
    assert_eq!(open(weaker).await.journal.health().trouble, None);
}

#[tokio::test]
async fn where_config_is_forbidden_that_is_said() {
    let redis = Redis::start_durable(Program::Redis);
    redis.command(&["ACL", "SETUSER", "gateway", "on", ">pw", "~*", "&*", "+@all", "-config"]);
    let mut options = at(&redis, Durability::Fsync);
    options.place.username = Some("gateway".to_owned());
    options.place.password = Some("pw".to_owned().into());
    let said = refusal(options.clone()).await;
    assert!(said.contains("+config|get"), "{said}");
    assert!(!said.contains("pw"), "{said}");
    open(Options { allow_weaker: true, ..options }).await;
}

#[tokio::test]
async fn the_rights_that_the_readme_names_are_enough() {
    let redis = Redis::start_durable(Program::Redis);
    redis.command(&["ACL", "SETUSER", "gateway", "on", ">pw", "~t:*", "+@all", "-@admin", "+config|get"]);
    redis.command(&["ACL", "SETUSER", "default", "off"]);
    let mut options = at(&redis, Durability::Fsync);
    options.place.username = Some("gateway".to_owned());
    options.place.password = Some("pw".to_owned().into());
    let opened = open(options).await;
    opened.journal.accept(conformance::push("1", "s", 0)).await.unwrap();
    opened.journal.close().await;
}

#[tokio::test]
async fn a_server_behind_tls_is_reached_and_a_foreign_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let own = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let (cert, key) = (dir.path().join(format!("{name}.crt")), dir.path().join(format!("{name}.key")));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        (cert, key)
    };
    let ((cert, key), (foreign, _)) = (own("server"), own("foreign"));
    let port = test_servers::process::free_port();
    let tls = [
        format!("tls-port {port}"),
        format!("tls-cert-file {}", cert.display()),
        format!("tls-key-file {}", key.display()),
        format!("tls-ca-cert-file {}", cert.display()),
        "tls-auth-clients no".to_owned(),
    ];
    let config: Vec<&str> = DURABLE.into_iter().chain(tls.iter().map(String::as_str)).collect();
    let _redis = Redis::start(Program::Redis, &config);
    let mut options = options(place(Mode::Standalone, vec![format!("rediss://127.0.0.1:{port}")]), Durability::Fsync);
    options.place.tls.ca_file = Some(cert);
    open(options.clone()).await.journal.accept(conformance::push("1", "s", 0)).await.unwrap();
    options.place.tls.ca_file = Some(foreign);
    let servers = Servers::new(options.place.clone()).unwrap();
    assert!(matches!(try_servers(&servers, &options).await, Err(OpenError::Connect(_))));
}

#[tokio::test]
async fn another_number_of_shards_than_the_journal_was_made_with_is_refused() {
    let redis = Redis::start_durable(Program::Redis);
    drop(open(at(&redis, Durability::Fsync)).await);
    let other = Options { shards: 4, ..at(&redis, Durability::Fsync) };
    let refused = RedisJournal::open(other, Metrics::new().journal).await.err().unwrap();
    assert!(matches!(refused, OpenError::Shards { found: 3, wanted: 4 }), "{refused}");
}
