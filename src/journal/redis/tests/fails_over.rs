//! Failovers: with the replicas that a push waits for nothing acknowledged is lost; without, nothing but that is.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use test_servers::redis::{DURABLE, Program, Redis, Watched};
use tokio::task::JoinSet;

use super::super::{Durability, Mode};
use super::support::{Opened, Proxy, accept_soon, ids, offset_of, open, options, place, until};
use crate::journal::conformance::{push, read_all, shard};
use crate::journal::{AcceptError, Accepted, Checkpoint, Error, Journal, Recall, Start};
use crate::names::SinkName;

fn replicated() -> Watched {
    let mut config = DURABLE.to_vec();
    config.extend(["min-replicas-to-write 1", "appendfsync everysec"]);
    Watched::start(Program::Redis, &config)
}

#[tokio::test]
async fn no_push_that_a_replica_confirmed_is_lost_when_the_master_dies_under_load() {
    let mut watched = replicated();
    let place = place(Mode::Sentinel, watched.urls());
    let Opened { journal, tasks: _tasks } = open(options(place, Durability::Replicated)).await;
    let (acknowledged, is_over) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(AtomicBool::new(false)));
    let mut senders = JoinSet::new();
    for sender in 0..16 {
        let (journal, acknowledged, is_over) = (Arc::clone(&journal), Arc::clone(&acknowledged), Arc::clone(&is_over));
        senders.spawn(async move {
            for n in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let id = format!("{sender}-{n}");
                // As the vendor's sender: the same id until it is taken.
                for _ in 0..4 {
                    if journal.accept(push(&id, &format!("s{sender}"), 0)).await.is_ok() {
                        acknowledged.lock().unwrap().insert(id);
                        break;
                    }
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
    }
    let count = || acknowledged.lock().unwrap().len();
    until("pushes are taken", || async { count() > 500 }).await;
    watched.servers[0].kill();
    watched.wait_for_master(1);
    let at_failover = count();
    // The old master comes back as the replica; until then nothing can be confirmed.
    watched.servers[0].start_again();
    until("pushes are taken again", || async { count() > at_failover + 500 }).await;
    is_over.store(true, Ordering::Relaxed);
    senders.join_all().await;
    let there = ids(&*journal).await;
    let unique: BTreeSet<String> = there.iter().cloned().collect();
    assert_eq!(there.len(), unique.len(), "no push stands twice");
    let acknowledged = acknowledged.lock().unwrap();
    let lost: Vec<_> = acknowledged.difference(&unique).collect();
    assert!(lost.is_empty(), "{} of {} are lost", lost.len(), acknowledged.len());
}

#[tokio::test]
async fn without_a_replica_that_confirms_nothing_is_acknowledged() {
    let watched = replicated();
    let place = place(Mode::Sentinel, watched.urls());
    let Opened { journal, tasks: _tasks } = open(options(place, Durability::Replicated)).await;
    let known = push("1", "s", 0);
    let offset = offset_of(accept_soon(&*journal, &known).await);
    watched.servers[1].pause();
    let unconfirmed = push("2", "s", 1);
    let answer = journal.accept(unconfirmed.clone()).await;
    assert!(matches!(answer, Err(AcceptError::Unknown { .. } | AcceptError::Unavailable { .. })), "{answer:?}");
    assert!(journal.health().trouble.is_some());
    assert!(journal.accept(unconfirmed.clone()).await.is_err(), "a duplicate waits for the same");
    watched.servers[1].resume();
    assert_eq!(accept_soon(&*journal, &known).await, Accepted::Duplicate { offset, same_body: true });
    accept_soon(&*journal, &unconfirmed).await;
    assert_eq!(ids(&*journal).await, ["1", "2"]);
}

#[tokio::test]
async fn what_a_failover_cut_off_is_never_given_a_second_time_and_nobody_overlooks_what_comes() {
    let old = Redis::start_durable(Program::Redis);
    let new = Redis::start_durable(Program::Redis);
    let proxy = Proxy::to(old.port()).await;
    let Opened { journal, tasks: _tasks } =
        open(options(place(Mode::Standalone, vec![proxy.url.clone()]), Durability::Fsync)).await;
    let sink: SinkName = "s".into();
    journal.register_sink(&sink, Start::Oldest).await.unwrap();
    let kept = push("kept", "s", 0);
    let kept_at = offset_of(accept_soon(&*journal, &kept).await);
    let shard = shard(&*journal, &kept);
    let fence = journal.lease(&sink, shard).await.unwrap().unwrap().fence;
    new.command(&["REPLICAOF", "127.0.0.1", &old.port().to_string()]);
    let in_step = || new.command(&["INFO", "replication"]).contains("master_link_status:up");
    until("the replica is in step", || async { in_step() }).await;
    new.command(&["REPLICAOF", "NO", "ONE"]);
    // Whom nobody replicates: acknowledged under this durability, and lost.
    let lost = push("lost", "s", 1);
    let lost_at = offset_of(accept_soon(&*journal, &lost).await);
    journal.commit(&fence, &Checkpoint { low: lost_at, ..Checkpoint::default() }).await.unwrap();
    proxy.lead_to(new.port());
    let next = push("next", "s", 2);
    let next_at = offset_of(accept_soon(&*journal, &next).await);
    assert!(next_at > lost_at && lost_at > kept_at);
    tokio::time::timeout(Duration::from_secs(5), journal.wait_past(shard, lost_at, Duration::from_secs(60)))
        .await
        .expect("a reader that was further than the new master sees what comes");
    assert_eq!(journal.recalled(&fence).await, Recall::Lost, "what is in memory is of another life");
    let lease = journal.lease(&sink, shard).await.unwrap().unwrap();
    let items = read_all(&*journal, shard, lease.checkpoint.low).await;
    let ids: Vec<_> = items.iter().map(|item| item.entry().push.id.as_str()).collect();
    assert_eq!(ids, ["kept", "next"], "settled as far as the new master knows");
    assert_eq!(journal.backlog(&sink).await.unwrap().pending, 2);
    let old_commit = journal.commit(&fence, &Checkpoint { low: next_at, ..Checkpoint::default() }).await;
    assert!(matches!(old_commit, Err(Error::Fenced { .. })), "{old_commit:?}");
    assert!(matches!(accept_soon(&*journal, &lost).await, Accepted::New { .. }));
}
