//! What a journal keeps of each sink: where it is, whether it is paused, what it has yet to settle.

use super::{Factory, accept_new, lease, letter, low, push, read_all, shard};
use crate::journal::{Accepted, Attempts, Checkpoint, Error, Fence, Push, Start};
use crate::names::{Offset, SinkName};

pub(super) async fn run(factory: &mut impl Factory) {
    a_sink_starts_where_it_was_told(factory).await;
    a_checkpoint_is_there_after_reopening(factory).await;
    an_old_fence_cannot_commit(factory).await;
    a_checkpoint_does_not_go_back(factory).await;
    unknown_sinks_are_said_so(factory).await;
    a_pause_is_remembered_until_it_ends(factory).await;
    the_backlog_counts_what_is_not_settled(factory).await;
    trimming_waits_for_the_slowest_sink(factory).await;
}

async fn a_sink_starts_where_it_was_told(factory: &mut impl Factory) {
    let journal = factory.fresh().await;
    let (now, oldest): (SinkName, SinkName) = ("now".into(), "oldest".into());
    let first = push("a", "s", 0);
    let shard = shard(&*journal, &first);
    let offset = accept_new(&*journal, &first).await;
    // In this order: with the other alone nobody would need the entry, and it might be given back.
    journal.register_sink(&oldest, Start::Oldest).await.unwrap();
    journal.register_sink(&now, Start::Now).await.unwrap();
    // Known already: nothing changes.
    journal.register_sink(&now, Start::Oldest).await.unwrap();
    assert!(lease(&*journal, &now, shard).await.checkpoint.low >= offset);
    assert!(lease(&*journal, &oldest, shard).await.checkpoint.low < offset);
    assert_eq!(journal.sinks().await.unwrap(), [now.clone(), oldest.clone()]);
    journal.close().await;
    drop(journal);
    let journal = factory.reopen().await;
    assert_eq!(journal.sinks().await.unwrap(), [now, oldest]);
    journal.close().await;
}

async fn a_checkpoint_is_there_after_reopening(factory: &mut impl Factory) {
    let mut journal = factory.fresh().await;
    let sink: SinkName = "s".into();
    journal.register_sink(&sink, Start::Oldest).await.unwrap();
    let first = push("0", "s", 0);
    let shard = shard(&*journal, &first);
    let mut offsets = Vec::new();
    for n in 0..6 {
        offsets.push(accept_new(&*journal, &push(&n.to_string(), "s", n)).await);
    }
    let checkpoint = Checkpoint {
        low: offsets[1],
        settled_above: vec![offsets[3], offsets[5]],
        attempts: vec![Attempts { offset: offsets[2], count: 4, first_at: first.received_at }],
        batch_end: Some(offsets[4]),
    };
    let fence = lease(&*journal, &sink, shard).await.fence;
    journal.commit(&fence, &checkpoint).await.unwrap();
    for _ in 0..2 {
        journal.close().await;
        drop(journal);
        journal = factory.reopen().await;
        assert_eq!(lease(&*journal, &sink, shard).await.checkpoint, checkpoint);
    }
    journal.close().await;
}

async fn an_old_fence_cannot_commit(factory: &mut impl Factory) {
    let journal = factory.fresh().await;
    let sink: SinkName = "s".into();
    journal.register_sink(&sink, Start::Oldest).await.unwrap();
    let pushed = push("a", "s", 0);
    let shard = shard(&*journal, &pushed);
    let offset = accept_new(&*journal, &pushed).await;
    let old = lease(&*journal, &sink, shard).await.fence;
    let new = lease(&*journal, &sink, shard).await;
    let fenced = Err(Error::Fenced { sink: sink.clone(), shard });
    assert_eq!(journal.commit(&old, &low(offset)).await, fenced);
    let letters = vec![letter(&sink, shard, offset, &pushed)];
    assert_eq!(journal.dead_letter(&old, letters, 10, &low(offset)).await, fenced);
    assert_eq!(journal.dead_letters_len(&sink), 0);
    journal.commit(&new.fence, &low(offset)).await.unwrap();
    journal.release(&new.fence).await.unwrap();
    assert_eq!(journal.commit(&new.fence, &low(offset)).await, fenced);
    journal.close().await;
}

async fn a_checkpoint_does_not_go_back(factory: &mut impl Factory) {
    let journal = factory.fresh().await;
    let sink: SinkName = "s".into();
    journal.register_sink(&sink, Start::Oldest).await.unwrap();
    let pushed = push("a", "s", 0);
    let shard = shard(&*journal, &pushed);
    let offset = accept_new(&*journal, &pushed).await;
    let fence = lease(&*journal, &sink, shard).await.fence;
    journal.commit(&fence, &low(offset)).await.unwrap();
    assert!(journal.commit(&fence, &low(Offset::ZERO)).await.is_err());
    assert_eq!(lease(&*journal, &sink, shard).await.checkpoint.low, offset);
    journal.close().await;
}

async fn unknown_sinks_are_said_so(factory: &mut impl Factory) {
    let journal = factory.fresh().await;
    let sink: SinkName = "nobody".into();
    let unknown = Error::UnknownSink(sink.clone());
    assert_eq!(journal.lease(&sink, 0).await.unwrap_err(), unknown);
    let fence = Fence { sink: sink.clone(), shard: 0, epoch: 1 };
    assert_eq!(journal.commit(&fence, &Checkpoint::default()).await.unwrap_err(), unknown);
    assert_eq!(journal.backlog(&sink).await, None);
    assert_eq!(journal.dead_letters_len(&sink), 0);
    journal.forget_sink(&sink).await.unwrap();
    journal.close().await;
}

async fn a_pause_is_remembered_until_it_ends(factory: &mut impl Factory) {
    let mut journal = factory.fresh().await;
    let (kept, ended, forgotten): (SinkName, SinkName, SinkName) = ("kept".into(), "ended".into(), "forgotten".into());
    assert_eq!(journal.set_paused(&kept, true).await, Err(Error::UnknownSink(kept.clone())));
    for sink in [&kept, &ended, &forgotten] {
        journal.register_sink(sink, Start::Now).await.unwrap();
        journal.set_paused(sink, true).await.unwrap();
    }
    journal.set_paused(&kept, true).await.unwrap();
    journal.set_paused(&ended, false).await.unwrap();
    journal.forget_sink(&forgotten).await.unwrap();
    journal.register_sink(&forgotten, Start::Now).await.unwrap();
    for _ in 0..2 {
        assert_eq!(journal.paused_sinks().await.unwrap(), std::slice::from_ref(&kept));
        journal.close().await;
        drop(journal);
        journal = factory.reopen().await;
    }
    journal.close().await;
}

async fn the_backlog_counts_what_is_not_settled(factory: &mut impl Factory) {
    let journal = factory.fresh().await;
    let sink: SinkName = "s".into();
    journal.register_sink(&sink, Start::Oldest).await.unwrap();
    assert_eq!(journal.backlog(&sink).await.unwrap().pending, 0);
    let pushes: Vec<_> = (0..5).map(|n| push(&n.to_string(), "s", n)).collect();
    let shard = shard(&*journal, &pushes[0]);
    let mut offsets = Vec::new();
    for push in &pushes {
        offsets.push(accept_new(&*journal, push).await);
    }
    let fence = lease(&*journal, &sink, shard).await.fence;
    for (checkpoint, pending, oldest) in [
        (Checkpoint::default(), 5, Some(0)),
        (low(offsets[1]), 3, Some(2)),
        (Checkpoint { settled_above: vec![offsets[2]], ..low(offsets[1]) }, 2, Some(3)),
        (low(offsets[4]), 0, None),
    ] {
        journal.commit(&fence, &checkpoint).await.unwrap();
        let backlog = journal.backlog(&sink).await.unwrap();
        assert_eq!(backlog.pending, pending);
        assert_eq!(backlog.oldest_received_at, oldest.map(|n: usize| pushes[n].received_at));
    }
    let health = journal.health();
    assert_eq!((health.trouble, health.bytes <= health.size_max), (None, true));
    journal.close().await;
}

async fn trimming_waits_for_the_slowest_sink(factory: &mut impl Factory) {
    let mut journal = factory.fresh().await;
    let (quick, slow): (SinkName, SinkName) = ("quick".into(), "slow".into());
    for sink in [&quick, &slow] {
        journal.register_sink(sink, Start::Oldest).await.unwrap();
    }
    let pushes: Vec<_> =
        (0..40).map(|n| Push { body: vec![b'x'; 500].into(), ..push(&n.to_string(), "s", n) }).collect();
    let shard = shard(&*journal, &pushes[0]);
    let mut last = Offset::ZERO;
    for push in &pushes {
        last = accept_new(&*journal, push).await;
    }
    let fence = lease(&*journal, &quick, shard).await.fence;
    journal.commit(&fence, &low(last)).await.unwrap();
    for _ in 0..2 {
        assert_eq!(read_all(&*journal, shard, Offset::ZERO).await.len(), 40);
        assert_eq!(journal.backlog(&slow).await.unwrap().pending, 40);
        journal.close().await;
        drop(journal);
        journal = factory.reopen().await;
    }
    let fence = lease(&*journal, &slow, shard).await.fence;
    journal.commit(&fence, &low(last)).await.unwrap();
    let resend = journal.accept(pushes[39].clone()).await;
    assert_eq!(resend, Ok(Accepted::Duplicate { offset: last, same_body: true }));
    assert!(accept_new(&*journal, &push("new", "s", 41)).await > last);
    journal.close().await;
}
