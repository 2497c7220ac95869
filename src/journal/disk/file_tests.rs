//! The suite on real files, and what only real files show: locks, foreign files, a file system that is full.

use std::path::Path;
use std::process::Command;

use super::inspect;
use super::*;
use crate::journal::conformance::{self, Factory, WINDOW, push, read_all};
use crate::metrics::Metrics;

const SEGMENT: u64 = 4096;

fn open(dir: &Path) -> Result<Arc<DiskJournal>, OpenError> {
    let dir = dir.to_path_buf();
    let options = Options { dir, segment_size: SEGMENT, size_max: 64 * SEGMENT, reserve: 0, dedup_window: WINDOW };
    DiskJournal::open(options, Metrics::new().journal)
}

struct OnDisk(Option<tempfile::TempDir>);

impl Factory for OnDisk {
    async fn fresh(&mut self) -> Arc<dyn Journal> {
        self.0 = Some(tempfile::tempdir().unwrap());
        self.reopen().await
    }

    async fn reopen(&mut self) -> Arc<dyn Journal> {
        open(self.0.as_ref().unwrap().path()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_journal_conforms() {
    conformance::run(&mut OnDisk(None)).await;
}

async fn filled(dir: &Path, pushes: i64) {
    let journal = open(dir).unwrap();
    for n in 0..pushes {
        let push = Push { body: vec![b'x'; 500].into(), ..push(&n.to_string(), "s", n) };
        journal.accept(push).await.unwrap();
    }
    journal.close().await;
}

fn segments(dir: &Path) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> =
        files.filter(|path| layout::segment_first(path.file_name().unwrap().to_str().unwrap()).is_some()).collect();
    segments.sort();
    segments
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).unwrap();
    let error = open(dir.path()).err().expect("it is held");
    assert!(matches!(error, OpenError::Held { .. }), "{error}");
    journal.close().await;
    open(dir.path()).expect("it was let go of");
}

#[tokio::test]
async fn a_missing_a_foreign_and_a_senseless_segment_cost_themselves_only() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    filled(dir.path(), 20).await;
    filled(other.path(), 20).await;
    let (ours, theirs) = (segments(dir.path()), segments(other.path()));
    assert!(ours.len() >= 4);
    std::fs::remove_file(&ours[1]).unwrap();
    std::fs::copy(&theirs[2], dir.path().join(layout::segment_name(1000))).unwrap();
    std::fs::write(dir.path().join(layout::segment_name(2000)), vec![b'?'; 3000]).unwrap();
    let before = read_len(&ours[2..]) + 1;
    let journal = open(dir.path()).unwrap();
    let items = read_all(&*journal, 0, Offset::ZERO).await;
    assert!(items.len() > before, "the rest is served");
    let Ok(Accepted::New { offset }) = journal.accept(push("new", "s", 0)).await else { panic!("not new") };
    assert!(offset > Offset(1000), "no offset that may have been given is given again");
    let kept = std::fs::read_dir(dir.path().join("quarantine")).unwrap().count();
    assert_eq!(kept, 2);
    journal.close().await;
}

fn read_len(segments: &[std::path::PathBuf]) -> usize {
    segments.len()
}

#[tokio::test]
async fn a_directory_of_something_else_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.tex"), "x").unwrap();
    let error = open(dir.path()).err().expect("it is not ours");
    assert!(matches!(&error, OpenError::Foreign { path } if path.ends_with("thesis.tex")), "{error}");
    std::fs::remove_file(dir.path().join("thesis.tex")).unwrap();
    std::fs::write(dir.path().join("log.json"), "{}").unwrap();
    assert!(matches!(open(dir.path()).err(), Some(OpenError::Foreign { .. })));
}

#[tokio::test]
async fn verify_and_dump_see_all_beside_a_running_journal_and_on_a_stopped_one() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).unwrap();
    for n in 0..12 {
        journal.accept(Push { body: vec![b'x'; 500].into(), ..push(&n.to_string(), "s", n) }).await.unwrap();
    }
    for _ in 0..2 {
        let report = inspect::verify(dir.path()).unwrap();
        assert_eq!((report.entries, &report.problems[..]), (12, &[][..]));
        let mut lines = Vec::new();
        inspect::dump(dir.path(), |line| lines.push(line)).unwrap();
        let ids: Vec<_> = lines.iter().map(|line| line.push_id.as_str().to_owned()).collect();
        assert_eq!(ids, (0..12).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!((lines[3].size_bytes, lines[3].offset), (500, 4));
        journal.close().await;
    }
    let segment = &segments(dir.path())[0];
    let mut bytes = std::fs::read(segment).unwrap();
    let last = bytes.iter().rposition(|byte| *byte == b'x').unwrap();
    bytes[last] = b'y';
    std::fs::write(segment, bytes).unwrap();
    let problems = inspect::verify(dir.path()).unwrap().problems;
    assert_eq!((problems.len(), problems[0].kind, problems[0].offset.is_some()), (1, "body", true));
    assert!(matches!(inspect::verify(&dir.path().join("none")), Err(inspect::InspectError::NotAJournal { .. })));
}

/// Set in the process that has a file system of its own.
const INSIDE: &str = "TRUNKLINE_TEST_IN_NAMESPACE";

/// Runs this very test again with mounts of its own.
fn run_in_namespace(name: &str) {
    let test = std::env::current_exe().unwrap();
    let output = Command::new("unshare").args(["-rm"]).arg(test).args(["--exact", name]).env(INSIDE, "1").output();
    let output = output.unwrap_or_else(|error| panic!("cannot run `unshare` ({error}); apt-get install util-linux"));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success() && said.contains("1 passed"),
        "with `unshare -rm`, which has to be allowed: {said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_file_system_loses_nothing_and_accepting_resumes() {
    if std::env::var_os(INSIDE).is_none() {
        let name = "journal::disk::file_tests::a_full_file_system_loses_nothing_and_accepting_resumes";
        return run_in_namespace(name);
    }
    let dir = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "none"]).arg(dir.path()).status();
    assert!(mounted.unwrap().success(), "cannot mount a tmpfs");
    let journal = open(dir.path()).unwrap();
    let ballast = dir.path().join("quarantine");
    std::fs::create_dir_all(&ballast).unwrap();
    let ballast = ballast.join("ballast");
    drop(std::fs::write(&ballast, vec![0; 100 << 10]));
    let mut accepted = Vec::new();
    let mut n = 0;
    let refused = loop {
        match journal.accept(Push { body: vec![b'x'; 500].into(), ..push(&n.to_string(), "s", n) }).await {
            Ok(_) => accepted.push(n),
            Err(error) => break error,
        }
        n += 1;
    };
    assert!(matches!(refused, AcceptError::Unavailable { .. }), "{refused:?}");
    assert!(matches!(journal.accept(push("0", "s", 0)).await, Ok(Accepted::Duplicate { .. })));
    std::fs::remove_file(&ballast).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while journal.health().trouble.is_some() {
        assert!(Instant::now() < deadline, "{:?}", journal.health());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    journal.accept(push("after", "s", 0)).await.unwrap();
    journal.close().await;
    drop(journal);
    let journal = open(dir.path()).unwrap();
    assert_eq!(read_all(&*journal, 0, Offset::ZERO).await.len(), accepted.len() + 1);
    journal.close().await;
}
