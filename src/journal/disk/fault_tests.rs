//! Single faults on the simulated disk: damage at every byte, cuts at every length, failing writes and syncs, limits.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::sim_fs::{Fault, SimFs};
use super::*;
use crate::journal::conformance::{letter, push, read_all};
use crate::metrics::Metrics;

const SEGMENT: u64 = 4096;

fn options() -> Options {
    Options {
        dir: "/journal".into(),
        segment_size: SEGMENT,
        size_max: 4 * SEGMENT,
        reserve: 0,
        dedup_window: Duration::from_secs(3600),
    }
}

fn open(disk: &SimFs) -> (DiskJournal, JournalMetrics) {
    open_with(disk, options())
}

fn open_with(disk: &SimFs, options: Options) -> (DiskJournal, JournalMetrics) {
    let metrics = Metrics::new().journal;
    let journal = open::open(Arc::new(disk.clone()), options, metrics.clone());
    (journal.unwrap_or_else(|error| panic!("it must open: {error}")), metrics)
}

fn errors(metrics: &JournalMetrics, kind: &str) -> u64 {
    metrics.errors.with_label_values(&[kind]).get()
}

fn sink() -> SinkName {
    "s".into()
}

/// A push that three of fill a segment.
fn large(n: usize) -> Push {
    Push { body: vec![b'x'; 1000].into(), ..push(&n.to_string(), "s", 0) }
}

/// A sealed segment, one that was being written, a sink with a checkpoint and a dead letter; as a `kill -9` leaves it.
async fn small_journal() -> SimFs {
    let disk = SimFs::new(1);
    let (journal, _) = open(&disk);
    journal.register_sink(&sink(), Start::Oldest).await.unwrap();
    for n in 0..3 {
        journal.accept(push(&n.to_string(), "s", n)).await.unwrap();
    }
    journal.close().await;
    drop(journal);
    let (journal, _) = open(&disk);
    for n in 3..6 {
        journal.accept(push(&n.to_string(), "s", n)).await.unwrap();
    }
    let lease = journal.lease(&sink(), 0).await.unwrap().unwrap();
    let settled = Checkpoint { settled_above: vec![Offset(1)], ..lease.checkpoint };
    let letters = vec![letter(&sink(), 0, Offset(1), &push("0", "s", 0))];
    journal.dead_letter(&lease.fence, letters, 10, &settled).await.unwrap();
    disk.image()
}

/// Ids that can be read whole, and how many cannot.
async fn readable(journal: &DiskJournal) -> (BTreeSet<String>, usize) {
    let items = read_all(journal, 0, Offset::ZERO).await;
    let sound = items.iter().filter(|item| matches!(item, crate::journal::Item::Entry(_)));
    let ids: BTreeSet<_> = sound.map(|item| item.entry().push.id.as_str().to_owned()).collect();
    let broken = items.len() - ids.len();
    (ids, broken)
}

#[tokio::test]
async fn a_flipped_byte_anywhere_costs_one_entry_at_most_and_is_reported() {
    let whole = small_journal().await;
    for file in whole.files() {
        let mut content = Vec::new();
        whole.edit(&file, |bytes| content.clone_from(bytes));
        let end = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 9).min(content.len());
        for at in 0..end {
            let disk = whole.image();
            disk.edit(&file, |bytes| bytes[at] ^= 0x10);
            let place = format!("{} at {at}", file.display());
            let (journal, metrics) = open(&disk);
            let (ids, broken) = readable(&journal).await;
            let said = errors(&metrics, "corrupt") + errors(&metrics, "torn");
            assert!(ids.len() >= 5, "{place}: {ids:?}");
            assert!(ids.len() + broken == 6 || said > 0, "{place}: nothing was said");
            assert!(broken == 0 || said > 0, "{place}: nothing was said of a broken body");
            assert_eq!(journal.sinks().await.unwrap(), [sink()], "{place}");
            journal.accept(push("new", "s", 9)).await.unwrap();
            journal.close().await;
            drop(journal);
            let (journal, _) = open(&disk);
            assert!(readable(&journal).await.0.is_superset(&ids), "{place}: lost later");
        }
    }
}

#[tokio::test]
async fn a_tail_cut_at_any_length_costs_what_was_cut_only() {
    let whole = small_journal().await;
    let file: PathBuf = Layout(4).path();
    let end = {
        let (journal, _) = open(&whole.image());
        readable(&journal).await;
        let state = journal.shared.catalog.at_or_after(4).unwrap();
        let end = state.state().end;
        end as usize
    };
    let mut most = 0;
    for cut in (128..=end).rev() {
        for zeros in [false, true] {
            let disk = whole.image();
            disk.edit(&file, |bytes| {
                let len = bytes.len();
                bytes.truncate(cut);
                if zeros {
                    bytes.resize(len, 0);
                }
            });
            let (journal, metrics) = open(&disk);
            let (ids, broken) = readable(&journal).await;
            assert_eq!((broken, errors(&metrics, "corrupt")), (0, 0), "cut at {cut}");
            assert!((3..=6).contains(&ids.len()), "cut at {cut}");
            most = most.max(ids.len());
            // What was cut off was not acknowledged; its resend is new.
            for n in 3..6 {
                let accepted = journal.accept(push(&n.to_string(), "s", n)).await.unwrap();
                let is_new = matches!(accepted, Accepted::New { .. });
                assert_eq!(is_new, !ids.contains(&n.to_string()), "cut at {cut}");
            }
        }
    }
    assert_eq!(most, 6);
}

/// The path of a segment.
struct Layout(u64);

impl Layout {
    fn path(&self) -> PathBuf {
        layout::Layout::new(&options().dir).segment(self.0)
    }
}

#[tokio::test]
async fn a_failed_sync_is_never_acknowledged_and_accepting_resumes() {
    let disk = SimFs::new(1);
    let (journal, metrics) = open(&disk);
    journal.accept(push("before", "s", 0)).await.unwrap();
    disk.fail_once_in(&Layout(1).path(), Fault::Sync);
    assert!(matches!(journal.accept(push("a", "s", 0)).await, Err(AcceptError::Unknown { .. })));
    assert_eq!(errors(&metrics, "sync"), 1);
    // The mark went with it, and what the page cache shows of it is void.
    assert!(matches!(journal.accept(push("a", "s", 0)).await, Ok(Accepted::New { .. })));
    eventually(|| journal.health().trouble.is_none()).await;
    drop(journal);
    disk.restart();
    let (journal, _) = open(&disk);
    assert_eq!(readable(&journal).await.0.len(), 2);
}

#[tokio::test]
async fn a_full_disk_refuses_and_resumes_by_itself() {
    let disk = SimFs::new(1);
    let (journal, metrics) = open(&disk);
    journal.accept(push("before", "s", 0)).await.unwrap();
    disk.fail_once_in(&Layout(1).path(), Fault::Full);
    assert!(matches!(journal.accept(push("a", "s", 0)).await, Err(AcceptError::Unavailable { .. })));
    eventually(|| journal.health().trouble.is_some()).await;
    assert_eq!(errors(&metrics, "full"), 1);
    assert!(matches!(journal.accept(push("a", "s", 0)).await, Ok(Accepted::New { .. })));
    eventually(|| journal.health().trouble.is_none()).await;
    assert_eq!(readable(&journal).await.0.len(), 2);
}

#[tokio::test]
async fn below_the_reserve_duplicates_checkpoints_and_dead_letters_go_on() {
    let disk = SimFs::new(1);
    let (journal, _) = open_with(&disk, Options { reserve: 1000, ..options() });
    journal.register_sink(&sink(), Start::Oldest).await.unwrap();
    let first = push("a", "s", 0);
    journal.accept(first.clone()).await.unwrap();
    disk.set_free(999);
    eventually(|| journal.health().trouble.is_some()).await;
    assert!(matches!(journal.accept(push("b", "s", 0)).await, Err(AcceptError::Unavailable { .. })));
    assert!(matches!(journal.accept(first.clone()).await, Ok(Accepted::Duplicate { .. })));
    let lease = journal.lease(&sink(), 0).await.unwrap().unwrap();
    let letters = vec![letter(&sink(), 0, Offset(1), &first)];
    let settled = Checkpoint { low: Offset(1), ..Checkpoint::default() };
    journal.dead_letter(&lease.fence, letters, 10, &settled).await.unwrap();
    disk.set_free(1000);
    eventually(|| journal.health().trouble.is_none()).await;
    journal.accept(push("b", "s", 0)).await.unwrap();
}

#[tokio::test]
async fn at_its_limit_the_journal_refuses_until_a_sink_settles() {
    let (journal, _) = open(&SimFs::new(1));
    journal.register_sink(&sink(), Start::Oldest).await.unwrap();
    let mut accepted = 0;
    let refused = loop {
        match journal.accept(large(accepted)).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, AcceptError::Full { limit: 16384, .. }), "{refused:?}");
    eventually(|| journal.health().trouble.is_some()).await;
    assert!(journal.health().bytes <= 4 * SEGMENT);
    assert!(matches!(journal.accept(large(0)).await, Ok(Accepted::Duplicate { .. })));
    let fence = journal.lease(&sink(), 0).await.unwrap().unwrap().fence;
    let settled = Checkpoint { low: Offset(accepted as u64), ..Checkpoint::default() };
    eventually(|| journal.shared.catalog.bytes() == 4 * SEGMENT).await;
    journal.commit(&fence, &settled).await.unwrap();
    let room = async {
        for n in accepted..accepted + 6 {
            while let Err(error) = journal.accept(large(n)).await {
                // A segment is sealed in the background before it is given back.
                assert!(matches!(error, AcceptError::Full { .. }), "{error:?}");
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), room).await.expect("space was given back");
    assert!(
        matches!(journal.accept(large(0)).await, Ok(Accepted::Duplicate { .. })),
        "known after its segment is gone"
    );
}

#[tokio::test]
async fn derived_pushes_go_past_the_limit_so_that_their_events_can_be_settled() {
    let (journal, _) = open(&SimFs::new(1));
    journal.register_sink(&sink(), Start::Oldest).await.unwrap();
    let mut accepted = 0;
    while journal.accept(large(accepted)).await.is_ok() {
        accepted += 1;
    }
    for n in 0..accepted {
        journal.accept_derived(large(1000 + n)).await.unwrap();
        let other = journal.accept(large(2000)).await;
        assert!(matches!(other, Err(AcceptError::Full { .. })), "the room is for derived pushes alone: {other:?}");
    }
    eventually(|| journal.health().trouble.is_some()).await;
    let fence = journal.lease(&sink(), 0).await.unwrap().unwrap().fence;
    let settled = Checkpoint { low: Offset(2 * accepted as u64), ..Checkpoint::default() };
    let room = async {
        while journal.accept(large(2000)).await.is_err() {
            journal.commit(&fence, &settled).await.unwrap();
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), room).await.expect("space was given back");
    eventually(|| journal.health().trouble.is_none()).await;
}

#[tokio::test]
async fn without_a_sink_the_oldest_segment_makes_room() {
    let (journal, _) = open(&SimFs::new(1));
    for n in 0..100 {
        while journal.accept(large(n)).await.is_err() {
            // The segment before is sealed in the background.
            tokio::task::yield_now().await;
        }
    }
    assert!(journal.health().bytes <= 4 * SEGMENT);
}

#[tokio::test]
async fn a_push_that_no_segment_holds_is_refused() {
    let (journal, _) = open(&SimFs::new(1));
    let huge = Push { body: vec![0; 5000].into(), ..push("a", "s", 0) };
    assert!(matches!(journal.accept(huge).await, Err(AcceptError::TooLarge { .. })));
}

#[tokio::test]
async fn ids_outlive_their_segment_and_a_restart() {
    let disk = SimFs::new(1);
    let (journal, _) = open(&disk);
    journal.register_sink(&sink(), Start::Oldest).await.unwrap();
    for n in 0..7 {
        journal.accept(large(n)).await.unwrap();
    }
    let fence = journal.lease(&sink(), 0).await.unwrap().unwrap().fence;
    journal.commit(&fence, &Checkpoint { low: Offset(7), ..Checkpoint::default() }).await.unwrap();
    journal.close().await;
    drop(journal);
    let (journal, _) = open(&disk);
    assert!(readable(&journal).await.0.is_empty(), "everything was settled");
    for n in 0..7 {
        assert!(matches!(journal.accept(large(n)).await, Ok(Accepted::Duplicate { .. })));
    }
    assert_eq!(
        journal.accept(large(7)).await,
        Ok(Accepted::New { offset: Offset(8) }),
        "offsets are never given twice"
    );
}

#[tokio::test]
async fn removed_dead_letters_give_their_space_back() {
    let disk = SimFs::new(1);
    let (journal, _) = open(&disk);
    let body: bytes::Bytes = vec![b'x'; 100_000].into();
    for n in 0..40 {
        let refused = Push { body: body.clone(), ..push(&n.to_string(), "s", 0) };
        let id = DeadLetterId { sink: INGRESS.into(), number: 0 };
        let refused = DeadLetter { id, ..letter(&INGRESS.into(), 0, Offset(1), &refused) };
        journal.keep_refused(refused, 3).await.unwrap();
    }
    assert!(journal.health().bytes < 2_000_000, "{} bytes", journal.health().bytes);
    drop(journal);
    disk.restart();
    let (journal, _) = open(&disk);
    let page = journal.dead_letters(&Selection::default(), None, 10).await.unwrap();
    let ids: Vec<_> = page.heads.iter().map(|head| head.push_id.as_str().to_owned()).collect();
    assert_eq!(ids, ["37", "38", "39"]);
    assert_eq!(journal.dead_letter_of(&page.heads[0].id).await.unwrap().unwrap().push.body, body);
}

async fn eventually(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "it never came true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
