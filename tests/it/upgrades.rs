//! A release reads the journal that the release before left: entries, dedup marks, places of sinks, dead letters.
//!
//! `fixtures/journal-format-1.tar.gz` is the folder of a gateway of format 1 that took 60 pushes (and refused one): its sink `events`
//! has all of them, `picky` has made 60 dead letters, `slow` was away throughout.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{GatewayBuilder, Receiver, Sender, by_id, cdr, eventually, file_sink, folder, trunkline};

const LEFT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fixtures/journal-format-1.tar.gz");
const PUSHES: usize = 60;

fn unpack(into: &Path) {
    std::fs::create_dir(into).unwrap();
    let status = Command::new("tar").arg("-xzf").arg(LEFT).arg("-C").arg(into).status().unwrap();
    assert!(status.success());
}

/// What `trunkline journal <command>` prints of the folder's journal.
fn journal(dir: &Path, command: &str) -> String {
    let overrides = ["--set".to_owned(), format!("journal.disk.dir={}", dir.join("journal").display())];
    let output = trunkline().args(["journal", command, "--json"]).args(overrides).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The report on the folder's journal, which must be sound.
fn verified(dir: &Path) -> Value {
    let report: Value = serde_json::from_str(&journal(dir, "verify")).unwrap();
    assert_eq!(report["problems"], serde_json::json!([]));
    report
}

#[tokio::test]
async fn a_journal_of_the_format_before_is_gone_on_with() {
    let dir = folder();
    unpack(&dir.path().join("journal"));
    let mut receiver = Receiver::start(|_| 200).await;
    let (events, picky) = (dir.path().join("events.ndjson"), dir.path().join("picky.ndjson"));
    let sinks = format!("{}{}{}", file_sink("events", &events), file_sink("picky", &picky), receiver.sink("slow"));
    // The pushes are as old as the fixture: their ids must not be forgotten meanwhile.
    let config = "dedup.window = \"500000h\"\ningress.body_size_max = \"32KiB\"\njournal.disk.segment_size = \"64KiB\"";
    let builder = || GatewayBuilder::new(dir.path()).config(config).sinks(&sinks);
    builder().write();
    let ids: Vec<String> = journal(dir.path(), "dump")
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["push_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), PUSHES);
    assert_eq!(verified(dir.path())["writers"], serde_json::json!({"a release of format 1": 2}));

    let gateway = builder().start().await;
    let sender = Sender::new(&gateway.url());
    // A known id, although with another body: answered, and not taken twice.
    assert_eq!(sender.once("cdr", &ids[PUSHES - 1], cdr("s-1", 1)).await.unwrap().1["ErrCode"], 0);
    assert_eq!(sender.once("cdr", "new", cdr("s-1", 2)).await.unwrap().1["ErrCode"], 0);
    let status = eventually("the sink that was away has all", async || {
        let status = gateway.status().await;
        (status["sinks"]["slow"]["delivered"] == PUSHES + 1).then_some(status)
    })
    .await;
    let received: Vec<_> = receiver.deliveries().iter().map(|it| it.event["id"].as_str().unwrap().to_owned()).collect();
    let expected: Vec<_> = ids.iter().cloned().chain(["new".to_owned()]).collect();
    assert_eq!(received, expected, "in the order of the journal, the new one behind");
    assert_eq!(status["sources"]["main"]["accepted"], 1);
    assert_eq!(status["sinks"]["picky"]["dead_letters"], PUSHES);
    let delivered = eventually("the new event comes", async || {
        let delivered = crate::support::events(&events);
        (!delivered.is_empty()).then_some(delivered)
    })
    .await;
    assert_eq!(by_id(&delivered).into_keys().collect::<Vec<_>>(), ["new"], "what was delivered stays delivered");
    let (_, kept) = gateway.get("/api/v1/dead-letters?sink=ingress").await;
    assert_eq!(kept["items"].as_array().map(Vec::len), Some(2), "the refused push of then and the conflict of now");
    receiver.stop().await;
    assert_eq!(sender.once("cdr", "kept", cdr("s-1", 3)).await.unwrap().1["ErrCode"], 0);
    gateway.stop().await;

    let writers = verified(dir.path())["writers"].clone();
    assert!(writers.get(env!("CARGO_PKG_VERSION")).is_some(), "new files are of this release: {writers}");
}
