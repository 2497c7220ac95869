//! `when` and `mask` in a running pipeline.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use sink_api::{Event, Needs, Outcome};

use super::journal::Memory;
use super::sink::{Scripted, fault};
use super::*;
use crate::config::MaskRule;
use crate::names::Offset;

fn cdr(id: &str, session: &str, body: &str) -> Push {
    Push { body: Bytes::copy_from_slice(body.as_bytes()), ..push(id, Some(session)) }
}

fn long_calls() -> model::Sink {
    let mut settings = settings();
    settings.when = Some("data.duration_seconds > 60".into());
    settings
}

#[tokio::test(start_paused = true)]
async fn what_when_is_false_for_is_passed_and_settled() {
    let (journal, sink) = (Arc::new(Memory::default()), Arc::new(Scripted::ok()));
    for number in 0..2_000 {
        journal.put(cdr(
            &number.to_string(),
            "s",
            &format!(r#"{{"Duration":{}}}"#, if number % 100 == 7 { 61 } else { 60 }),
        ));
    }
    let mut settings = long_calls();
    settings.window.events_max = 10;
    let running = start(&journal, &sink, &settings);
    running.all_settled().await;
    assert_eq!(sink.delivered(), (0..20).map(|hundred| hundred * 100 + 8).collect::<Vec<_>>());
    assert!(journal.letters().is_empty());
    until(|| running.metrics.pending.get() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn what_when_cannot_decide_is_a_dead_letter_at_once_with_its_whole_payload() {
    let (journal, sink) = (Arc::new(Memory::default()), Arc::new(Scripted::ok()));
    journal.put(cdr("a", "s", r#"{"Duration":61}"#));
    journal.put(cdr("b", "s", r#"{"Caller":"0086138"}"#));
    journal.put(cdr("c", "s", r#"{"Duration":62}"#));
    let running = start(&journal, &sink, &long_calls());
    running.all_settled().await;
    assert_eq!(sink.delivered(), [1, 3]);
    let letter = journal.letters().remove(0);
    assert_eq!((letter.push.id.as_str(), letter.code.as_str(), letter.attempts), ("b", "when", 0));
    assert_eq!(&letter.push.body[..], br#"{"Caller":"0086138"}"#);
    assert_eq!(letter.reason, "`when` applies > to null_type and int");
}

#[tokio::test(start_paused = true)]
async fn a_session_keeps_its_order_around_what_is_passed_and_what_is_undecided() {
    let journal = Arc::new(Memory::default());
    let sink = Arc::new(Scripted::each(|event| match (event.offset, event.attempt) {
        (1, 1..=2) => Outcome::retry(fault("http-500")),
        _ => Outcome::delivered(),
    }));
    for (id, session, duration) in
        [("a", "s", "61"), ("b", "s", "1"), ("c", "t", "70"), ("d", "s", "null"), ("e", "s", "62"), ("f", "t", "2")]
    {
        journal.put(cdr(id, session, &format!(r#"{{"Duration":{duration}}}"#)));
    }
    let running = start(&journal, &sink, &long_calls());
    running.all_settled().await;
    assert_eq!(sink.delivered(), [3, 1, 5]);
    assert_eq!(journal.letters().len(), 1);
    assert_eq!((running.status.delivered(), journal.checkpoint().low), (3, Offset(6)));
}

#[tokio::test(start_paused = true)]
async fn full_dead_letters_pause_a_sink_whose_when_fails_and_nothing_is_lost() {
    let (journal, sink) = (Arc::new(Memory::default()), Arc::new(Scripted::ok()));
    (0..5).for_each(|number| _ = journal.put(cdr(&number.to_string(), "s", "{}")));
    let mut settings = long_calls();
    settings.dead_letters_max = 2;
    let running = start(&journal, &sink, &settings);
    until(|| running.status.state() == State::Paused && journal.letters().len() == 2).await;
    assert_eq!(journal.checkpoint().low, Offset(2));
    let ids: Vec<_> = journal.letters().into_iter().map(|letter| letter.id).collect();
    crate::journal::Journal::purge_dead_letters(&*journal, &ids).await.unwrap();
    until(|| journal.letters().len() == 2 && journal.checkpoint().low == Offset(4)).await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_sees_the_masked_event_on_every_try_and_a_dead_letter_keeps_the_original() {
    let journal = Arc::new(Memory::default());
    let seen: Arc<Mutex<Vec<Arc<Event>>>> = Arc::default();
    let sink = Arc::new(Scripted::each({
        let seen = seen.clone();
        move |event| {
            seen.lock().unwrap().push(event.event.clone());
            if event.attempt < 3 { Outcome::retry(fault("http-500")) } else { Outcome::rejected(fault("http-400")) }
        }
    }));
    let body = r#"{"Caller":"008613800001234","SeatUser":{"Mail":"secret@example.com"}}"#;
    journal.put(cdr("a", "s", body));
    let mut settings = settings();
    // Selection comes first, and sees what is masked afterwards.
    settings.when = Some("data.agent.email.endsWith('@example.com')".into());
    settings.mask = BTreeMap::from([("caller".into(), MaskRule::Last4), ("agent.email".into(), MaskRule::Drop)]);
    let running = start(&journal, &sink, &settings);
    running.all_settled().await;
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 3);
    for event in seen.iter() {
        let shown = format!("{event:?}{}", String::from_utf8_lossy(&event.raw));
        assert!(
            shown.contains("***********1234") && !shown.contains("0086138") && !shown.contains("secret"),
            "{shown}"
        );
    }
    assert_eq!(&journal.letters()[0].push.body[..], body.as_bytes());
}

#[tokio::test(start_paused = true)]
async fn a_stable_batch_is_filled_with_what_when_is_true_for() {
    let needs = Needs { stable_batches: true, resumes_positions: false };
    let (journal, sink) = (Arc::new(Memory::default()), Arc::new(Scripted::ok().asking(needs)));
    for number in 0..20 {
        journal.put(cdr(
            &number.to_string(),
            "s",
            &format!(r#"{{"Duration":{}}}"#, if number % 2 == 0 { 61 } else { 1 }),
        ));
    }
    let running = start(&journal, &sink, &long_calls());
    running.all_settled().await;
    assert_eq!(sink.tries(), [vec![1, 3, 5, 7], vec![9, 11, 13, 15], vec![17, 19]]);
}

#[test]
fn settings_that_cannot_be_applied_make_no_pipeline() {
    let make = |settings: &model::Sink| {
        let (metrics, name) = (Metrics::new(), "events".into());
        Pipeline::new(
            name,
            settings,
            Arc::new(Scripted::ok()),
            Arc::new(Memory::default()),
            0,
            metrics.sink(&"events".into()),
            metrics.normalise_warnings.clone(),
            Arc::new(Status::new()),
        )
        .err()
        .map(|error| error.to_string())
    };
    let mut settings = settings();
    settings.when = Some("nothing".into());
    assert!(make(&settings).unwrap().starts_with("when names `nothing`"));
    settings.when = None;
    let hmac_key = sink_api::settings::Secret::Env("TRUNKLINE_NOT_SET_ANYWHERE".into());
    settings.mask = BTreeMap::from([("caller".into(), MaskRule::Hmac { hmac_key })]);
    assert!(make(&settings).unwrap().contains("TRUNKLINE_NOT_SET_ANYWHERE"));
}
