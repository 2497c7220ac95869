//! What readers of a shard get.

use std::sync::Arc;
use std::time::Duration;

use super::{Factory, accept_new, push, read_all, shard};
use crate::journal::{Push, ReadLimits};
use crate::names::Offset;

pub(super) async fn run(factory: &mut impl Factory) {
    sessions_keep_their_order(factory).await;
    reads_keep_to_their_limits(factory).await;
    waiting_ends_with_an_entry_or_with_patience(factory).await;
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
