//! What every implementation of [`Journal`] must do: one call runs all of it.
//!
//! ```ignore
//! conformance::run(&mut Backend).await;
//! ```
//!
//! A backend says how a fresh journal is made and how the same one is opened again after it was closed. Every sentence of the
//! contract that can be seen from outside is a check here, named after it. Faults of the storage are the backends' own tests.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    AcceptError, Accepted, Checkpoint, DeadLetter, DeadLetterId, Error, Fence, Item, Journal, Lease, Push, ReadLimits,
    Selection, Start, shard_of,
};
use crate::names::{INGRESS, Offset, SinkName};

/// The dedup window that a backend under test is made with.
pub const WINDOW: Duration = Duration::from_secs(3600);

/// How a backend is brought up.
pub trait Factory {
    /// A new, empty journal with a dedup window of [`WINDOW`].
    fn fresh(&mut self) -> impl Future<Output = Arc<dyn Journal>>;
    /// The latest journal again, after it was closed.
    fn reopen(&mut self) -> impl Future<Output = Arc<dyn Journal>>;
}

/// Runs every check against journals of `factory`.
pub async fn run(factory: &mut impl Factory) {
    an_accepted_push_reads_back_as_it_was(factory).await;
    a_push_id_has_one_offset_within_the_window(factory).await;
    a_push_id_is_new_again_after_the_window(factory).await;
    concurrent_resends_join_one_outcome(factory).await;
    a_derived_push_is_accepted_as_any_other(factory).await;
    two_sources_share_no_ids(factory).await;
    sessions_keep_their_order(factory).await;
    reads_keep_to_their_limits(factory).await;
    waiting_ends_with_an_entry_or_with_patience(factory).await;
    a_sink_starts_where_it_was_told(factory).await;
    a_checkpoint_is_there_after_reopening(factory).await;
    an_old_fence_cannot_commit(factory).await;
    a_checkpoint_does_not_go_back(factory).await;
    unknown_sinks_are_said_so(factory).await;
    dead_letters_settle_their_entries(factory).await;
    full_dead_letters_change_nothing(factory).await;
    dead_letters_are_listed_page_by_page(factory).await;
    refused_pushes_are_kept_once_and_bounded(factory).await;
    updated_letters_replace_and_never_come_back(factory).await;
    forgetting_a_sink_removes_its_letters(factory).await;
    a_pause_is_remembered_until_it_ends(factory).await;
    the_backlog_counts_what_is_not_settled(factory).await;
    trimming_waits_for_the_slowest_sink(factory).await;
    it_is_told_from_one_made_anew(factory).await;
    a_closed_journal_fails(factory).await;
}

/// A push with all its parts, received `second` seconds after a fixed moment.
pub fn push(id: &str, session: &str, second: i64) -> Push {
    Push {
        id: id.into(),
        source: "main".into(),
        action: "cdr".into(),
        version: Some("1".into()),
        session: Some(session.into()),
        received_at: Timestamp::from_millisecond((1_787_000_000 + second) * 1000 + 7).unwrap(),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        body: Bytes::from(format!("{{\"id\":\"{id}\"}}")),
    }
}

/// The shard of a push that [`push`] made.
pub fn shard(journal: &dyn Journal, push: &Push) -> u16 {
    shard_of(push.session.as_ref(), &push.id, journal.shards())
}

/// Everything behind `after`, read in pages.
pub async fn read_all(journal: &dyn Journal, shard: u16, after: Offset) -> Vec<Item> {
    let limits = ReadLimits { events_max: 7, bytes_max: 1 << 20 };
    let (mut items, mut end) = (Vec::new(), after);
    loop {
        let page = journal.read(shard, end, limits).await.unwrap();
        if page.end == end {
            return items;
        }
        assert!(page.items.iter().all(|item| item.entry().offset > end && item.entry().offset <= page.end));
        items.extend(page.items);
        end = page.end;
    }
}

/// A dead letter of `sink` for an entry.
pub fn letter(sink: &SinkName, shard: u16, offset: Offset, push: &Push) -> DeadLetter {
    DeadLetter {
        id: DeadLetterId { sink: sink.clone(), number: u64::from(shard) << 48 | offset.0 },
        push: push.clone(),
        code: "http-400".into(),
        reason: "the destination refused it".into(),
        attempts: 3,
        first_attempt_at: push.received_at,
        last_attempt_at: push.received_at,
    }
}

async fn accept_new(journal: &dyn Journal, push: &Push) -> Offset {
    match journal.accept(push.clone()).await.unwrap() {
        Accepted::New { offset } => offset,
        other => panic!("not new: {other:?}"),
    }
}

async fn lease(journal: &dyn Journal, sink: &SinkName, shard: u16) -> Lease {
    journal.lease(sink, shard).await.unwrap().expect("nobody else holds it")
}

fn low(offset: Offset) -> Checkpoint {
    Checkpoint { low: offset, ..Checkpoint::default() }
}

async fn an_accepted_push_reads_back_as_it_was(factory: &mut impl Factory) {
    let journal = factory.fresh().await;
    let mut bare = push("bare", "", 1);
    (bare.version, bare.session, bare.traceparent, bare.body) = (None, None, None, Bytes::new());
    for push in [push("whole", "s", 0), bare] {
        let offset = accept_new(&*journal, &push).await;
        let items = read_all(&*journal, shard(&*journal, &push), Offset(offset.0 - 1)).await;
        let Item::Entry(entry) = &items[0] else { panic!("corrupt") };
        assert_eq!((entry.offset, &entry.push), (offset, &push));
    }
    journal.close().await;
    drop(journal);
    let journal = factory.reopen().await;
    let whole = push("whole", "s", 0);
    assert_eq!(read_all(&*journal, shard(&*journal, &whole), Offset::ZERO).await[0].entry().push, whole);
    journal.close().await;
}

async fn a_push_id_has_one_offset_within_the_window(factory: &mut impl Factory) {
    let mut journal = factory.fresh().await;
    let first = push("a", "s", 0);
    let offset = accept_new(&*journal, &first).await;
    let mut other = push("a", "s", 3599);
    for _ in 0..2 {
        assert_eq!(journal.accept(first.clone()).await, Ok(Accepted::Duplicate { offset, same_body: true }));
        other.body = Bytes::from_static(b"another");
        assert_eq!(journal.accept(other.clone()).await, Ok(Accepted::Duplicate { offset, same_body: false }));
        journal.close().await;
        drop(journal);
        journal = factory.reopen().await;
    }
    assert_eq!(read_all(&*journal, shard(&*journal, &first), Offset::ZERO).await.len(), 1);
    journal.close().await;
}

async fn a_push_id_is_new_again_after_the_window(factory: &mut impl Factory) {
    let journal = factory.fresh().await;
    let offset = accept_new(&*journal, &push("a", "s", 0)).await;
    assert!(accept_new(&*journal, &push("a", "s", 3601)).await > offset);
    journal.close().await;
}

async fn concurrent_resends_join_one_outcome(factory: &mut impl Factory) {
    let journal = factory.fresh().await;
    let calls = (0..200).map(|n| {
        let journal = Arc::clone(&journal);
        tokio::spawn(async move { journal.accept(push(&format!("p-{}", n % 10), "s", 0)).await.unwrap() })
    });
    let mut new = 0;
    let mut offsets = BTreeSet::new();
    for call in calls.collect::<Vec<_>>() {
        match call.await.unwrap() {
            Accepted::New { offset } => {
                new += 1;
                offsets.insert(offset);
            }
            Accepted::Duplicate { offset, same_body } => {
                assert!(same_body);
                offsets.insert(offset);
            }
        }
    }
    assert_eq!((new, offsets.len()), (10, 10));
    journal.close().await;
}

async fn two_sources_share_no_ids(factory: &mut impl Factory) {
    let journal = factory.fresh().await;
    accept_new(&*journal, &push("a", "s", 0)).await;
    accept_new(&*journal, &Push { source: "other".into(), ..push("a", "s", 0) }).await;
    journal.close().await;
}

async fn sessions_keep_their_order(factory: &mut impl Factory) {
    let journal = factory.fresh().await;
    for n in 0..60 {
        accept_new(&*journal, &push(&format!("{n:03}"), &format!("s-{}", n % 5), n)).await;
    }
    for session in 0..5 {
        let of_session = push("000", &format!("s-{session}"), 0);
        let items = read_all(&*journal, shard(&*journal, &of_session), Offset::ZERO).await;
        let ids: Vec<_> = items
            .iter()
            .filter(|item| item.entry().push.session == of_session.session)
            .map(|item| item.entry().push.id.clone())
            .collect();
        assert!(ids.is_sorted() && ids.len() == 12, "{ids:?}");
    }
    journal.close().await;
}

async fn reads_keep_to_their_limits(factory: &mut impl Factory) {
    let journal = factory.fresh().await;
    for n in 0..10 {
        accept_new(&*journal, &Push { body: vec![b'x'; 100].into(), ..push(&n.to_string(), "s", n) }).await;
    }
    let shard = shard(&*journal, &push("0", "s", 0));
    for (events_max, bytes_max, expected) in [(3, 1000, 3), (10, 250, 2), (10, 1, 1), (100, 10_000, 10)] {
        let page = journal.read(shard, Offset::ZERO, ReadLimits { events_max, bytes_max }).await.unwrap();
        assert_eq!(page.items.len(), expected, "{events_max} events, {bytes_max} bytes");
    }
    let end = read_all(&*journal, shard, Offset::ZERO).await.last().unwrap().entry().offset;
    let page = journal.read(shard, end, ReadLimits { events_max: 1, bytes_max: 1 }).await.unwrap();
    assert_eq!((page.items.len(), page.end), (0, end));
    journal.close().await;
}

async fn waiting_ends_with_an_entry_or_with_patience(factory: &mut impl Factory) {
    let journal = factory.fresh().await;
    let push = push("a", "s", 0);
    let shard = shard(&*journal, &push);
    journal.wait_past(shard, Offset::ZERO, Duration::from_millis(1)).await;
    let waiting = {
        let journal = Arc::clone(&journal);
        tokio::spawn(async move { journal.wait_past(shard, Offset::ZERO, Duration::from_secs(60)).await })
    };
    accept_new(&*journal, &push).await;
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("it was woken").unwrap();
    journal.close().await;
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
        attempts: vec![super::Attempts { offset: offsets[2], count: 4, first_at: first.received_at }],
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

async fn dead_letters_settle_their_entries(factory: &mut impl Factory) {
    let journal = factory.fresh().await;
    let sink: SinkName = "s".into();
    journal.register_sink(&sink, Start::Oldest).await.unwrap();
    let (one, two) = (push("1", "s", 0), push("2", "s", 1));
    let shard = shard(&*journal, &one);
    let first = accept_new(&*journal, &one).await;
    let second = accept_new(&*journal, &two).await;
    let Lease { fence, checkpoint } = lease(&*journal, &sink, shard).await;
    let settled = Checkpoint { settled_above: vec![second], ..checkpoint };
    let dead = letter(&sink, shard, second, &two);
    journal.dead_letter(&fence, vec![dead.clone()], 10, &settled).await.unwrap();
    // The same letter again replaces it, whatever the limit.
    let again = DeadLetter { attempts: 9, ..dead.clone() };
    journal.dead_letter(&fence, vec![again.clone()], 1, &settled).await.unwrap();
    journal.close().await;
    drop(journal);
    let journal = factory.reopen().await;
    assert_eq!(journal.dead_letters_len(&sink), 1);
    assert_eq!(journal.dead_letter_of(&dead.id).await.unwrap(), Some(again.clone()));
    let Lease { fence, checkpoint } = lease(&*journal, &sink, shard).await;
    assert_eq!(checkpoint.settled_above, [second]);
    assert_eq!(journal.purge_dead_letters(&[dead.id.clone(), dead.id.clone()]).await.unwrap(), 1);
    assert_eq!(journal.dead_letter_of(&dead.id).await.unwrap(), None);
    journal.commit(&fence, &Checkpoint { low: second.max(first), ..Checkpoint::default() }).await.unwrap();
    journal.close().await;
}

async fn full_dead_letters_change_nothing(factory: &mut impl Factory) {
    let journal = factory.fresh().await;
    let sink: SinkName = "s".into();
    journal.register_sink(&sink, Start::Oldest).await.unwrap();
    let pushed = push("1", "s", 0);
    let shard = shard(&*journal, &pushed);
    let offset = accept_new(&*journal, &pushed).await;
    let Lease { fence, checkpoint } = lease(&*journal, &sink, shard).await;
    let dead = letter(&sink, shard, offset, &pushed);
    let full = Err(Error::DeadLettersFull { sink: sink.clone(), limit: 0 });
    assert_eq!(journal.dead_letter(&fence, vec![dead], 0, &low(offset)).await, full);
    assert_eq!(journal.dead_letters_len(&sink), 0);
    assert_eq!(lease(&*journal, &sink, shard).await.checkpoint, checkpoint);
    journal.close().await;
}

async fn dead_letters_are_listed_page_by_page(factory: &mut impl Factory) {
    let journal = factory.fresh().await;
    let (a, b): (SinkName, SinkName) = ("a".into(), "b".into());
    let mut all = Vec::new();
    for sink in [&a, &b] {
        journal.register_sink(sink, Start::Oldest).await.unwrap();
        for n in 0..5 {
            let mut pushed = push(&format!("{sink}{n}"), "s", n);
            pushed.action = if n % 2 == 0 { "cdr" } else { "record" }.into();
            let shard = shard(&*journal, &pushed);
            let offset = accept_new(&*journal, &pushed).await;
            let Lease { fence, checkpoint } = lease(&*journal, sink, shard).await;
            let dead = letter(sink, shard, offset, &pushed);
            journal.dead_letter(&fence, vec![dead.clone()], 100, &checkpoint).await.unwrap();
            all.push(dead.head());
        }
    }
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = journal.dead_letters(&Selection::default(), after.as_ref(), 3).await.unwrap();
        assert!(page.heads.len() <= 3);
        listed.extend(page.heads);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(listed, all);
    let records = Selection { sink: Some(b), action: Some("RECORD".into()), ..Selection::default() };
    let page = journal.dead_letters(&records, None, 100).await.unwrap();
    assert_eq!((page.heads.len(), page.next), (2, None));
    journal.close().await;
}

async fn refused_pushes_are_kept_once_and_bounded(factory: &mut impl Factory) {
    let mut journal = factory.fresh().await;
    let ingress: SinkName = INGRESS.into();
    let refused = |n: i64| DeadLetter {
        id: DeadLetterId { sink: INGRESS.into(), number: 0 },
        ..letter(&INGRESS.into(), 0, Offset::ZERO, &push(&n.to_string(), "s", n))
    };
    for n in [0, 1, 1, 2, 0] {
        journal.keep_refused(refused(n), 10).await.unwrap();
    }
    assert_eq!(journal.dead_letters_len(&ingress), 3);
    let mut other_body = refused(1);
    other_body.push.body = Bytes::from_static(b"{");
    journal.keep_refused(other_body, 10).await.unwrap();
    assert_eq!(journal.dead_letters_len(&ingress), 4);
    journal.keep_refused(refused(7), 4).await.unwrap();
    let page = journal.dead_letters(&Selection::default(), None, 10).await.unwrap();
    let ids: Vec<_> = page.heads.iter().map(|head| head.push_id.as_str().to_owned()).collect();
    assert_eq!(ids, ["1", "2", "1", "7"], "the oldest made room");
    let last = page.heads.last().unwrap().id.clone();
    journal.purge_dead_letters(std::slice::from_ref(&last)).await.unwrap();
    journal.close().await;
    drop(journal);
    journal = factory.reopen().await;
    journal.keep_refused(refused(8), 10).await.unwrap();
    let page = journal.dead_letters(&Selection::default(), None, 10).await.unwrap();
    assert!(page.heads.last().unwrap().id.number > last.number, "a number was given twice");
    assert!(!journal.sinks().await.unwrap().contains(&ingress));
    journal.close().await;
}

async fn updated_letters_replace_and_never_come_back(factory: &mut impl Factory) {
    let journal = factory.fresh().await;
    let sink: SinkName = "s".into();
    journal.register_sink(&sink, Start::Oldest).await.unwrap();
    let (one, two) = (push("1", "s", 0), push("2", "s", 1));
    let shard = shard(&*journal, &one);
    let first = letter(&sink, shard, accept_new(&*journal, &one).await, &one);
    let second = letter(&sink, shard, accept_new(&*journal, &two).await, &two);
    let Lease { fence, checkpoint } = lease(&*journal, &sink, shard).await;
    journal.dead_letter(&fence, vec![first.clone(), second.clone()], 2, &checkpoint).await.unwrap();
    journal.purge_dead_letters(std::slice::from_ref(&second.id)).await.unwrap();
    let again = |letter: &DeadLetter| DeadLetter { attempts: 7, code: "again".into(), ..letter.clone() };
    assert_eq!(journal.update_dead_letters(vec![again(&first), again(&second)]).await.unwrap(), 1);
    journal
        .keep_refused(DeadLetter { id: DeadLetterId { sink: INGRESS.into(), number: 0 }, ..first.clone() }, 9)
        .await
        .unwrap();
    journal.close().await;
    drop(journal);
    let journal = factory.reopen().await;
    assert_eq!(journal.dead_letter_of(&first.id).await.unwrap(), Some(again(&first)));
    assert_eq!(journal.dead_letter_of(&second.id).await.unwrap(), None);
    let selection = Selection { sink: Some(INGRESS.into()), ..Selection::default() };
    let refused = journal.dead_letters(&selection, None, 9).await.unwrap().heads.remove(0);
    let kept = journal.dead_letter_of(&refused.id).await.unwrap().unwrap();
    assert_eq!(journal.update_dead_letters(vec![again(&kept)]).await.unwrap(), 1);
    assert_eq!(journal.dead_letter_of(&kept.id).await.unwrap(), Some(again(&kept)));
    journal.keep_refused(kept, 9).await.unwrap();
    assert_eq!(journal.dead_letters_len(&INGRESS.into()), 1, "kept once, updated or not");
    journal.close().await;
}

async fn forgetting_a_sink_removes_its_letters(factory: &mut impl Factory) {
    let mut journal = factory.fresh().await;
    let sink: SinkName = "s".into();
    journal.register_sink(&sink, Start::Oldest).await.unwrap();
    let pushed = push("1", "s", 0);
    let shard = shard(&*journal, &pushed);
    let offset = accept_new(&*journal, &pushed).await;
    let Lease { fence, .. } = lease(&*journal, &sink, shard).await;
    journal.dead_letter(&fence, vec![letter(&sink, shard, offset, &pushed)], 10, &low(offset)).await.unwrap();
    journal.forget_sink(&sink).await.unwrap();
    assert_eq!(journal.commit(&fence, &low(offset)).await, Err(Error::UnknownSink(sink.clone())));
    journal.close().await;
    drop(journal);
    journal = factory.reopen().await;
    assert_eq!((journal.sinks().await.unwrap().len(), journal.dead_letters_len(&sink)), (0, 0));
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

async fn it_is_told_from_one_made_anew(factory: &mut impl Factory) {
    let journal = factory.fresh().await;
    let before = journal.origin();
    journal.close().await;
    drop(journal);
    assert_eq!(factory.reopen().await.origin(), before);
    assert_ne!(factory.fresh().await.origin().journal, before.journal);
}

async fn a_derived_push_is_accepted_as_any_other(factory: &mut impl Factory) {
    let journal = factory.fresh().await;
    let derived = push("a/recording", "s", 0);
    let Ok(Accepted::New { offset }) = journal.accept_derived(derived.clone()).await else { panic!("not new") };
    let again = Ok(Accepted::Duplicate { offset, same_body: true });
    assert_eq!(journal.accept_derived(derived.clone()).await, again);
    assert_eq!(journal.accept(derived.clone()).await, again);
    let items = read_all(&*journal, shard(&*journal, &derived), Offset::ZERO).await;
    assert!(matches!(items.as_slice(), [Item::Entry(entry)] if entry.push == derived), "{items:?}");
    journal.close().await;
}

async fn a_closed_journal_fails(factory: &mut impl Factory) {
    let journal = factory.fresh().await;
    journal.close().await;
    assert!(matches!(journal.accept(push("a", "s", 0)).await, Err(AcceptError::Unavailable { .. })));
    assert!(journal.sinks().await.is_err());
    assert!(journal.health().trouble.is_some());
    journal.close().await;
}
