//! A real process, killed at every named crash point, and opened again: nothing acknowledged is lost, nothing is there twice.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::crash;
use crate::journal::conformance::{WINDOW, letter, push, read_all};
use crate::metrics::Metrics;

/// Where the process that is to die works.
const DIR: &str = "TRUNKLINE_TEST_CRASH_DIR";
const SIGABRT: i32 = 6;

fn open(dir: &Path) -> Arc<DiskJournal> {
    let dir = dir.to_path_buf();
    let options = Options { dir, segment_size: 4096, size_max: 16 * 4096, reserve: 0, dedup_window: WINDOW };
    DiskJournal::open(options, Metrics::new().journal).unwrap()
}

fn sink() -> SinkName {
    "s".into()
}

/// Not a test by itself: what the process does that is to die. It tells what was promised to it, line by line.
#[tokio::test]
async fn workload() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{line}").and_then(|()| out.flush()).unwrap();
    };
    let journal = open(Path::new(&dir));
    journal.register_sink(&sink(), Start::Oldest).await.unwrap();
    let lease = journal.lease(&sink(), 0).await.unwrap().unwrap();
    let run = std::process::id();
    for n in 0..30 {
        let pushed = Push { body: vec![b'x'; 600].into(), ..push(&format!("{run}-{n}"), "s", n) };
        let Accepted::New { offset } = journal.accept(pushed.clone()).await.unwrap() else { panic!("not new") };
        say(format!("ACCEPTED {} {offset}", pushed.id));
        if n % 5 == 4 {
            let settled = Checkpoint { low: offset, ..Checkpoint::default() };
            let letters = vec![letter(&sink(), 0, offset, &pushed)];
            journal.dead_letter(&lease.fence, letters, 1000, &settled).await.unwrap();
            say(format!("SETTLED {offset}"));
        }
    }
    journal.close().await;
}

/// Runs the workload in a process of its own; says whether it was killed by the crash point.
fn run_until(dir: &Path, crash_at: &str, told: &mut String) -> bool {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "journal::disk::crash_tests::workload", "--nocapture"])
        .env(DIR, dir)
        .env("TRUNKLINE_CRASH_AT", crash_at)
        .output()
        .unwrap();
    told.push_str(&String::from_utf8_lossy(&output.stdout));
    let was_killed = output.status.signal() == Some(SIGABRT);
    assert!(was_killed || output.status.success(), "{crash_at}: {}", String::from_utf8_lossy(&output.stderr));
    was_killed
}

async fn check(dir: &Path, crash_at: &str, told: &str) {
    let mut accepted = BTreeMap::new();
    let mut dead = BTreeSet::new();
    for line in told.lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("ACCEPTED"), Some(id), Some(offset)) => {
                let offset = Offset(offset.parse().unwrap());
                assert_eq!(accepted.insert(offset, id.to_owned()), None, "{crash_at}: {offset} was given twice");
            }
            (Some("SETTLED"), Some(offset), None) => drop(dead.insert(offset.parse::<u64>().unwrap())),
            _ => {}
        }
    }
    let journal = open(dir);
    let mut held = BTreeMap::new();
    for item in read_all(&*journal, 0, Offset::ZERO).await {
        let entry = item.entry();
        let before = held.insert(entry.push.id.as_str().to_owned(), entry.offset);
        assert_eq!(before, None, "{crash_at}: {} is there twice", entry.push.id);
    }
    let low = match journal.lease(&sink(), 0).await {
        Ok(lease) => lease.unwrap().checkpoint.low,
        Err(_) => Offset(u64::MAX - 1),
    };
    assert!(dead.last().is_none_or(|last| Offset(*last) <= low), "{crash_at}: the checkpoint went back");
    for (offset, id) in accepted.range(low.next()..) {
        assert_eq!(held.get(id), Some(offset), "{crash_at}: {id} is lost");
    }
    for number in dead {
        let id = DeadLetterId { sink: sink(), number };
        assert!(journal.dead_letter_of(&id).await.unwrap().is_some(), "{crash_at}: dead letter {number} is lost");
    }
    journal.close().await;
}

#[tokio::test]
async fn a_kill_at_any_crash_point_loses_nothing_acknowledged() {
    // The others are passed by a wrapper of this journal.
    for name in crash::ALL.iter().filter(|name| name.starts_with("journal.")) {
        for nth in [1, 2] {
            let crash_at = format!("{name}:{nth}");
            let dir = tempfile::tempdir().unwrap();
            let mut told = String::new();
            // So that there is something to recover.
            assert!(run_until(dir.path(), "journal.after_write:9", &mut told));
            let was_killed = run_until(dir.path(), &crash_at, &mut told);
            assert!(was_killed || nth > 1, "{crash_at} was never passed");
            check(dir.path(), &crash_at, &told).await;
        }
    }
}
