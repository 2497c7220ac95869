//! What was archived, as DuckDB reads it.

use serde_json::json;
use sink_api::conformance::{batch, event};
use sink_api::{Batch, Event, Outcome};

use super::*;

/// The samples' events as the gateway makes them, from `tests/samples/expected`.
fn samples() -> Vec<Event> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/samples/expected");
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let read = |path: &PathBuf| {
        let expected: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let text = |name: &str| expected[name].as_str().unwrap_or_default().to_owned();
        let mut event = event(path.file_stem().unwrap().to_str().unwrap(), &text("partitionkey"));
        event.kind = text("type");
        event.action = event.kind.strip_prefix("com.tencent.ccc.").unwrap().rsplit_once(".v").unwrap().0.to_owned();
        event.source = text("source");
        event.time = text("time").parse().unwrap();
        event.recordedtime = text("recordedtime").parse().unwrap();
        event.data = serde_json::value::to_raw_value(&expected["data"]).unwrap();
        event
    };
    names.iter().map(read).collect()
}

async fn deliver(sink: &dyn Sink, batch: &Batch) {
    let outcomes = sink.deliver(batch).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::delivered()), "{outcomes:?}");
}

/// A value of `data` as its column shows it: DuckDB's timestamps have a blank, JSON is text.
fn as_column(value: &Value) -> Value {
    match value {
        Value::Object(_) | Value::Array(_) => Value::String(value.to_string()),
        other => other.clone(),
    }
}

#[tokio::test]
async fn parquet_holds_every_field_of_every_sample() {
    let dir = tempfile::tempdir().unwrap();
    let samples = samples();
    deliver(&*sink(&on_disk(dir.path(), "file_format = 'parquet'")), &batch(0, 1, samples.clone())).await;
    let read = read_by_duckdb(dir.path());
    assert_eq!(read.len(), samples.len());
    for sample in &samples {
        let row = &read.iter().find(|row| row["event"]["id"] == json!(sample.id)).unwrap()["event"];
        assert_eq!(row["type"], json!(sample.kind));
        assert_eq!(row["rest"], Value::Null, "{}", sample.id);
        let data: Value = serde_json::from_str(sample.data.get()).unwrap();
        for (name, value) in data.as_object().unwrap() {
            let opened = value.as_object().filter(|_| row.get(name).is_none());
            let fields: Vec<(String, &Value)> = match opened {
                Some(within) => within.iter().map(|(inner, value)| (format!("{name}_{inner}"), value)).collect(),
                None => vec![(name.clone(), value)],
            };
            for (column, value) in fields {
                let found = &row[&column];
                let same_time = column.ends_with("_at") && is_same_time(found, value);
                assert!(
                    same_time || *found == as_column(value) || is_same_json(found, value),
                    "{}: {column}: {found} {value}",
                    sample.id
                );
            }
        }
    }
}

fn is_same_time(found: &Value, expected: &Value) -> bool {
    let parsed = |text: &str| text.replace(' ', "T").parse::<jiff::Timestamp>().ok();
    match (found.as_str(), expected.as_str()) {
        (Some(found), Some(expected)) => parsed(found).is_some() && parsed(found) == parsed(expected),
        _ => found.is_null() && expected.is_null(),
    }
}

fn is_same_json(found: &Value, expected: &Value) -> bool {
    found.as_str().is_some_and(|text| serde_json::from_str::<Value>(text).is_ok_and(|value| value == *expected))
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_on_s3_read_back_whole_in_every_format() {
    // More than a row group, or than a part of an upload, where the format has either.
    let cases = [
        (12_000, "file_format = 'parquet'"),
        (12_000, "compression = 'none'"),
        (700, ""),
        (700, "compression = 'gzip'"),
    ];
    let server = S3::start(&[BUCKET]);
    for (count, more) in cases {
        let events: Vec<_> = (0..count).map(|n| event(&format!("p-{n}"), &format!("s-{}", n % 97))).collect();
        let mut expected: Vec<_> = events.iter().map(|event| event.id.clone()).collect();
        expected.sort();
        let run: String = more.chars().filter(char::is_ascii_alphanumeric).collect();
        let key = format!("key = 'run-{run}/{{action}}/{{shard}}-{{first}}-{{last}}'\n{more}");
        deliver(&*sink(&on_s3(&server, &key)), &batch(2, 1, events)).await;
        let read = read_by_duckdb(&server.bucket_dir(BUCKET).join(format!("run-{run}")));
        let mut ids: Vec<_> = read.iter().map(|row| row["event"]["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        assert!(ids == expected, "{more}: {} events", ids.len());
    }
}

#[tokio::test]
async fn journals_that_count_the_same_offsets_overwrite_nothing_of_one_another_on_s3() {
    let server = S3::start(&[BUCKET]);
    let of = |name: &str| batch(0, 1, (0..50).map(|n| event(&format!("{name}-{n}"), "s")).collect());
    let (mine, theirs) = (of("mine"), of("theirs"));
    for batch in [&mine, &theirs, &mine, &theirs] {
        deliver(&*sink(&on_s3(&server, "")), batch).await;
    }
    let mut ids: Vec<_> =
        read_by_duckdb(&server.bucket_dir(BUCKET)).iter().map(|row| row["event"]["id"].to_string()).collect();
    ids.sort();
    let mut all: Vec<_> = mine.events.iter().chain(&theirs.events).map(|it| format!("{:?}", it.event.id)).collect();
    all.sort();
    assert_eq!(ids, all);
}
