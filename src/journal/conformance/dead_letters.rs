//! What becomes of dead letters.

use bytes::Bytes;

use super::{Factory, accept_new, lease, letter, low, push, shard};
use crate::journal::{Checkpoint, DeadLetter, DeadLetterId, Error, Lease, Selection, Start};
use crate::names::{INGRESS, Offset, SinkName};

pub(super) async fn run(factory: &mut impl Factory) {
    dead_letters_settle_their_entries(factory).await;
    full_dead_letters_change_nothing(factory).await;
    dead_letters_are_listed_page_by_page(factory).await;
    refused_pushes_are_kept_once_and_bounded(factory).await;
    updated_letters_replace_and_never_come_back(factory).await;
    forgetting_a_sink_removes_its_letters(factory).await;
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
