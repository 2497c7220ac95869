//! A lease that the journal asks back, or that another process holds.

use std::sync::Arc;
use std::time::Duration;

use sink_api::Outcome;
use sink_api::settings::Period;
use tokio::time::Instant;

use super::journal::Memory;
use super::sink::{Scripted, fault};
use super::*;
use crate::journal::Recall;
use crate::names::Offset;

fn filled(count: usize) -> Arc<Memory> {
    let journal = Arc::new(Memory::default());
    (0..count).for_each(|number| _ = journal.put(push(&number.to_string(), None)));
    journal
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_asked_back_is_given_when_what_is_in_hand_is_saved() {
    let journal = filled(40);
    let sink = Arc::new(Scripted::ok().taking(Duration::from_secs(5)));
    let running = start(&journal, &sink, &settings());
    until(|| sink.tries().len() == 4).await;
    journal.ask_back(Recall::HandOver);
    until(|| journal.releases() == 1).await;
    assert_eq!((sink.tries().len(), sink.delivered().len()), (4, 16), "nothing new began, nothing was dropped");
    assert_eq!(journal.checkpoint().low, Offset(16));
    assert_eq!(running.status.state(), State::Running);
    journal.come_free();
    running.all_settled().await;
    assert_eq!(sink.delivered(), (1..=40).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_batch_being_gathered_is_left_to_the_next_owner() {
    let journal = filled(1);
    let sink = Arc::new(Scripted::ok());
    let mut settings = settings();
    settings.batch.linger = Period::from_secs(3600);
    let running = start(&journal, &sink, &settings);
    tokio::time::sleep(Duration::from_secs(1)).await;
    journal.ask_back(Recall::HandOver);
    until(|| journal.releases() == 1).await;
    assert!(sink.tries().is_empty());
    running.drained().await;
}

#[tokio::test(start_paused = true)]
async fn entries_that_wait_to_be_tried_again_do_not_delay_a_hand_over() {
    let journal = filled(1);
    let sink = Arc::new(Scripted::each(|_| Outcome::retry(fault("http-500"))));
    let mut settings = settings();
    settings.retry.delay_min = Period::from_secs(3600);
    settings.retry.delay_max = Period::from_secs(3600);
    let _running = start(&journal, &sink, &settings);
    until(|| sink.tries().len() == 1).await;
    let asked_at = Instant::now();
    journal.ask_back(Recall::HandOver);
    until(|| journal.releases() == 1).await;
    assert!(asked_at.elapsed() < Duration::from_secs(1), "{:?}", asked_at.elapsed());
    assert_eq!(journal.checkpoint().attempts[0].count, 1, "the next owner knows of the attempt");
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_is_told_that_its_lease_is_lost_stops_at_once_and_settles_nothing() {
    let journal = filled(4);
    let sink = Arc::new(Scripted::ok().taking(Duration::from_secs(5)));
    let running = start(&journal, &sink, &settings());
    until(|| sink.tries().len() == 1).await;
    journal.ask_back(Recall::Lost);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((journal.checkpoint().low, journal.releases()), (Offset::ZERO, 0));
    assert!(sink.delivered().is_empty(), "the delivery was dropped");
    journal.come_free();
    running.all_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_comes_free_is_taken_within_a_second() {
    let journal = filled(1);
    journal.take_over(true);
    let sink = Arc::new(Scripted::ok());
    let running = start(&journal, &sink, &settings());
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(sink.tries().is_empty());
    assert_eq!(running.metrics.pending.get(), 1, "what waits is shown, whoever owns it");
    let free_at = Instant::now();
    journal.take_over(false);
    running.all_settled().await;
    assert!(free_at.elapsed() < Duration::from_millis(1_300), "{:?}", free_at.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_that_is_stopped_while_it_hands_over_ends() {
    let journal = filled(40);
    let sink = Arc::new(Scripted::ok().taking(Duration::from_secs(5)));
    let running = start(&journal, &sink, &settings());
    until(|| sink.tries().len() == 4).await;
    journal.ask_back(Recall::HandOver);
    running.drained().await;
    assert_eq!((journal.checkpoint().low, journal.releases()), (Offset(16), 1));
}
