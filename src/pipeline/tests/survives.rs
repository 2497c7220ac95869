//! Crashes, takeovers, forced ends, and what a restart remembers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sink_api::outcome::FENCED;
use sink_api::settings::{Period, Size};
use sink_api::{Fault, Needs, Outcome};

use super::journal::Memory;
use super::sink::{Reaction, Scripted, fault};
use super::*;
use crate::config::model::Window;
use crate::names::Offset;

const STABLE: Needs = Needs { stable_batches: true, resumes_positions: false };

#[tokio::test(start_paused = true)]
async fn attempts_are_remembered_over_a_restart() {
    let journal = Arc::new(Memory::default());
    let sink = Arc::new(Scripted::each(|_| Outcome::retry(fault("http-500"))));
    journal.put(push("a", None));
    let mut settings = settings();
    settings.retry.attempts_max = 4;
    settings.retry.delay_min = Period::from_secs(20);
    let running = start(&journal, &sink, &settings);
    until(|| sink.tries().len() == 2).await;
    until(|| journal.checkpoint().attempts.first().is_some_and(|attempts| attempts.count == 2)).await;
    let first_at = journal.checkpoint().attempts[0].first_at;
    running.killed().await;
    let running = start(&journal, &sink, &settings);
    running.all_settled().await;
    let letter = journal.letters().remove(0);
    assert_eq!((letter.attempts, letter.first_attempt_at, sink.tries().len()), (4, first_at, 4));
    assert!(journal.checkpoint().attempts.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_settled_above_the_low_watermark_is_not_delivered_again() {
    let journal = Arc::new(Memory::default());
    let sink = Arc::new(Scripted::each(|event| match (event.offset, event.attempt) {
        (1 | 5, 1) => Outcome::retry(fault("http-500")),
        _ => Outcome::delivered(),
    }));
    (0..10).for_each(|number| _ = journal.put(push(&number.to_string(), None)));
    let mut settings = settings();
    settings.retry.delay_min = Period::from_secs(40);
    let running = start(&journal, &sink, &settings);
    until(|| journal.checkpoint().settled_above.len() == 8).await;
    running.killed().await;
    // With a small window the rest of the checkpoint must be carried along until it is read.
    settings.window.events_max = 2;
    let running = start(&journal, &sink, &settings);
    running.all_settled().await;
    let mut delivered = sink.delivered();
    delivered.sort_unstable();
    assert_eq!(delivered, (1..=10).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_forced_end_abandons_what_is_in_flight_and_a_restart_delivers_it() {
    let journal = Arc::new(Memory::default());
    let hangs = Arc::new(Scripted::new(|batch| match batch.events[0].offset {
        1 => Reaction::Answer(vec![Outcome::delivered(); 4]),
        _ => Reaction::Hang,
    }));
    (0..8).for_each(|number| _ = journal.put(push(&number.to_string(), None)));
    let running = start(&journal, &hangs, &settings());
    until(|| hangs.tries().len() == 2 && hangs.delivered().len() == 4).await;
    running.forced().await;
    assert_eq!(journal.checkpoint().low, Offset(4));
    let sink = Arc::new(Scripted::ok());
    let running = start(&journal, &sink, &settings());
    running.all_settled().await;
    assert_eq!(sink.delivered(), [5, 6, 7, 8]);
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_lost_its_lease_settles_nothing() {
    let journal = Arc::new(Memory::default());
    let sink = Arc::new(Scripted::ok().taking(Duration::from_secs(5)));
    (0..4).for_each(|number| _ = journal.put(push(&number.to_string(), None)));
    let running = start(&journal, &sink, &settings());
    until(|| sink.tries().len() == 1).await;
    journal.take_over(true);
    until(|| sink.delivered().len() == 4).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((journal.checkpoint().low, sink.tries().len()), (Offset::ZERO, 1));
    journal.take_over(false);
    running.all_settled().await;
    assert_eq!(sink.tries().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stable_batch_is_announced_first_and_the_same_over_a_restart() {
    let journal = Arc::new(Memory::default());
    let hangs = Arc::new(Scripted::new(|_| Reaction::Hang).asking(STABLE));
    (0..3).for_each(|number| _ = journal.put(push(&number.to_string(), None)));
    let running = start(&journal, &hangs, &settings());
    until(|| hangs.tries().len() == 1).await;
    assert_eq!(journal.checkpoint().batch_end, Some(Offset(3)));
    (3..30).for_each(|number| _ = journal.put(push(&number.to_string(), None)));
    running.killed().await;
    let sink = Arc::new(Scripted::ok().asking(STABLE));
    let mut settings = settings();
    settings.window = Window { events_max: 2, bytes_max: Size(1) };
    let running = start(&journal, &sink, &settings);
    running.all_settled().await;
    assert_eq!(sink.tries()[0], [1, 2, 3]);
    assert_eq!(sink.in_flight_max.load(Ordering::SeqCst), 1);
    assert_eq!(sink.delivered(), (1..=30).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_stable_batch_of_which_a_part_failed_goes_again_whole_but_for_its_dead_letters() {
    let journal = Arc::new(Memory::default());
    let sink = Arc::new(
        Scripted::each(|event| match (event.offset, event.attempt) {
            (2, 1) => Outcome::retry(fault("http-500")),
            (3, _) => Outcome::rejected(fault("too-large")),
            _ => Outcome::delivered(),
        })
        .asking(STABLE),
    );
    (0..6).for_each(|number| _ = journal.put(push(&number.to_string(), None)));
    let running = start(&journal, &sink, &settings());
    running.all_settled().await;
    assert_eq!(sink.tries(), [vec![1, 2, 3, 4], vec![1, 2, 4], vec![5, 6]]);
    assert_eq!((journal.letters().len(), running.status.delivered()), (1, 5));
}

#[tokio::test(start_paused = true)]
async fn a_stable_batch_being_gathered_is_finished_by_a_drain() {
    let (journal, sink) = (Arc::new(Memory::default()), Arc::new(Scripted::ok().asking(STABLE)));
    let mut settings = settings();
    settings.batch.linger = Period::from_secs(3600);
    let running = start(&journal, &sink, &settings);
    journal.put(push("a", None));
    tokio::time::sleep(Duration::from_secs(1)).await;
    running.drained().await;
    assert_eq!(journal.checkpoint().low, Offset(1));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_remembers_its_position_goes_on_after_it() {
    let journal = Arc::new(Memory::default());
    let needs = Needs { stable_batches: false, resumes_positions: true };
    let sink = Arc::new(Scripted::ok().asking(needs));
    (0..10).for_each(|number| _ = journal.put(push(&number.to_string(), None)));
    *sink.position.lock().unwrap() = Some(7);
    let running = start(&journal, &sink, &settings());
    running.all_settled().await;
    assert_eq!(sink.delivered(), [8, 9, 10]);
}

#[tokio::test(start_paused = true)]
async fn a_fenced_sink_begins_anew_with_lease_and_position_and_is_no_outage() {
    let journal = Arc::new(Memory::default());
    let was_fenced = AtomicBool::new(false);
    let sink = Scripted::each(move |_| match was_fenced.swap(true, Ordering::Relaxed) {
        false => Outcome::unavailable(Fault::new(FENCED, "taken over")),
        true => Outcome::delivered(),
    });
    let sink = Arc::new(sink.asking(Needs { stable_batches: false, resumes_positions: true }));
    journal.put(push("a", None));
    let mut settings = settings();
    settings.retry.delay_min = Period::from_secs(3600);
    let begun = tokio::time::Instant::now();
    let running = start(&journal, &sink, &settings);
    running.all_settled().await;
    assert_eq!(sink.delivered(), [1]);
    assert!(begun.elapsed() < Duration::from_secs(60), "after {:?}", begun.elapsed());
}
