//! Order per session and one fate per event, under random answers, concurrency, crashes and restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use sink_api::settings::{Period, Size};
use sink_api::{Needs, Outcome};

use super::journal::Memory;
use super::sink::{Reaction, Scripted, fault};
use super::*;
use crate::config::model::Window;

#[derive(Debug, Clone)]
struct Case {
    /// The session of each entry, where it has one.
    sessions: Vec<Option<u8>>,
    /// What the sink does, drawn from in turn.
    script: Vec<u8>,
    batch: usize,
    concurrency: usize,
    window: usize,
    attempts_max: u32,
    takes_ms: u64,
    needs: Needs,
    /// When it crashes, in milliseconds after each start.
    crashes_ms: Vec<u64>,
}

fn cases(crashes: usize) -> impl Strategy<Value = Case> {
    let shape = (1usize..8, 1usize..5, 4usize..40, 1u32..4, 0u64..30, 0u8..4);
    let lists = (vec(proptest::option::of(0u8..5), 1..80), vec(0u8..20, 1..60), vec(1u64..1500, 0..=crashes));
    (shape, lists).prop_map(|((batch, concurrency, window, attempts_max, takes_ms, kind), lists)| Case {
        sessions: lists.0,
        script: lists.1,
        crashes_ms: lists.2,
        batch,
        concurrency,
        window,
        attempts_max,
        takes_ms,
        needs: Needs { stable_batches: kind == 1, resumes_positions: false },
    })
}

fn scripted(case: &Case) -> Scripted {
    let mut script = case.script.clone().into_iter().cycle();
    let mut bad_batches = 0;
    let mut next = move || script.next().unwrap();
    let answers = Scripted::new(move |batch| {
        let mut failed = BTreeSet::new();
        // Not more often than this, so that every case ends.
        if bad_batches < 20 && next() == 0 {
            bad_batches += 1;
            return Reaction::Panic;
        }
        let mut outcome = |_| match next() {
            1 | 2 => Outcome::rejected(fault("http-400")),
            3..=6 => Outcome::retry(fault("http-500")),
            7 if bad_batches < 20 => {
                bad_batches += 1;
                Outcome::unavailable(fault("away"))
            }
            _ => Outcome::delivered(),
        };
        let answer = batch.events.iter().map(|event| {
            let key = event.event.partitionkey.clone();
            if failed.contains(&key) {
                return Outcome::Retry { fault: fault("behind"), after: None, burns_attempt: false };
            }
            let outcome = outcome(event);
            if !matches!(outcome, Outcome::Delivered { .. }) {
                failed.insert(key);
            }
            outcome
        });
        Reaction::Answer(answer.collect())
    });
    answers.taking(Duration::from_millis(case.takes_ms)).asking(case.needs)
}

fn settings_of(case: &Case) -> model::Sink {
    let mut settings = settings();
    settings.batch.events_max = case.batch;
    settings.batch.linger = Period::from_millis(3);
    settings.concurrency = case.concurrency;
    settings.retry.attempts_max = case.attempts_max;
    settings.retry.delay_max = Period::from_secs(2);
    settings.window = Window { events_max: case.window, bytes_max: Size(1 << 20) };
    settings
}

/// Runs the case to its end; gives the journal and the sink.
fn play(case: &Case) -> (Arc<Memory>, Arc<Scripted>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (journal, sink) = (Arc::new(Memory::default()), Arc::new(scripted(case)));
        let settings = settings_of(case);
        for (number, session) in case.sessions.iter().enumerate() {
            journal.put(push(&format!("p{number}"), session.map(|s| format!("s{s}")).as_deref()));
        }
        for crash_ms in &case.crashes_ms {
            let running = start(&journal, &sink, &settings);
            tokio::time::sleep(Duration::from_millis(*crash_ms)).await;
            let low = journal.checkpoint().low;
            assert_fates(&journal, &sink, low.0);
            running.killed().await;
        }
        let running = start(&journal, &sink, &settings);
        running.all_settled().await;
        running.drained().await;
        assert_fates(&journal, &sink, journal.last().0);
        (journal, sink)
    })
}

/// Everything up to `low`, and all settled above, is delivered or a dead letter.
fn assert_fates(journal: &Memory, sink: &Scripted, low: u64) {
    let delivered: BTreeSet<u64> = sink.delivered().into_iter().collect();
    let letters: BTreeSet<u64> = journal.letters().iter().map(|letter| letter.id.number).collect();
    let above = journal.checkpoint().settled_above;
    for offset in (1..=low).chain(above.iter().map(|offset| offset.0)) {
        assert!(delivered.contains(&offset) || letters.contains(&offset), "{offset} is settled without a fate");
    }
}

fn first_deliveries(sink: &Scripted) -> BTreeMap<String, Vec<u64>> {
    let mut seen = BTreeSet::new();
    let mut by_session: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (offset, session) in sink.delivered.lock().unwrap().iter() {
        if seen.insert(*offset) {
            by_session.entry(session.clone()).or_default().push(*offset);
        }
    }
    by_session
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn without_a_crash_every_event_meets_exactly_one_fate_in_the_order_of_its_session(case in cases(0)) {
        let (journal, sink) = play(&case);
        for (session, offsets) in first_deliveries(&sink) {
            prop_assert!(offsets.is_sorted(), "{session}: {offsets:?}");
        }
        if !case.needs.stable_batches {
            let letters = journal.letters().into_iter().map(|letter| letter.id.number);
            let mut fates: Vec<u64> = sink.delivered().into_iter().chain(letters).collect();
            fates.sort_unstable();
            prop_assert_eq!(fates, (1..=case.sessions.len() as u64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn over_crashes_nothing_is_lost_and_first_deliveries_keep_their_order(case in cases(4)) {
        let (_, sink) = play(&case);
        for (session, offsets) in first_deliveries(&sink) {
            prop_assert!(offsets.is_sorted(), "{session}: {offsets:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_waits_for_its_failed_event_while_others_pass() {
    let journal = Arc::new(Memory::default());
    let sink = Arc::new(Scripted::each(|event| match (event.offset, event.attempt) {
        (1, 1..=3) => Outcome::retry(fault("http-500")),
        _ => Outcome::delivered(),
    }));
    for (id, session) in [("a", "s"), ("b", "t"), ("c", "s"), ("d", "t"), ("e", "s")] {
        journal.put(push(id, Some(session)));
    }
    let running = start(&journal, &sink, &settings());
    running.all_settled().await;
    assert_eq!(sink.delivered(), [2, 4, 1, 3, 5]);
}
