//! Selecting, batching, settling, derived pushes, draining, measuring.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use sink_api::settings::{Period, Size};
use sink_api::{DerivedPush, Outcome};

use super::journal::Memory;
use super::sink::{Reaction, Scripted, fault};
use super::*;
use crate::config::model::Window;
use crate::names::Offset;

#[tokio::test(start_paused = true)]
async fn only_selected_entries_are_delivered_and_the_others_are_passed() {
    let (journal, sink) = (Arc::new(Memory::default()), Arc::new(Scripted::ok()));
    for action in ["cdr", "record", "CDR", "imcdr"] {
        journal.put(Push { action: action.into(), ..push(action, None) });
    }
    journal.put(Push { source: "other".into(), ..push("elsewhere", None) });
    let mut settings = settings();
    settings.actions = Some(vec!["cdr".into()]);
    settings.sources = Some(vec!["main".into()]);
    let running = start(&journal, &sink, &settings);
    running.all_settled().await;
    assert_eq!(sink.delivered(), [1, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_long_stretch_for_others_is_passed_with_few_saves_though_the_window_is_small() {
    let (journal, sink) = (Arc::new(Memory::default()), Arc::new(Scripted::ok()));
    for number in 0..20_000 {
        journal.put(Push { action: "imcdr".into(), ..push(&number.to_string(), None) });
    }
    let mut settings = settings();
    settings.actions = Some(vec!["cdr".into()]);
    settings.window.events_max = 10;
    let running = start(&journal, &sink, &settings);
    running.all_settled().await;
    assert!(journal.inner.lock().unwrap().commits < 10);
}

#[tokio::test(start_paused = true)]
async fn what_others_get_is_not_pending_behind_a_stuck_event() {
    let journal = Arc::new(Memory::default());
    let sink = Arc::new(Scripted::new(|_| Reaction::Hang));
    journal.put(push("stuck", None));
    for number in 0..50 {
        journal.put(Push { action: "imcdr".into(), ..push(&number.to_string(), None) });
    }
    let mut settings = settings();
    settings.actions = Some(vec!["cdr".into()]);
    let running = start(&journal, &sink, &settings);
    until(|| running.metrics.pending.get() == 1).await;
    assert_eq!(journal.checkpoint().low, Offset::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_bounded_by_count() {
    let (journal, sink) = (Arc::new(Memory::default()), Arc::new(Scripted::ok()));
    (0..10).for_each(|number| _ = journal.put(push(&number.to_string(), None)));
    let running = start(&journal, &sink, &settings());
    running.all_settled().await;
    assert_eq!(sink.tries(), [vec![1, 2, 3, 4], vec![5, 6, 7, 8], vec![9, 10]]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_bounded_by_bytes() {
    let (journal, sink) = (Arc::new(Memory::default()), Arc::new(Scripted::ok()));
    for (id, size) in [("a", 60), ("b", 60), ("c", 30), ("d", 500)] {
        journal.put(Push { body: Bytes::from(vec![b' '; size]), ..push(id, None) });
    }
    let mut settings = settings();
    settings.batch.bytes_max = Size(100);
    let running = start(&journal, &sink, &settings);
    running.all_settled().await;
    assert_eq!(sink.tries(), [vec![1], vec![2, 3], vec![4]]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_not_full_goes_when_its_first_event_has_lingered() {
    let (journal, sink) = (Arc::new(Memory::default()), Arc::new(Scripted::ok()));
    let mut settings = settings();
    settings.batch.linger = Period::from_millis(50);
    let running = start(&journal, &sink, &settings);
    until(|| running.status.state() == State::Running && sink.probes.load(Ordering::SeqCst) == 1).await;
    let began = tokio::time::Instant::now();
    journal.put(push("a", None));
    tokio::time::sleep(Duration::from_millis(30)).await;
    journal.put(push("b", None));
    running.all_settled().await;
    assert_eq!(sink.tries(), [vec![1, 2]]);
    let waited = sink.times()[0] - began;
    assert!(waited >= Duration::from_millis(49) && waited < Duration::from_millis(60), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn as_many_batches_as_allowed_are_in_flight() {
    let journal = Arc::new(Memory::default());
    let sink = Arc::new(Scripted::ok().taking(Duration::from_secs(1)));
    (0..100).for_each(|number| _ = journal.put(push(&number.to_string(), None)));
    let mut settings = settings();
    settings.concurrency = 3;
    let running = start(&journal, &sink, &settings);
    running.all_settled().await;
    assert_eq!(sink.in_flight_max.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn saves_are_gathered_under_load_and_prompt_for_a_lone_event() {
    let (journal, sink) = (Arc::new(Memory::default()), Arc::new(Scripted::ok()));
    let running = start(&journal, &sink, &settings());
    tokio::time::sleep(Duration::from_secs(1)).await;
    journal.put(push("lone", None));
    let began = tokio::time::Instant::now();
    running.all_settled().await;
    assert!(began.elapsed() < Duration::from_millis(20));
    let before = journal.inner.lock().unwrap().commits;
    for number in 0..1000 {
        journal.put(push(&number.to_string(), None));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    running.all_settled().await;
    let commits = journal.inner.lock().unwrap().commits - before;
    assert!((4..=14).contains(&commits), "{commits}");
}

#[tokio::test(start_paused = true)]
async fn a_derived_push_is_in_the_journal_before_its_event_is_settled() {
    let journal = Arc::new(Memory::default());
    journal.put(push("p", Some("s")));
    journal.put(push("next", Some("s")));
    journal.inner.lock().unwrap().refused_accepts = 3;
    let sink = Arc::new(Scripted::each(|event| {
        let derived = DerivedPush {
            id_suffix: "archived".into(),
            action: "recording.archived".into(),
            session_id: Some("s".into()),
            body: Bytes::from_static(b"{}"),
        };
        Outcome::Delivered { derived: (event.event.id == "p").then(|| Box::new(derived)) }
    }));
    let mut settings = settings();
    settings.batch.events_max = 1;
    let running = start(&journal, &sink, &settings);
    until(|| sink.delivered() == [1]).await;
    assert_eq!((journal.last(), journal.checkpoint().low), (Offset(2), Offset::ZERO));
    until(|| journal.last() == Offset(3)).await;
    running.all_settled().await;
    assert_eq!(sink.delivered(), [1, 2, 3]);
    assert_eq!(running.status.delivered(), 3);
}

#[tokio::test(start_paused = true)]
async fn draining_finishes_what_is_in_flight_and_begins_nothing_new() {
    let journal = Arc::new(Memory::default());
    let sink = Arc::new(Scripted::ok().taking(Duration::from_secs(2)));
    (0..20).for_each(|number| _ = journal.put(push(&number.to_string(), None)));
    let mut settings = settings();
    settings.concurrency = 2;
    let running = start(&journal, &sink, &settings);
    until(|| sink.tries().len() == 2).await;
    let status = running.status.clone();
    running.stop.cancel();
    until(|| status.state() == State::Draining).await;
    running.drained().await;
    assert_eq!((sink.tries().len(), journal.checkpoint().low), (2, Offset(8)));
}

#[tokio::test(start_paused = true)]
async fn draining_sends_the_batch_being_gathered_without_its_linger() {
    let (journal, sink) = (Arc::new(Memory::default()), Arc::new(Scripted::ok()));
    let mut settings = settings();
    settings.batch.linger = Period::from_secs(3600);
    let running = start(&journal, &sink, &settings);
    journal.put(push("a", None));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(sink.tries().is_empty());
    running.drained().await;
    assert_eq!((sink.delivered(), journal.checkpoint().low), (vec![1], Offset(1)));
}

#[tokio::test(start_paused = true)]
async fn a_hanging_sink_bounds_what_is_in_hand() {
    let journal = Arc::new(Memory::default());
    let sink = Arc::new(Scripted::new(|_| Reaction::Hang));
    (0..1000).for_each(|number| _ = journal.put(push(&number.to_string(), None)));
    let mut settings = settings();
    settings.window = Window { events_max: 50, bytes_max: Size(1 << 20) };
    let running = start(&journal, &sink, &settings);
    tokio::time::sleep(Duration::from_secs(600)).await;
    // Four batches of four hang, the rest waits, and the journal keeps what was not read.
    assert_eq!(sink.tries().len(), 4);
    assert_eq!(running.metrics.pending.get(), 1000);
    running.forced().await;
    assert_eq!(journal.checkpoint().low, Offset::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_paused_sink_gets_nothing_until_it_is_resumed() {
    let (journal, sink) = (Arc::new(Memory::default()), Arc::new(Scripted::ok()));
    let running = start(&journal, &sink, &settings());
    running.status.pause();
    journal.put(push("a", None));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((sink.tries().len(), running.status.state()), (0, State::Paused));
    running.status.resume();
    running.all_settled().await;
    assert_eq!(running.status.state(), State::Running);
}

#[tokio::test(start_paused = true)]
async fn gauges_show_what_is_pending_and_fall_to_zero() {
    let journal = Arc::new(Memory::default());
    let sink = Arc::new(Scripted::ok());
    sink.is_away.store(true, Ordering::SeqCst);
    let received_at = Timestamp::now() - jiff::SignedDuration::from_secs(100);
    journal.put(Push { received_at, ..push("a", None) });
    let running = start(&journal, &sink, &settings());
    until(|| running.metrics.pending.get() == 1).await;
    assert!(running.metrics.oldest_pending_seconds.get() >= 100.0);
    until(|| running.metrics.breaker_open.get() == 1).await;
    sink.is_away.store(false, Ordering::SeqCst);
    until(|| running.metrics.pending.get() == 0).await;
    assert_eq!(running.metrics.oldest_pending_seconds.get(), 0.0);
    assert_eq!((running.metrics.breaker_open.get(), running.metrics.delivered.get()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_is_away_for_a_while_is_waited_for() {
    let (journal, sink) = (Arc::new(Memory::default()), Arc::new(Scripted::ok()));
    {
        let mut inner = journal.inner.lock().unwrap();
        (inner.refused_reads, inner.refused_writes) = (5, 5);
    }
    journal.put(push("a", None));
    let running = start(&journal, &sink, &settings());
    running.all_settled().await;
    assert_eq!(running.status.last_error().unwrap().code, "journal");
    assert_eq!(sink.delivered(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_answers_out_of_order_loses_nothing() {
    let journal = Arc::new(Memory::default());
    journal.put(push("a", Some("s")));
    journal.put(push("b", Some("s")));
    let mut is_first = true;
    let sink = Arc::new(Scripted::new(move |batch| {
        let mut answer = vec![Outcome::delivered(); batch.events.len()];
        if std::mem::take(&mut is_first) {
            answer[0] = Outcome::retry(fault("http-500"));
        }
        Reaction::Answer(answer)
    }));
    let running = start(&journal, &sink, &settings());
    running.all_settled().await;
    assert_eq!(sink.delivered(), [2, 1]);
}
