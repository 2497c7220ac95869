//! What a server must promise before the journal opens on it.

use test_servers::redis::{Program, Redis};

use super::super::{Durability, Mode, OpenError, Options, RedisJournal};
use super::support::{open, options, place};
use crate::journal::Journal;
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
async fn another_number_of_shards_than_the_journal_was_made_with_is_refused() {
    let redis = Redis::start_durable(Program::Redis);
    drop(open(at(&redis, Durability::Fsync)).await);
    let other = Options { shards: 4, ..at(&redis, Durability::Fsync) };
    let refused = RedisJournal::open(other, Metrics::new().journal).await.err().unwrap();
    assert!(matches!(refused, OpenError::Shards { found: 3, wanted: 4 }), "{refused}");
}
