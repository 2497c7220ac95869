//! What a look from outside says of a sound journal, and of one that was tampered with.

use jiff::Timestamp;
use test_servers::redis::{Program, Redis};

use super::super::inspect::{InspectError, Inspector, VerifyReport};
use super::super::{Durability, Mode, OpenError, Options, RedisJournal};
use super::support::{open, options, place};
use crate::journal::conformance::{letter, push};
use crate::journal::{Checkpoint, DeadLetter, DeadLetterId, Journal, Push, Start};
use crate::metrics::Metrics;
use crate::names::{INGRESS, Offset};

const SHARDS: u16 = 3;

fn options_of(redis: &Redis) -> Options {
    options(place(Mode::Standalone, vec![redis.url()]), Durability::Fsync)
}

/// Received just now, so that it lies in the dedup window.
fn fresh(id: u16) -> Push {
    let received_at = Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap();
    Push { received_at, ..push(&format!("p-{id}"), &format!("s-{id}"), 0) }
}

/// Three hundred pushes, two of which are dead letters of the sink; one that was refused.
async fn filled(redis: &Redis) -> Vec<DeadLetter> {
    let opened = open(options_of(redis)).await;
    let journal = &opened.journal;
    journal.register_sink(&"a".into(), Start::Oldest).await.unwrap();
    for id in 0..300 {
        journal.accept(fresh(id)).await.unwrap();
    }
    let mut letters = Vec::new();
    for shard in [0, 2] {
        let lease = journal.lease(&"a".into(), shard).await.unwrap().expect("it is free");
        let kept = letter(&"a".into(), shard, Offset(2), &fresh(shard));
        let checkpoint = Checkpoint { low: Offset::ZERO, settled_above: vec![Offset(2)], ..Checkpoint::default() };
        journal.dead_letter(&lease.fence, vec![kept.clone()], 10, &checkpoint).await.unwrap();
        letters.push(kept);
    }
    let refused = DeadLetter { id: DeadLetterId { sink: INGRESS.into(), number: 0 }, ..letters[0].clone() };
    journal.keep_refused(refused, 10).await.unwrap();
    journal.close().await;
    letters
}

async fn verified(redis: &Redis) -> VerifyReport {
    Inspector::connect(&options_of(redis)).await.unwrap().verify().await.unwrap()
}

#[tokio::test]
async fn a_sound_journal_is_read_whole_and_verifies() {
    let redis = Redis::start_durable(Program::Redis);
    let letters = filled(&redis).await;
    let inspector = Inspector::connect(&options_of(&redis)).await.unwrap();
    let mut ids = Vec::new();
    inspector.entries(|_, entry| ids.push(entry.push.id.as_str().to_owned())).await.unwrap();
    ids.sort();
    let mut all: Vec<_> = (0..300).map(|id| format!("p-{id}")).collect();
    all.sort();
    assert_eq!(ids, all);
    assert_eq!(inspector.dead_letters(&"a".into()).await.unwrap(), letters);
    let checkpoints = inspector.checkpoints(&"a".into()).await.unwrap();
    let settled: Vec<_> = checkpoints.iter().map(|checkpoint| checkpoint.settles(Offset(2))).collect();
    assert_eq!(settled, [true, false, true]);
    let report = inspector.verify().await.unwrap();
    assert_eq!((report.shards, report.entries, report.dead_letters), (SHARDS, 300, 3));
    assert_eq!(report.problems, []);
    assert!(report.bytes > 300 * 100, "{}", report.bytes);
}

#[tokio::test]
async fn what_was_tampered_with_is_named() {
    let redis = Redis::start_durable(Program::Redis);
    filled(&redis).await;
    assert_eq!(verified(&redis).await.problems, []);
    // The damage, and what is said of it: key, offset, kind.
    type Said = (&'static str, Option<u64>, &'static str);
    let damages: [(&[&str], Said); 6] = [
        (
            &["XADD", "t:{p0}:log", "4294967290-0", "m", "nonsense", "d", "x", "b", "0"],
            ("t:{p0}:log", Some(4_294_967_290), "entry"),
        ),
        (
            &["HSET", "t:{p1}:state", "c:a", "{\"low\":7,\"settled_above\":[],\"attempts\":[],\"batch_end\":null}"],
            ("t:{p1}:state", None, "checkpoint"),
        ),
        (&["HSET", "t:{p2}:dl:a", "b2", "another body"], ("t:{p2}:dl:a", Some(2), "dead-letter")),
        (&["HDEL", "t:{p0}:dl:a", "h2"], ("t:{p0}:dl:a", Some(2), "dead-letter")),
        (&["HSET", "t:{p0}:dl:ingress", "h1", "nonsense"], ("t:{p0}:dl:ingress", Some(1), "dead-letter")),
        (&["HDEL", "t:{p1}:meta", "seq"], ("t:{p1}:meta", None, "meta")),
    ];
    let mut expected = Vec::new();
    for (command, (key, offset, kind)) in damages {
        redis.command(command);
        expected.push((key.to_owned(), offset, kind));
        expected.sort();
        let problems = verified(&redis).await.problems;
        let mut found: Vec<_> = problems.iter().map(|it| (it.key.clone(), it.offset, it.kind)).collect();
        found.sort();
        assert_eq!(found, expected, "after {command:?}: {problems:?}");
    }
    let marks = redis.command(&["KEYS", "t:{p2}:dd:*"]);
    for bucket in marks.lines() {
        redis.command(&["DEL", bucket]);
    }
    let problems = verified(&redis).await.problems;
    let unmarked = problems.iter().filter(|it| it.kind == "mark").count();
    let in_shard: usize = redis.command(&["XLEN", "t:{p2}:log"]).parse().unwrap();
    assert_eq!(unmarked, in_shard, "a resend of each would be accepted again");
}

#[tokio::test]
async fn no_journal_and_one_of_a_later_version_are_refused() {
    let redis = Redis::start_durable(Program::Redis);
    let refused = async || Inspector::connect(&options_of(&redis)).await.err().expect("it is refused");
    assert!(matches!(refused().await, InspectError::NotAJournal { prefix } if prefix == "t"));
    filled(&redis).await;
    redis.command(&["HSET", "t:{p0}:meta", "format", "2"]);
    assert!(matches!(refused().await, InspectError::NewerVersion { found: 2 }));
    let opened = RedisJournal::open(options_of(&redis), Metrics::new().journal).await;
    assert!(matches!(opened.err(), Some(OpenError::NewerVersion { found: 2 })));
}
