//! What the archive says of itself.

use serde_json::json;
use sink_api::Archived;
use test_servers::recorder::{Recorder, Reply};

use crate::support::{archived, home, named, noise, record};

#[tokio::test]
async fn the_archive_knows_its_objects_and_their_events() {
    let recorder = Recorder::start(|request| Reply::file(request, noise("a", 1000), "1"));
    let home = home("");
    let event = record(&recorder, "/a.mp3");
    let archive = home.sink.archive().unwrap();
    let place = archive.place(&event).unwrap();
    assert_eq!(place, "main/1400/date=1970-01-01/s-1/r-1");
    assert_eq!(archive.place(&named("cdr", "r", "s", json!({}))), None);
    archived(&home.sink, event).await;
    let root = home.dir.path().join("archive");
    std::fs::write(root.join("stray.bin"), "x").unwrap();
    std::fs::write(root.join("events.ndjson.zst"), "an event archive in the same place").unwrap();

    let mut found = Vec::new();
    archive.list(&mut |archived| found.push(archived)).await.unwrap();
    found.sort_by(|a, b| a.key.cmp(&b.key));
    let key = format!("{place}.mp3");
    let stray = Archived { place: "stray".into(), key: "stray.bin".into(), length_bytes: 1 };
    assert_eq!(found, [Archived { place, key: key.clone(), length_bytes: 1000 }, stray]);
    assert_eq!(archive.event_of(&key).await, Ok(Some("p-r-1".to_owned())));
    assert_eq!(archive.event_of("stray.bin").await, Ok(None));
    assert_eq!(archive.event_of("nothing").await, Ok(None));
}
