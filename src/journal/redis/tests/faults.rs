//! What a fault of Redis costs: no acknowledgement that is not durable, refusals while it lasts, and nothing once it is over. The
//! rows of the table in ARCHITECTURE.md, one by one.

use std::time::Duration;

use test_servers::redis::{Program, Redis};

use super::super::{Durability, Mode, Options};
use super::support::{Opened, Proxy, accept_soon, ids, offset_of, open, options, place, until};
use crate::journal::conformance::{letter, push, read_all, shard};
use crate::journal::{AcceptError, Accepted, Checkpoint, Error, Item, Journal, Start};
use crate::names::{Offset, SinkName};

async fn journal_at(url: String) -> Opened {
    open(options(place(Mode::Standalone, vec![url]), Durability::Fsync)).await
}

fn is_refused(answer: &Result<Accepted, AcceptError>) -> bool {
    matches!(answer, Err(AcceptError::Unavailable { .. } | AcceptError::Unknown { .. }))
}

#[tokio::test]
async fn while_redis_is_gone_pushes_are_refused_and_what_was_taken_is_there_afterwards() {
    let mut redis = Redis::start_durable(Program::Redis);
    let Opened { journal, tasks: _tasks } = journal_at(redis.url()).await;
    let first = push("1", "s", 0);
    let offset = offset_of(journal.accept(first.clone()).await.unwrap());
    redis.kill();
    assert!(is_refused(&journal.accept(push("2", "s", 1)).await));
    assert!(journal.health().trouble.is_some());
    assert!(journal.sinks().await.is_err());
    redis.start_again();
    assert_eq!(accept_soon(&*journal, &first).await, Accepted::Duplicate { offset, same_body: true });
    assert!(offset_of(accept_soon(&*journal, &push("3", "s", 2)).await) > offset);
    until("the journal is well", || async { journal.health().trouble.is_none() }).await;
    let ids = ids(&*journal).await;
    assert_eq!(ids.iter().filter(|id| *id == "1").count(), 1);
}

#[tokio::test]
async fn a_journal_that_nobody_writes_to_notices_that_redis_is_back() {
    let mut redis = Redis::start_durable(Program::Redis);
    let Opened { journal, tasks: _tasks } = journal_at(redis.url()).await;
    redis.kill();
    assert!(is_refused(&journal.accept(push("1", "s", 0)).await));
    redis.start_again();
    until("the journal is well", || async { journal.health().trouble.is_none() }).await;
}

#[tokio::test]
async fn a_stalled_redis_refuses_and_a_resend_finds_out() {
    let redis = Redis::start_durable(Program::Redis);
    let Opened { journal, tasks: _tasks } = journal_at(redis.url()).await;
    accept_soon(&*journal, &push("0", "s", 0)).await;
    redis.pause();
    let stalled = push("1", "s", 1);
    assert!(matches!(journal.accept(stalled.clone()).await, Err(AcceptError::Unknown { .. })));
    assert!(journal.health().trouble.is_some());
    redis.resume();
    accept_soon(&*journal, &stalled).await;
    assert_eq!(ids(&*journal).await.iter().filter(|id| *id == "1").count(), 1);
}

#[tokio::test]
async fn a_lost_reply_is_asked_for_again_and_the_push_stands_once() {
    let redis = Redis::start_durable(Program::Redis);
    let proxy = Proxy::to(redis.port()).await;
    let Opened { journal, tasks: _tasks } = journal_at(proxy.url.clone()).await;
    accept_soon(&*journal, &push("0", "s", 0)).await;
    proxy.swallow_replies_once();
    let asked = tokio::spawn({
        let journal = std::sync::Arc::clone(&journal);
        async move { journal.accept(push("1", "s", 1)).await }
    });
    until("it is written", || async { redis.command(&["DBSIZE"]) != "0" && written(&redis) == 2 }).await;
    proxy.hear_again();
    assert!(matches!(asked.await.unwrap(), Ok(Accepted::New { .. })), "its own duplicate counts as accepted");
    assert_eq!(written(&redis), 2);
}

/// Entries in all shards.
fn written(redis: &Redis) -> u64 {
    (0..3).map(|shard| redis.command(&["XLEN", &format!("t:{{p{shard}}}:log")]).parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn a_read_only_redis_refuses_until_it_is_a_master_again() {
    let redis = Redis::start_durable(Program::Redis);
    let Opened { journal, tasks: _tasks } = journal_at(redis.url()).await;
    accept_soon(&*journal, &push("0", "s", 0)).await;
    redis.command(&["REPLICAOF", "127.0.0.1", "1"]);
    let refused = journal.accept(push("1", "s", 1)).await;
    assert!(matches!(refused, Err(AcceptError::Unavailable { .. })), "{refused:?}");
    redis.command(&["REPLICAOF", "NO", "ONE"]);
    accept_soon(&*journal, &push("1", "s", 1)).await;
    assert_eq!(ids(&*journal).await, ["0", "1"]);
}

#[tokio::test]
async fn without_its_replicas_a_master_that_needs_them_refuses() {
    let redis = Redis::start_durable(Program::Redis);
    let Opened { journal, tasks: _tasks } = journal_at(redis.url()).await;
    redis.command(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let refused = journal.accept(push("1", "s", 1)).await;
    assert!(matches!(refused, Err(AcceptError::Unavailable { .. })), "{refused:?}");
    redis.command(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    accept_soon(&*journal, &push("1", "s", 1)).await;
}

#[tokio::test]
async fn without_memory_new_pushes_are_refused_and_known_ones_answered() {
    let redis = Redis::start_durable(Program::Redis);
    let Opened { journal, tasks: _tasks } = journal_at(redis.url()).await;
    let sink: SinkName = "s".into();
    journal.register_sink(&sink, Start::Oldest).await.unwrap();
    let known = push("1", "s", 0);
    let offset = offset_of(accept_soon(&*journal, &known).await);
    let shard = shard(&*journal, &known);
    let fence = journal.lease(&sink, shard).await.unwrap().unwrap().fence;
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let full = journal.accept(push("2", "s", 1)).await;
    assert!(matches!(full, Err(AcceptError::Full { .. })), "{full:?}");
    assert_eq!(journal.accept(known.clone()).await, Ok(Accepted::Duplicate { offset, same_body: true }));
    until("it says so", || async { journal.health().trouble.is_some() }).await;
    let derived = journal.accept_derived(push("1/derived", "s", 0)).await;
    assert!(matches!(derived, Ok(Accepted::New { .. })), "its event could not be settled without it: {derived:?}");
    let settled = Checkpoint { low: offset, ..Checkpoint::default() };
    let dead = vec![letter(&sink, shard, offset, &known)];
    journal.dead_letter(&fence, dead, 10, &settled).await.expect("settling goes on");
    redis.command(&["CONFIG", "SET", "maxmemory", "256mb"]);
    accept_soon(&*journal, &push("2", "s", 1)).await;
    until("the journal is well", || async { journal.health().trouble.is_none() }).await;
}

#[tokio::test]
async fn a_redis_that_loads_its_data_is_waited_for() {
    let mut redis = Redis::start_durable(Program::Redis);
    let Opened { journal, tasks: _tasks } = journal_at(redis.url()).await;
    for round in 0..10 {
        let pushes = (0..40).map(|n| journal.accept(push(&format!("{round}-{n}"), &format!("s{n}"), 0)));
        assert!(futures::future::join_all(pushes).await.iter().all(Result::is_ok));
    }
    redis.kill();
    redis.reconfigure(&["key-load-delay 500"]);
    redis.launch();
    let is_loading = || redis.try_command(&["PING"]).is_err_and(|error| error.to_string().contains("LOADING"));
    until("it loads", || async { is_loading() }).await;
    let refused = journal.accept(push("late", "s", 0)).await;
    assert!(is_refused(&refused) || refused.is_ok(), "{refused:?}");
    accept_soon(&*journal, &push("late", "s", 0)).await;
    assert_eq!(ids(&*journal).await.len(), 401);
}

/// What must hold after Redis lost everything while a sink was at work.
async fn goes_on_after_a_loss(lose: impl FnOnce(&mut Redis)) {
    let mut redis = Redis::start_durable(Program::Redis);
    let Opened { journal, tasks: _tasks } = journal_at(redis.url()).await;
    let sink: SinkName = "s".into();
    journal.register_sink(&sink, Start::Now).await.unwrap();
    let before = push("1", "s", 0);
    let offset = offset_of(accept_soon(&*journal, &before).await);
    let shard = shard(&*journal, &before);
    let fence = journal.lease(&sink, shard).await.unwrap().unwrap().fence;
    let origin = journal_at(redis.url()).await.journal.origin();
    assert_eq!(journal.origin(), origin);
    lose(&mut redis);
    let after = push("2", "s", 1);
    let next = offset_of(accept_soon(&*journal, &after).await);
    assert!(next > offset, "no offset is given twice");
    tokio::time::timeout(Duration::from_secs(5), journal.wait_past(shard, offset, Duration::from_secs(60)))
        .await
        .expect("a reader behind what is lost sees what comes");
    let old = journal.commit(&fence, &Checkpoint { low: next, ..Checkpoint::default() }).await;
    assert!(matches!(old, Err(Error::Fenced { .. } | Error::UnknownSink(_))), "{old:?}");
    journal.recalled(&fence).await;
    until("the sink is there again", || async { journal.sinks().await.is_ok_and(|sinks| sinks.contains(&sink)) }).await;
    let lease = journal.lease(&sink, shard).await.unwrap().unwrap();
    let items = read_all(&*journal, shard, lease.checkpoint.low).await;
    assert_eq!(items.iter().map(|item| item.entry().offset).collect::<Vec<_>>(), [next], "from the oldest entry on");
    assert_eq!(journal.backlog(&sink).await.unwrap().pending, 1);
    journal.commit(&lease.fence, &Checkpoint { low: next, ..Checkpoint::default() }).await.unwrap();
    assert!(matches!(accept_soon(&*journal, &before).await, Accepted::New { .. }), "its mark is lost as well");
    assert_ne!(journal_at(redis.url()).await.journal.origin().journal, origin.journal);
}

#[tokio::test]
async fn after_flushall_the_sinks_go_on_at_the_oldest_entry() {
    goes_on_after_a_loss(|redis| {
        redis.command(&["FLUSHALL"]);
    })
    .await;
}

#[tokio::test]
async fn after_a_restart_without_data_the_sinks_go_on_at_the_oldest_entry() {
    goes_on_after_a_loss(|redis| {
        redis.lose_everything();
        redis.start_again();
    })
    .await;
}

#[tokio::test]
async fn flushed_scripts_are_taught_again() {
    let redis = Redis::start_durable(Program::Redis);
    let Opened { journal, tasks: _tasks } = journal_at(redis.url()).await;
    let sink: SinkName = "s".into();
    journal.register_sink(&sink, Start::Oldest).await.unwrap();
    let first = push("1", "s", 0);
    let offset = offset_of(journal.accept(first.clone()).await.unwrap());
    redis.command(&["SCRIPT", "FLUSH"]);
    journal.accept(push("2", "s", 1)).await.unwrap();
    let fence = journal.lease(&sink, shard(&*journal, &first)).await.unwrap().unwrap().fence;
    redis.command(&["SCRIPT", "FLUSH"]);
    journal.commit(&fence, &Checkpoint { low: offset, ..Checkpoint::default() }).await.unwrap();
}

#[tokio::test]
async fn an_entry_that_does_not_match_its_checksum_is_said_to_be_damaged() {
    let redis = Redis::start_durable(Program::Redis);
    let Opened { journal, tasks: _tasks } = journal_at(redis.url()).await;
    let sound = push("1", "s", 0);
    let offset = offset_of(journal.accept(sound.clone()).await.unwrap());
    let shard = shard(&*journal, &sound);
    redis.command(&[
        "XADD",
        &format!("t:{{p{shard}}}:log"),
        &format!("{}-0", offset.0 + 1),
        "m",
        "no",
        "d",
        "{}",
        "b",
        "0",
    ]);
    let items = read_all(&*journal, shard, Offset::ZERO).await;
    assert!(matches!(items.as_slice(), [Item::Entry(_), Item::Corrupt { .. }]), "{items:?}");
}

#[tokio::test]
async fn memory_is_bounded_and_given_back_when_all_sinks_have_settled() {
    let redis = Redis::start_durable(Program::Redis);
    let small = options(place(Mode::Standalone, vec![redis.url()]), Durability::Fsync);
    let Opened { journal, tasks: _tasks } = open(Options { size_max: 40_000, shards: 1, ..small }).await;
    let sink: SinkName = "s".into();
    journal.register_sink(&sink, Start::Oldest).await.unwrap();
    let mut last = Offset::ZERO;
    let mut taken = 0;
    let full = loop {
        let mut large = push(&taken.to_string(), "s", 0);
        large.body = vec![b'x'; 1000].into();
        match journal.accept(large).await {
            Ok(accepted) => (taken, last) = (taken + 1, offset_of(accepted)),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, AcceptError::Full { limit: 40_000, .. }), "{full:?}");
    assert!((25..40).contains(&taken), "{taken}");
    let mut first = push("0", "s", 0);
    first.body = vec![b'x'; 1000].into();
    assert!(matches!(journal.accept(first).await, Ok(Accepted::Duplicate { same_body: true, .. })));
    let derived = journal.accept_derived(push("0/derived", "s", 0)).await.expect("what follows from an event has room");
    last = last.max(offset_of(derived));
    let fence = journal.lease(&sink, 0).await.unwrap().unwrap().fence;
    journal.commit(&fence, &Checkpoint { low: last, ..Checkpoint::default() }).await.unwrap();
    until("all is given back", || async { (journal.health().bytes, journal.health().entries) == (0, 0) }).await;
    accept_soon(&*journal, &push("new", "s", 0)).await;
}
