//! Dead letters that are tried again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sink_api::Outcome;

use super::journal::Memory;
use super::sink::{Scripted, fault};
use super::*;
use crate::journal::{DeadLetterId, Selection};
use crate::names::Offset;
use crate::replay::{Progress, What};

/// A sink that rejects until the flag is set.
fn mendable(is_mended: &Arc<AtomicBool>) -> Scripted {
    let is_mended = is_mended.clone();
    Scripted::each(move |event| match is_mended.load(Ordering::SeqCst) || event.event.id.starts_with("good") {
        true => Outcome::delivered(),
        false => Outcome::rejected(fault("http-400")),
    })
}

fn all() -> What {
    let through = DeadLetterId { sink: "events".into(), number: u64::MAX };
    What::Matching { selection: Selection { sink: Some("events".into()), ..Selection::default() }, through }
}

fn ids(offsets: &[u64]) -> What {
    What::Ids(offsets.iter().map(|offset| DeadLetterId::of_entry("events".into(), 0, Offset(*offset))).collect())
}

impl Running {
    fn replay(&self, what: &What, rate: Option<f64>) {
        self.replays.ask(&"events".into(), what, rate).unwrap();
    }

    fn progress(&self) -> Progress {
        self.replays.progress(&"events".into())
    }

    async fn replayed(&self) -> Progress {
        until(|| self.progress().running == 0).await;
        self.progress()
    }
}

/// Ten dead letters in three sessions, all of a sink that is mended afterwards.
async fn ten_letters() -> (Arc<Memory>, Arc<Scripted>, Arc<AtomicBool>, Running) {
    let is_mended = Arc::new(AtomicBool::new(false));
    let (journal, sink) = (Arc::new(Memory::default()), Arc::new(mendable(&is_mended)));
    for number in 0..10 {
        journal.put(push(&format!("bad{number}"), Some(&format!("s{}", number % 3))));
    }
    let running = start(&journal, &sink, &settings());
    running.all_settled().await;
    assert_eq!((journal.letters().len(), sink.delivered().len()), (10, 0));
    (journal, sink, is_mended, running)
}

#[tokio::test(start_paused = true)]
async fn replayed_letters_are_delivered_in_order_and_removed() {
    let (journal, sink, is_mended, running) = ten_letters().await;
    is_mended.store(true, Ordering::SeqCst);
    running.replay(&all(), None);
    assert_eq!(running.replayed().await, Progress { delivered: 10, failed: 0, running: 0 });
    assert_eq!(sink.delivered(), (1..=10).collect::<Vec<_>>());
    assert!(journal.letters().is_empty());
    until(|| running.metrics.dead_letters.get() == 0).await;
    running.drained().await;
}

#[tokio::test(start_paused = true)]
async fn only_the_letters_that_were_asked_for_are_replayed() {
    let (journal, sink, is_mended, running) = ten_letters().await;
    is_mended.store(true, Ordering::SeqCst);
    running.replay(&ids(&[9, 2, 2, 77]), None);
    assert_eq!(running.replayed().await.delivered, 2);
    assert_eq!((sink.delivered(), journal.letters().len()), (vec![2, 9], 8));
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_fails_again_stays_with_its_history() {
    let (journal, _sink, _, running) = ten_letters().await;
    let before = journal.letters();
    running.replay(&all(), None);
    assert_eq!(running.replayed().await, Progress { delivered: 0, failed: 10, running: 0 });
    for (before, after) in before.iter().zip(journal.letters()) {
        assert_eq!((before.attempts, after.attempts), (1, 2));
        assert_eq!(
            (&after.id, after.first_attempt_at, &after.push),
            (&before.id, before.first_attempt_at, &before.push)
        );
        assert!(after.last_attempt_at > before.last_attempt_at);
    }
}

#[tokio::test(start_paused = true)]
async fn a_replayed_letter_is_retried_as_an_event_is_and_its_attempts_add_up() {
    let journal = Arc::new(Memory::default());
    let sink = Arc::new(Scripted::each(|event| match event.attempt {
        1..=5 => Outcome::retry(fault("http-500")),
        _ => Outcome::delivered(),
    }));
    journal.put(push("a", None));
    let mut settings = settings();
    settings.retry.attempts_max = 2;
    let running = start(&journal, &sink, &settings);
    running.all_settled().await;
    for attempts in [4, 6] {
        running.replay(&all(), None);
        running.replayed().await;
        assert_eq!(journal.letters().first().map_or(6, |letter| letter.attempts), attempts);
    }
    assert_eq!((journal.letters().len(), sink.tries().len()), (0, 6));
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept_to() {
    let (_journal, sink, is_mended, running) = ten_letters().await;
    is_mended.store(true, Ordering::SeqCst);
    let tries = sink.tries().len();
    running.replay(&all(), Some(2.0));
    running.replayed().await;
    let times = sink.times().split_off(tries);
    assert_eq!(times.len(), 10);
    let took = *times.last().unwrap() - times[0];
    assert!((4.4..4.7).contains(&took.as_secs_f64()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn live_events_go_on_beside_letters_that_keep_failing() {
    let (journal, sink, _, running) = ten_letters().await;
    running.replay(&all(), Some(1.0));
    for number in 0..50 {
        journal.put(push(&format!("good{number}"), Some(&format!("s{}", number % 3))));
    }
    let began = tokio::time::Instant::now();
    running.all_settled().await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(sink.delivered(), (11..=60).collect::<Vec<_>>());
    assert_eq!(running.replayed().await.failed, 10);
}

#[tokio::test(start_paused = true)]
async fn with_one_batch_at_a_time_replays_and_live_events_take_turns() {
    let (journal, sink, is_mended, running) = ten_letters().await;
    drop(running);
    is_mended.store(true, Ordering::SeqCst);
    let mut settings = settings();
    (settings.concurrency, settings.batch.events_max) = (1, 1);
    for number in 0..10 {
        journal.put(push(&format!("good{number}"), Some(&format!("live{number}"))));
    }
    let tries = sink.tries().len();
    let running = start(&journal, &sink, &settings);
    running.replay(&all(), None);
    running.replayed().await;
    running.all_settled().await;
    let tries = sink.tries().split_off(tries);
    let is_live: Vec<_> = tries.iter().map(|offsets| offsets[0] > 10).collect();
    assert_eq!(is_live.len(), 20);
    assert!(
        is_live.windows(4).all(|four| four.iter().any(|live| *live)) || !is_live[16..].contains(&true),
        "{is_live:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_away_keeps_replays_waiting() {
    let (journal, sink, is_mended, running) = ten_letters().await;
    is_mended.store(true, Ordering::SeqCst);
    sink.is_away.store(true, Ordering::SeqCst);
    running.replay(&all(), None);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!((running.progress(), journal.letters().len()), (Progress { running: 1, ..Progress::default() }, 10));
    assert_eq!(running.status.state(), State::Broken);
    sink.is_away.store(false, Ordering::SeqCst);
    assert_eq!(running.replayed().await.delivered, 10);
    assert_eq!(sink.delivered(), (1..=10).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_paused_sink_gets_no_replays() {
    let (_journal, sink, is_mended, running) = ten_letters().await;
    is_mended.store(true, Ordering::SeqCst);
    running.status.pause();
    running.replay(&all(), None);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(sink.delivered().is_empty());
    running.status.resume();
    assert_eq!(running.replayed().await.delivered, 10);
}

#[tokio::test(start_paused = true)]
async fn a_replay_cut_off_by_a_crash_leaves_dead_letters_and_loses_none() {
    let (journal, sink, is_mended, running) = ten_letters().await;
    is_mended.store(true, Ordering::SeqCst);
    running.replay(&all(), Some(1.0));
    until(|| running.progress().delivered == 4).await;
    running.killed().await;
    assert_eq!(journal.letters().len() + sink.delivered().len(), 10);
    let running = start(&journal, &sink, &settings());
    running.replay(&all(), None);
    running.replayed().await;
    assert_eq!((sink.delivered(), journal.letters().len()), ((1..=10).collect::<Vec<_>>(), 0));
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_the_batch_that_is_out_and_leaves_the_rest() {
    let (journal, _, is_mended, running) = ten_letters().await;
    drop(running);
    is_mended.store(true, Ordering::SeqCst);
    let slow = Arc::new(Scripted::ok().taking(Duration::from_secs(5)));
    let running = start(&journal, &slow, &settings());
    running.replay(&all(), None);
    until(|| slow.tries().len() == 1).await;
    running.drained().await;
    assert_eq!((slow.delivered(), journal.letters().len()), (vec![1, 2, 3, 4], 6));
}

#[tokio::test(start_paused = true)]
async fn full_dead_letters_pause_the_sink_and_a_replay_makes_room() {
    let is_mended = Arc::new(AtomicBool::new(false));
    let (journal, sink) = (Arc::new(Memory::default()), Arc::new(mendable(&is_mended)));
    (0..3).for_each(|number| _ = journal.put(push(&format!("bad{number}"), Some("s"))));
    let mut settings = settings();
    (settings.dead_letters_max, settings.batch.events_max) = (1, 1);
    let running = start(&journal, &sink, &settings);
    until(|| running.status.state() == State::Paused).await;
    assert_eq!(journal.letters().len(), 1);
    is_mended.store(true, Ordering::SeqCst);
    while journal.checkpoint().low < journal.last() || !journal.letters().is_empty() {
        running.replay(&all(), None);
        running.replayed().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let mut delivered = sink.delivered();
    delivered.sort_unstable();
    assert_eq!(delivered, [1, 2, 3]);
    assert_eq!(running.status.state(), State::Running);
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_refuses_to_save_fates_is_asked_again() {
    let (journal, _sink, _, running) = ten_letters().await;
    journal.inner.lock().unwrap().refused_writes = 3;
    running.replay(&all(), None);
    assert_eq!(running.replayed().await.failed, 10);
    assert!(journal.letters().iter().all(|letter| letter.attempts == 2));
}

#[tokio::test(start_paused = true)]
async fn a_letter_purged_meanwhile_does_not_come_back() {
    let (journal, _, _, running) = ten_letters().await;
    drop(running);
    let slow = Arc::new(Scripted::each(|_| Outcome::rejected(fault("no"))).taking(Duration::from_secs(5)));
    let running = start(&journal, &slow, &settings());
    running.replay(&all(), None);
    until(|| slow.tries().len() == 1).await;
    journal.inner.lock().unwrap().letters.clear();
    running.replayed().await;
    assert!(journal.letters().is_empty());
}
