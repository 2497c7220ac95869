//! Failures of events and of the sink: retry, breaker, dead letters.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sink_api::settings::Period;
use sink_api::{BatchEvent, Outcome};

use super::journal::Memory;
use super::sink::{Reaction, Scripted, fault};
use super::*;
use crate::names::Offset;

fn fails_first(times: u32) -> impl FnMut(&BatchEvent) -> Outcome {
    move |event| if event.attempt <= times { Outcome::retry(fault("http-500")) } else { Outcome::delivered() }
}

#[tokio::test(start_paused = true)]
async fn a_failed_event_is_tried_again_with_growing_delays() {
    let (journal, sink) = (Arc::new(Memory::default()), Arc::new(Scripted::each(fails_first(4))));
    journal.put(push("a", None));
    let running = start(&journal, &sink, &settings());
    running.all_settled().await;
    let times = sink.times();
    for (failures, pair) in times.windows(2).enumerate() {
        let (delay, full) = ((pair[1] - pair[0]).as_secs_f64(), 0.2 * 2f64.powi(i32::try_from(failures).unwrap()));
        assert!(delay >= full / 2.0 && delay <= full + 0.01, "{delay} of {full}");
    }
    assert_eq!((times.len(), running.status.retries()), (5, 4));
    assert_eq!(running.metrics.attempts_retry.get(), 4);
    assert!(journal.letters().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_event_out_of_attempts_becomes_a_dead_letter_with_its_reason() {
    let (journal, sink) = (Arc::new(Memory::default()), Arc::new(Scripted::each(fails_first(u32::MAX))));
    journal.put(push("a", Some("s")));
    let mut settings = settings();
    settings.retry.attempts_max = 3;
    let running = start(&journal, &sink, &settings);
    running.all_settled().await;
    let letter = journal.letters().remove(0);
    assert_eq!((letter.id.to_string().as_str(), letter.code.as_str(), letter.attempts), ("events-1", "http-500", 3));
    assert_eq!(letter.push.id.as_str(), "a");
    assert!(letter.first_attempt_at <= letter.last_attempt_at);
    assert_eq!(sink.tries().len(), 3);
    until(|| running.metrics.dead_letters.get() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_asks_for_patience_burns_no_attempt() {
    let journal = Arc::new(Memory::default());
    let sink = Arc::new(Scripted::each(|event| match event.attempt {
        1..=5 => {
            Outcome::Retry { fault: fault("http-429"), after: Some(Duration::from_secs(90)), burns_attempt: false }
        }
        _ => Outcome::delivered(),
    }));
    journal.put(push("a", None));
    let mut settings = settings();
    settings.retry.attempts_max = 1;
    let running = start(&journal, &sink, &settings);
    running.all_settled().await;
    assert!(journal.letters().is_empty());
    assert!(sink.times().windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_secs(90)));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_event_is_a_dead_letter_at_once_and_its_session_goes_on() {
    let journal = Arc::new(Memory::default());
    let sink = Arc::new(Scripted::each(|event| match event.offset {
        1 => Outcome::rejected(fault("http-400")),
        _ => Outcome::delivered(),
    }));
    journal.put(push("a", Some("s")));
    journal.put(push("b", Some("s")));
    let running = start(&journal, &sink, &settings());
    running.all_settled().await;
    assert_eq!((journal.letters().len(), journal.letters()[0].attempts), (1, 1));
    assert_eq!(sink.delivered(), [2]);
    assert_eq!(running.metrics.attempts_rejected.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_entry_is_a_dead_letter_as_it_is() {
    let (journal, sink) = (Arc::new(Memory::default()), Arc::new(Scripted::ok()));
    journal.put_corrupt(Push { body: Bytes::from_static(b"\xff{"), ..push("a", Some("s")) });
    journal.put(push("b", Some("s")));
    let running = start(&journal, &sink, &settings());
    running.all_settled().await;
    let letter = journal.letters().remove(0);
    assert_eq!((letter.code.as_str(), letter.attempts, &letter.push.body[..]), ("corrupt", 0, &b"\xff{"[..]));
    assert_eq!(sink.delivered(), [2]);
}

#[tokio::test(start_paused = true)]
async fn an_outage_opens_the_breaker_burns_no_attempt_and_ends_with_a_probe_and_a_trial() {
    let journal = Arc::new(Memory::default());
    let sink = Arc::new(Scripted::ok());
    let mut settings = settings();
    settings.retry.attempts_max = 1;
    settings.retry.delay_max = Period::from_secs(4);
    let running = start(&journal, &sink, &settings);
    until(|| sink.probes.load(Ordering::SeqCst) == 1).await;
    sink.is_away.store(true, Ordering::SeqCst);
    (0..40).for_each(|number| _ = journal.put(push(&number.to_string(), None)));
    until(|| running.status.state() == State::Broken).await;
    let tries = sink.tries().len();
    let probes = sink.probes.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(400)).await;
    let probed = sink.probes.load(Ordering::SeqCst) - probes;
    assert!((100..=210).contains(&probed), "probes 2 to 4 s apart: {probed}");
    assert_eq!(sink.tries().len(), tries, "only probes while it is away");
    assert_eq!(running.status.last_error().unwrap().code, "away");
    sink.is_away.store(false, Ordering::SeqCst);
    running.all_settled().await;
    assert_eq!((journal.letters().len(), sink.delivered().len()), (0, 40));
    assert_eq!((running.status.state(), running.status.retries()), (State::Running, 0));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_passes_is_no_proof_and_the_delay_keeps_growing() {
    let journal = Arc::new(Memory::default());
    let sink = Arc::new(Scripted::each(|_| Outcome::unavailable(fault("http-401"))));
    (0..40).for_each(|number| _ = journal.put(push(&number.to_string(), None)));
    let mut settings = settings();
    settings.concurrency = 1;
    let _running = start(&journal, &sink, &settings);
    until(|| sink.tries().len() == 9).await;
    assert!(sink.tries().iter().all(|one| *one == [1, 2, 3, 4]), "one trial batch at a time");
    let times = sink.times();
    let delay = times[8] - times[7];
    assert!(delay >= Duration::from_millis(200 * 128 / 2), "{delay:?}");
}

async fn is_trouble_of_the_sink(reaction: fn() -> Reaction, code: &str) {
    let journal = Arc::new(Memory::default());
    let mut count = 0;
    let sink = Arc::new(Scripted::new(move |batch| {
        count += 1;
        if count <= 2 { reaction() } else { Reaction::Answer(vec![Outcome::delivered(); batch.events.len()]) }
    }));
    (0..3).for_each(|number| _ = journal.put(push(&number.to_string(), Some("s"))));
    let mut settings = settings();
    settings.retry.attempts_max = 1;
    let running = start(&journal, &sink, &settings);
    running.all_settled().await;
    assert_eq!((sink.delivered(), journal.letters().len()), (vec![1, 2, 3], 0));
    assert_eq!(running.status.last_error().unwrap().code, code);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_panics_is_away() {
    is_trouble_of_the_sink(|| Reaction::Panic, "sink-panicked").await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_gives_a_wrong_number_of_outcomes_is_away() {
    is_trouble_of_the_sink(|| Reaction::Answer(vec![Outcome::delivered(); 7]), "outcome-count").await;
}

#[tokio::test(start_paused = true)]
async fn full_dead_letters_pause_the_sink_until_there_is_room() {
    let journal = Arc::new(Memory::default());
    let sink = Arc::new(Scripted::each(|event| match event.offset {
        1..=5 => Outcome::rejected(fault("http-400")),
        _ => Outcome::delivered(),
    }));
    (0..30).for_each(|number| _ = journal.put(push(&number.to_string(), None)));
    let mut settings = settings();
    settings.concurrency = 1;
    settings.dead_letters_max = 3;
    let running = start(&journal, &sink, &settings);
    until(|| running.status.state() == State::Paused).await;
    let tries = sink.tries().len();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(journal.letters().len(), 3);
    assert!(sink.tries().len() <= tries + 1, "at most what was on its way");
    assert_eq!(running.status.last_error().unwrap().code, "dead-letters-full");
    assert!(journal.checkpoint().low < Offset(5));
    let ids: Vec<_> = journal.letters().into_iter().map(|letter| letter.id).collect();
    crate::journal::Journal::purge_dead_letters(&*journal, &ids).await.unwrap();
    running.all_settled().await;
    assert_eq!((journal.letters().len(), sink.delivered().len()), (2, 25));
    assert_eq!(running.status.state(), State::Running);
}
