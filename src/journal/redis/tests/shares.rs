//! Several gateways beside one another: one owner per pipeline, and who lost it settles nothing.

use std::time::Duration;

use test_servers::redis::{Program, Redis};

use super::super::{Durability, Mode, Options};
use super::support::{Opened, accept_soon, offset_of, open, options, place, until};
use crate::journal::conformance::{letter, push, shard};
use crate::journal::{Accepted, Checkpoint, Error, Fence, Journal, Recall, Start};
use crate::names::SinkName;

fn at(redis: &Redis) -> Options {
    options(place(Mode::Standalone, vec![redis.url()]), Durability::Fsync)
}

async fn lease_all(journal: &dyn Journal, sink: &SinkName) -> Vec<Fence> {
    let mut fences = Vec::new();
    for shard in 0..journal.shards() {
        fences.extend(journal.lease(sink, shard).await.unwrap().map(|lease| lease.fence));
    }
    fences
}

#[tokio::test]
async fn a_resend_to_another_gateway_is_recognised() {
    let redis = Redis::start_durable(Program::Redis);
    let (one, two) = (open(at(&redis)).await, open(at(&redis)).await);
    let pushed = push("1", "s", 0);
    let Accepted::New { offset } = one.journal.accept(pushed.clone()).await.unwrap() else { panic!("not new") };
    assert_eq!(two.journal.accept(pushed.clone()).await, Ok(Accepted::Duplicate { offset, same_body: true }));
    let shard = shard(&*two.journal, &pushed);
    let waiting = two.journal.wait_past(shard, offset, Duration::from_secs(60));
    let (accepted, ()) = tokio::join!(one.journal.accept(push("2", "s", 1)), waiting);
    accepted.unwrap();
}

#[tokio::test]
async fn an_owner_that_was_paused_settles_nothing_after_it_lost_the_lease() {
    let redis = Redis::start_durable(Program::Redis);
    let Opened { journal: paused, mut tasks } = open(at(&redis)).await;
    let Opened { journal: other, tasks: _tasks } = open(at(&redis)).await;
    let sink: SinkName = "s".into();
    paused.register_sink(&sink, Start::Oldest).await.unwrap();
    let pushed = push("1", "s", 0);
    let offset = offset_of(accept_soon(&*paused, &pushed).await);
    let shard = shard(&*paused, &pushed);
    let fence = paused.lease(&sink, shard).await.unwrap().unwrap().fence;
    assert_eq!(other.lease(&sink, shard).await.unwrap(), None);
    // Nothing renews the lease any more.
    tasks.shutdown().await;
    until("the lease ends", || async { other.lease(&sink, shard).await.unwrap().is_some() }).await;
    let low = Checkpoint { low: offset, ..Checkpoint::default() };
    let fenced = Err(Error::Fenced { sink: sink.clone(), shard });
    let dead = vec![letter(&sink, shard, offset, &pushed)];
    assert_eq!(paused.dead_letter(&fence, dead, 10, &low).await, fenced);
    assert_eq!(paused.commit(&fence, &low).await, fenced);
    assert_eq!(paused.recalled(&fence).await, Recall::Lost);
    assert_eq!(other.backlog(&sink).await.unwrap().pending, 1);
}

#[tokio::test]
async fn a_second_gateway_is_handed_its_share_and_inherits_at_once_from_one_that_closes() {
    let redis = Redis::start_durable(Program::Redis);
    let Opened { journal: first, tasks: _first } = open(at(&redis)).await;
    let Opened { journal: second, tasks: _second } = open(at(&redis)).await;
    let sink: SinkName = "s".into();
    first.register_sink(&sink, Start::Oldest).await.unwrap();
    let fences = lease_all(&*first, &sink).await;
    assert_eq!(fences.len(), 3);
    let ask = tokio::spawn({
        let (second, sink) = (std::sync::Arc::clone(&second), sink.clone());
        async move {
            while lease_all(&*second, &sink).await.is_empty() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    });
    let recalled = futures::future::select_all(fences.iter().map(|fence| {
        let first = &first;
        Box::pin(async move { (fence.clone(), first.recalled(fence).await) })
    }));
    let ((given, recall), ..) = tokio::time::timeout(Duration::from_secs(20), recalled).await.unwrap();
    assert_eq!(recall, Recall::HandOver);
    first.release(&given).await.unwrap();
    ask.await.unwrap();
    first.close().await;
    until("the rest is inherited", || async { lease_all(&*second, &sink).await.len() == 3 }).await;
}
