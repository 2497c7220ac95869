//! The sink `file` on real directories and on a real full disk.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sink_api::conformance::{self, Harness, Received, batch, event, event_of_size};
use sink_api::{Context, Event, Format, Outcome, Sink, SinkKind};
use sink_file::{File, Settings};

fn sink(path: &Path, format: Format, more: &str) -> Arc<dyn Sink> {
    let settings: Settings = serde_json::from_str(&format!("{{\"path\":{path:?}{more}}}")).unwrap();
    let context = Context { name: "events".into(), format };
    assert_eq!(File::check(&settings, &context), []);
    File::build(settings, context).unwrap()
}

async fn deliver(sink: &dyn Sink, id: &str) -> Outcome {
    sink.deliver(&batch(0, 1, vec![event(id, "s")])).await.remove(0)
}

fn id(line: &[u8]) -> String {
    let event: serde_json::Value = serde_json::from_slice(line).expect("a line is a whole event");
    event["id"].as_str().unwrap().to_owned()
}

/// The ids of the lines of a file, each of which must be ended.
fn ids(path: &Path) -> Vec<String> {
    let bytes = std::fs::read(path).unwrap();
    let lines = bytes.strip_suffix(b"\n").expect("the last line is ended");
    lines.split(|&byte| byte == b'\n').map(id).collect()
}

fn code(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Unavailable { fault, .. } => &fault.code,
        other => panic!("not unavailable: {other:?}"),
    }
}

struct Directory {
    root: tempfile::TempDir,
    format: Format,
}

impl Directory {
    fn path(&self) -> PathBuf {
        self.root.path().join("out/events.ndjson")
    }
}

#[async_trait]
impl Harness for Directory {
    async fn fresh(&self) -> Arc<dyn Sink> {
        sink(&self.path(), self.format, "")
    }

    async fn read_back(&self) -> Vec<Received> {
        let Ok(bytes) = std::fs::read(self.path()) else { return Vec::new() };
        let lines = bytes.strip_suffix(b"\n").expect("the last line is ended").split(|&byte| byte == b'\n');
        lines.map(|line| Received { id: id(line), payload: Bytes::copy_from_slice(line) }).collect()
    }

    /// A file where the directory was: missing rights would not stop root.
    async fn break_destination(&self) {
        let dir = self.root.path();
        std::fs::rename(dir.join("out"), dir.join("kept")).unwrap();
        std::fs::write(dir.join("out"), "").unwrap();
    }

    async fn mend_destination(&self) {
        let dir = self.root.path();
        std::fs::remove_file(dir.join("out")).unwrap();
        std::fs::rename(dir.join("kept"), dir.join("out")).unwrap();
    }

    fn payload(&self, event: &Event) -> Bytes {
        let text = String::from_utf8(event.payload(self.format).to_vec()).unwrap();
        Bytes::from(text.replace(['\n', '\r'], " "))
    }

    async fn fingerprint(&self) -> String {
        let listed = Command::new("find").arg(self.root.path()).args(["-printf", "%P %s %T@\n"]).output().unwrap();
        String::from_utf8(listed.stdout).unwrap()
    }

    async fn held(&self) -> Vec<String> {
        let fds = std::fs::read_dir("/proc/self/fd").unwrap();
        let open = fds.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
        open.filter(|path| path.starts_with(self.root.path())).map(|path| path.display().to_string()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_contract_of_sinks_in_every_format() {
    for format in [Format::CloudEvents, Format::Data, Format::Raw] {
        conformance::run(&Directory { root: tempfile::tempdir().unwrap(), format }).await;
    }
}

#[tokio::test]
async fn a_full_file_moves_aside_and_nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let sink = sink(&dir.path().join("events.ndjson"), Format::CloudEvents, r#","rotate_size_max":"1KiB""#);
    for n in 0..12 {
        assert_eq!(deliver(&*sink, &format!("p-{n:02}")).await, Outcome::delivered());
    }
    let mut files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 2, "{files:?}");
    let mut found: Vec<_> = files.iter().flat_map(|file| ids(file)).collect();
    found.sort();
    assert_eq!(found, (0..12).map(|n| format!("p-{n:02}")).collect::<Vec<_>>());
    assert!(files.iter().all(|file| file.metadata().unwrap().len() <= 1024));
}

#[tokio::test]
async fn a_file_that_is_old_moves_aside_after_a_restart_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.ndjson");
    for id in ["p-1", "p-2"] {
        let sink = sink(&path, Format::CloudEvents, r#","rotate_age_max":"20ms""#);
        assert_eq!(deliver(&*sink, id).await, Outcome::delivered());
        let begun = path.metadata().unwrap().created().expect("the file system of the test knows times of creation");
        while begun.elapsed().is_ok_and(|age| age.as_millis() < 40) {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(ids(&path), ["p-2"]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[tokio::test]
async fn a_file_or_directory_that_was_taken_away_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/events.ndjson");
    let sink = sink(&path, Format::CloudEvents, "");
    assert_eq!(deliver(&*sink, "p-1").await, Outcome::delivered());
    std::fs::rename(&path, path.with_extension("1")).unwrap();
    assert_eq!(deliver(&*sink, "p-2").await, Outcome::delivered());
    assert_eq!(ids(&path.with_extension("1")), ["p-1"]);
    assert_eq!(ids(&path), ["p-2"]);
    std::fs::remove_dir_all(dir.path().join("a")).unwrap();
    assert_eq!(deliver(&*sink, "p-3").await, Outcome::delivered());
    assert_eq!(ids(&path), ["p-3"]);
}

#[tokio::test]
async fn a_line_that_a_crash_left_unfinished_is_cut_and_a_whole_one_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.ndjson");
    for (tail, kept) in [("{\"id\":\"torn", vec!["p-0", "p-1"]), ("{\"id\":\"whole\"}", vec!["p-0", "whole", "p-1"])] {
        std::fs::write(&path, format!("{{\"id\":\"p-0\"}}\n{tail}")).unwrap();
        assert_eq!(deliver(&*sink(&path, Format::CloudEvents, ""), "p-1").await, Outcome::delivered());
        assert_eq!(ids(&path), kept);
    }
}

/// A file system of 1 MiB; unmounted on drop.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(dir.path()).status();
        let mounted = mounted.is_ok_and(|status| status.success());
        assert!(mounted, "cannot mount a tmpfs; run this test as root, or in `unshare -rm`");
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

#[tokio::test]
async fn a_full_disk_is_an_outage_that_leaves_whole_lines_and_ends_by_itself() {
    let disk = SmallDisk::mount();
    let path = disk.0.path().join("events.ndjson");
    let sink = sink(&path, Format::CloudEvents, "");
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 700 << 10]).unwrap();
    assert_eq!(deliver(&*sink, "p-1").await, Outcome::delivered());
    let large = batch(0, 2, vec![event("p-2", "s"), event_of_size("p-3", "s", 500 << 10)]);
    for _ in 0..2 {
        let outcomes = sink.deliver(&large).await;
        assert!(outcomes.iter().all(|outcome| code(outcome) == "disk-full"), "{outcomes:?}");
        assert_eq!(sink.probe().await.unwrap_err().code, "disk-full");
        assert_eq!(ids(&path), ["p-1"]);
    }
    std::fs::remove_file(ballast).unwrap();
    sink.probe().await.unwrap();
    assert_eq!(sink.deliver(&large).await, [Outcome::delivered(), Outcome::delivered()]);
    assert_eq!(ids(&path), ["p-1", "p-2", "p-3"]);
}

#[tokio::test]
async fn a_path_that_is_no_file_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let sink = sink(dir.path(), Format::CloudEvents, "");
    assert_eq!(code(&deliver(&*sink, "p-1").await), "not-a-file");
    assert_eq!(sink.probe().await.unwrap_err().code, "not-a-file");
}
