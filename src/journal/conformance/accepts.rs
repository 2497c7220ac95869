//! What `accept` must do.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::{Factory, accept_new, push, read_all, shard};
use crate::journal::{AcceptError, Accepted, Item, Push};
use crate::names::Offset;

pub(super) async fn run(factory: &mut impl Factory) {
    an_accepted_push_reads_back_as_it_was(factory).await;
    a_push_id_has_one_offset_within_the_window(factory).await;
    a_push_id_is_new_again_after_the_window(factory).await;
    concurrent_resends_join_one_outcome(factory).await;
    a_derived_push_is_accepted_as_any_other(factory).await;
    two_sources_share_no_ids(factory).await;
    it_is_told_from_one_made_anew(factory).await;
    a_closed_journal_fails(factory).await;
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

async fn two_sources_share_no_ids(factory: &mut impl Factory) {
    let journal = factory.fresh().await;
    accept_new(&*journal, &push("a", "s", 0)).await;
    accept_new(&*journal, &Push { source: "other".into(), ..push("a", "s", 0) }).await;
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

async fn a_closed_journal_fails(factory: &mut impl Factory) {
    let journal = factory.fresh().await;
    journal.close().await;
    assert!(matches!(journal.accept(push("a", "s", 0)).await, Err(AcceptError::Unavailable { .. })));
    assert!(journal.sinks().await.is_err());
    assert!(journal.health().trouble.is_some());
    journal.close().await;
}
