//! The archive on a disk: what is in which object, byte for byte.

use std::path::Path;

use sink_api::conformance::{batch, event, event_of_size};
use sink_api::{Batch, Event, Format};

use super::*;

fn sink(root: &Path, more: &str, format: Format) -> Arc<dyn Sink> {
    let toml = format!("provider = 'disk'\nroot = '{}'\n{more}", root.display());
    let settings: Settings = toml::from_str(&toml).unwrap();
    let context = Context { name: "archive".to_owned(), format };
    assert_eq!(Object::check(&settings, &context), [], "{toml}");
    Object::build(settings, context).unwrap()
}

fn files(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                files.push((name, std::fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

fn some_events(count: usize) -> Vec<Event> {
    (0..count).map(|n| event(&format!("p-{n}"), &format!("s-{}", n % 7))).collect()
}

async fn deliver_all(sink: &dyn Sink, batch: &Batch) {
    for outcome in sink.deliver(batch).await {
        assert_eq!(outcome, Outcome::delivered());
    }
}

#[tokio::test]
async fn a_batch_that_is_repeated_leaves_the_same_objects_with_the_same_bytes() {
    for more in ["", "compression = 'gzip'", "compression = 'none'", "file_format = 'parquet'"] {
        let dir = tempfile::tempdir().unwrap();
        let mut events = some_events(1_000);
        events[17].action = "record".to_owned();
        let batch = batch(1, 5, events);
        deliver_all(&*sink(dir.path(), more, Format::CloudEvents), &batch).await;
        let first = files(dir.path());
        assert_eq!(first.len(), 2, "{more}");
        deliver_all(&*sink(dir.path(), more, Format::CloudEvents), &batch).await;
        assert!(first == files(dir.path()), "{more}: not the same");
    }
}

#[tokio::test]
async fn journals_that_count_the_same_offsets_overwrite_nothing_of_one_another() {
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str| batch(0, 1, (0..3).map(|n| event(&format!("{name}-{n}"), "s")).collect());
    let (mine, theirs) = (of("mine"), of("theirs"));
    // Each is repeated, by a gateway that knows nothing of the first time.
    for batch in [&mine, &theirs, &mine, &theirs] {
        deliver_all(&*sink(dir.path(), "compression = 'none'", Format::CloudEvents), batch).await;
    }
    let files = files(dir.path());
    let names: Vec<_> = files.iter().map(|(name, _)| name.rsplit('/').next().unwrap()).collect();
    let plain = "0-00000000000000000001-00000000000000000003";
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].starts_with(&format!("{plain}-")) && names[1] == format!("{plain}.ndjson"), "{names:?}");
    for ((_, content), name) in files.iter().zip(["theirs", "mine"]) {
        let text = String::from_utf8_lossy(content);
        let ids = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].clone());
        assert!(ids.eq((0..3).map(|n| format!("{name}-{n}"))), "{text}");
    }
}

#[tokio::test]
async fn lines_are_events_in_order_and_raw_bodies_stay_on_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let batch = batch(0, 1, some_events(3));
    deliver_all(&*sink(dir.path(), "compression = 'none'", Format::Raw), &batch).await;
    let (name, content) = files(dir.path()).remove(0);
    assert!(name.ends_with("/0-00000000000000000001-00000000000000000003.ndjson"), "{name}");
    let text = String::from_utf8(content).unwrap();
    let ids: Vec<_> =
        text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].clone()).collect();
    assert_eq!(ids, ["p-0", "p-1", "p-2"]);
}

#[tokio::test]
async fn compressed_lines_unpack_to_the_plain_ones() {
    let mut plain = Vec::new();
    for more in ["none", "gzip", "zstd"] {
        let dir = tempfile::tempdir().unwrap();
        let batch = batch(0, 1, vec![event_of_size("a", "s", 3 << 20), event("b", "s")]);
        deliver_all(&*sink(dir.path(), &format!("compression = '{more}'"), Format::CloudEvents), &batch).await;
        let (_, content) = files(dir.path()).remove(0);
        let mut unpacked = Vec::new();
        match more {
            "gzip" => drop(std::io::copy(&mut flate2::read::MultiGzDecoder::new(&*content), &mut unpacked).unwrap()),
            "zstd" => zstd::stream::copy_decode(&*content, &mut unpacked).unwrap(),
            _ => plain.clone_from(&content),
        }
        assert!(more == "none" || unpacked == plain, "{more}");
    }
}
