use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use sink_api::Fault;
use sink_api::conformance::{batch, event};

use super::*;

/// Answers by id, and remembers what was asked.
struct Scripted {
    answer: fn(&str) -> Outcome,
    posted: Mutex<Vec<String>>,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
}

impl Scripted {
    fn new(answer: fn(&str) -> Outcome) -> Self {
        Self { answer, posted: Mutex::default(), under_way: AtomicUsize::new(0), most_under_way: AtomicUsize::new(0) }
    }

    fn posted(&self) -> Vec<String> {
        self.posted.lock().unwrap().clone()
    }
}

impl Post for Scripted {
    async fn one(&self, event: &Event) -> Outcome {
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_under_way.fetch_max(now, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        self.posted.lock().unwrap().push(event.id.clone());
        (self.answer)(&event.id)
    }

    async fn all(&self, events: &[&Event]) -> Outcome {
        let ids: Vec<_> = events.iter().map(|event| event.id.as_str()).collect();
        self.posted.lock().unwrap().push(ids.join(" "));
        let outcomes: Vec<_> = ids.iter().map(|id| (self.answer)(id)).collect();
        let failed = outcomes.iter().find(|outcome| !matches!(outcome, Outcome::Delivered { .. }));
        failed.unwrap_or(&outcomes[0]).clone()
    }
}

/// `"a1 b1 a2"`: the letter is the key.
fn events(ids: &str) -> Vec<BatchEvent> {
    batch(0, 1, ids.split(' ').map(|id| event(id, &id[..1])).collect()).events
}

fn answer(id: &str) -> Outcome {
    match id.chars().last() {
        Some('!') => Outcome::rejected(Fault::new("http-400", "no")),
        Some('?') => Outcome::retry(Fault::new("http-500", "not now")),
        Some('#') => Outcome::unavailable(Fault::new("http-401", "away")),
        _ => Outcome::delivered(),
    }
}

fn shown(outcomes: &[Outcome]) -> String {
    let letter = |outcome: &Outcome| match outcome {
        Outcome::Delivered { .. } => 'D',
        Outcome::Rejected { .. } => 'X',
        Outcome::Retry { burns_attempt: true, .. } => 'R',
        Outcome::Retry { fault, .. } if fault.code == "waits" => 'w',
        Outcome::Retry { .. } => 'r',
        Outcome::Unavailable { .. } => 'U',
    };
    outcomes.iter().map(letter).collect()
}

async fn singly(ids: &str) -> (String, Vec<String>) {
    let post = Scripted::new(answer);
    let outcomes = one_by_one(&post, &events(ids)).await;
    (shown(&outcomes), post.posted())
}

async fn in_one(ids: &str) -> (String, Vec<String>) {
    let post = Scripted::new(answer);
    let outcomes = together(&post, &events(ids)).await;
    (shown(&outcomes), post.posted())
}

#[tokio::test]
async fn a_failure_ends_its_lane_and_no_other() {
    let (outcomes, posted) = singly("a1 b1! a2? b2 a3 c1 c2").await;
    assert_eq!(outcomes, "DXRwwDD");
    assert!(!posted.contains(&"b2".to_owned()) && !posted.contains(&"a3".to_owned()), "{posted:?}");
}

#[tokio::test]
async fn after_an_outage_nothing_more_is_tried() {
    let many: Vec<_> = (0..500).map(|n| format!("{}{n}#", char::from(b'a' + n as u8 % 26))).collect();
    let (outcomes, posted) = singly(&many.join(" ")).await;
    assert!(outcomes.chars().all(|letter| letter == 'U'), "{outcomes}");
    assert!(posted.len() <= LANES_MAX, "{}", posted.len());
}

#[tokio::test]
async fn lanes_go_side_by_side_and_not_more_than_are_allowed() {
    let many: Vec<_> = (0..200u32).map(|n| format!("{}{n}", char::from_u32(0x4e00 + n).unwrap())).collect();
    let listed = many.iter().map(|id| event(id, &id.chars().next().unwrap().to_string())).collect();
    let post = Scripted::new(answer);
    let outcomes = one_by_one(&post, &batch(0, 1, listed).events).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::delivered()));
    assert_eq!(post.most_under_way.load(Ordering::SeqCst), LANES_MAX);
}

#[tokio::test]
async fn a_batch_is_one_request() {
    assert_eq!(in_one("a1 b1 a2").await, ("DDD".to_owned(), vec!["a1 b1 a2".to_owned()]));
    assert_eq!(in_one("a1 b1?").await.0, "RR");
    assert_eq!(in_one("a1 b1#").await.0, "UU");
}

#[tokio::test]
async fn a_refused_batch_is_halved_until_the_refused_event_is_alone() {
    let (outcomes, posted) = in_one("a1 b1! a2 b2 c1 c2").await;
    assert_eq!(outcomes, "DXDwDD");
    assert_eq!(posted, ["a1 b1! a2 b2 c1 c2", "a1 b1! a2", "a1", "b1! a2", "b1!", "a2", "c1 c2"]);
}

#[tokio::test]
async fn what_is_left_of_a_halved_batch_waits_for_the_next_try() {
    let (outcomes, posted) = in_one("a1! b1 c1? d1").await;
    assert_eq!(posted, ["a1! b1 c1? d1", "a1! b1", "a1!", "b1", "c1? d1"]);
    assert_eq!(outcomes, "XDRR");
    let refused_first = in_one("a1! b1# c1 d1").await;
    assert_eq!(refused_first.0, "XUUU");
}
