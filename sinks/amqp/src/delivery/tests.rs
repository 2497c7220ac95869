use sink_api::conformance::{batch, event};

use super::*;

/// Answers by a script; remembers what was published, wave by wave.
struct Script<F> {
    answer: F,
    waves: Vec<Vec<String>>,
    ends_after: usize,
}

impl<F: Fn(&str) -> Outcome> Publish for Script<F> {
    async fn publish(&mut self, events: &[&Event]) -> Vec<Outcome> {
        self.waves.push(events.iter().map(|event| event.id.clone()).collect());
        events.iter().map(|event| (self.answer)(&event.id)).collect()
    }

    fn is_over(&self) -> bool {
        self.waves.len() >= self.ends_after
    }
}

fn fault() -> Fault {
    Fault::new("x", "it is so")
}

/// Events named `a1`, `b1`, …, whose key is the letter. What was published, and the outcomes in a letter each.
async fn run(ids: &str, window: usize, ends_after: usize, answer: fn(&str) -> Outcome) -> (String, String) {
    let events = ids.split(' ').map(|id| event(id, &id[..1])).collect();
    let mut script = Script { answer, waves: Vec::new(), ends_after };
    let outcomes = in_waves(&mut script, &batch(0, 1, events).events, window).await;
    let letters = outcomes.iter().map(|outcome| match outcome {
        Outcome::Delivered { .. } => 'D',
        Outcome::Retry { burns_attempt: true, .. } => 'R',
        Outcome::Retry { .. } => 'w',
        Outcome::Rejected { .. } => 'X',
        Outcome::Unavailable { .. } => 'U',
    });
    let published: Vec<String> = script.waves.iter().map(|wave| wave.join(" ")).collect();
    (published.join("|"), letters.collect())
}

#[tokio::test]
async fn the_events_of_a_key_go_out_one_after_the_other() {
    let (published, outcomes) = run("a1 b1 a2 c1 a3 b2", 100, 100, |_| Outcome::delivered()).await;
    assert_eq!((published.as_str(), outcomes.as_str()), ("a1 b1 c1|a2 b2|a3", "DDDDDD"));
}

#[tokio::test]
async fn no_more_than_the_window_are_under_way() {
    let (published, _) = run("a1 b1 c1 d1 e1 a2", 2, 100, |_| Outcome::delivered()).await;
    assert_eq!(published, "a1 b1|c1 d1|e1|a2");
}

#[tokio::test]
async fn nothing_overtakes_what_failed_in_its_key() {
    let answer = |id: &str| match id {
        "a1" => Outcome::retry(fault()),
        "b2" => Outcome::rejected(fault()),
        _ => Outcome::delivered(),
    };
    let (published, outcomes) = run("a1 b1 a2 b2 b3 c1", 100, 100, answer).await;
    assert_eq!((published.as_str(), outcomes.as_str()), ("a1 b1 c1|b2", "RDwXwD"));
}

#[tokio::test]
async fn an_outage_ends_the_batch() {
    let answer = |id: &str| if id == "b1" { Outcome::unavailable(fault()) } else { Outcome::delivered() };
    let (published, outcomes) = run("a1 b1 a2 c1", 100, 100, answer).await;
    assert_eq!((published.as_str(), outcomes.as_str()), ("a1 b1 c1", "DUUD"));
}

#[tokio::test]
async fn what_a_spent_publisher_leaves_over_waits() {
    let (published, outcomes) = run("a1 b1 a2 b2", 100, 1, |_| Outcome::delivered()).await;
    assert_eq!((published.as_str(), outcomes.as_str()), ("a1 b1", "DDww"));
}
