//! The contract of sinks, on a disk and on a real S3 server, in both file formats.

use std::fs::File;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use parquet::file::reader::SerializedFileReader;
use parquet::record::RowAccessor;
use serde_json::json;
use sink_api::conformance::{self, Abilities, Harness, Received};
use sink_api::{Event, Format};

use super::*;

struct Archive {
    place: Place,
    more: &'static str,
}

enum Place {
    Disk(tempfile::TempDir),
    S3(Box<Mutex<S3>>),
}

impl Archive {
    fn root(&self) -> PathBuf {
        match &self.place {
            Place::Disk(dir) => dir.path().join("root"),
            Place::S3(server) => server.lock().unwrap().bucket_dir(BUCKET),
        }
    }

    fn is_parquet(&self) -> bool {
        self.more.contains("parquet")
    }
}

#[async_trait]
impl Harness for Archive {
    async fn fresh(&self) -> Arc<dyn Sink> {
        sink(&match &self.place {
            Place::Disk(_) => on_disk(&self.root(), self.more),
            Place::S3(server) => on_s3(&server.lock().unwrap(), self.more),
        })
    }

    async fn read_back(&self) -> Vec<Received> {
        files(&self.root()).iter().flat_map(|path| if self.is_parquet() { rows(path) } else { lines(path) }).collect()
    }

    async fn break_destination(&self) {
        match &self.place {
            Place::Disk(dir) => {
                std::fs::rename(self.root(), dir.path().join("away")).unwrap();
                std::fs::write(self.root(), "in the way").unwrap();
            }
            Place::S3(server) => server.lock().unwrap().stop(),
        }
    }

    async fn mend_destination(&self) {
        match &self.place {
            Place::Disk(dir) => {
                std::fs::remove_file(self.root()).unwrap();
                std::fs::rename(dir.path().join("away"), self.root()).unwrap();
            }
            Place::S3(server) => server.lock().unwrap().start_again(),
        }
    }

    fn abilities(&self) -> Abilities {
        Abilities { keeps_one_copy: true, ..Abilities::default() }
    }

    fn payload(&self, event: &Event) -> Bytes {
        if self.is_parquet() { row_of(event) } else { event.payload(Format::CloudEvents) }
    }

    async fn fingerprint(&self) -> String {
        let of = |path: PathBuf| format!("{} {:?}", path.display(), path.metadata().unwrap().modified());
        files(&self.root()).into_iter().map(of).collect::<Vec<_>>().join("\n")
    }
}

fn lines(path: &Path) -> Vec<Received> {
    let mut text = Vec::new();
    zstd::stream::copy_decode(File::open(path).unwrap(), &mut text).unwrap();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let received = |line: &[u8]| {
        let event: Value = serde_json::from_slice(line).unwrap();
        Received { id: event["id"].as_str().unwrap().to_owned(), payload: Bytes::copy_from_slice(line) }
    };
    lines.map(received).collect()
}

/// What the suite's events have in columns of their own.
fn row_of(event: &Event) -> Bytes {
    let data: Value = serde_json::from_str(event.data.get()).unwrap();
    let rest = json!({ "big": data["big"], "id": data["id"] });
    let row = json!([event.id, event.partitionkey, event.kind, data["session_id"], data["remark"], rest]);
    Bytes::from(row.to_string())
}

fn rows(path: &Path) -> Vec<Received> {
    let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    let received = |row: parquet::record::Row| {
        let place = |wanted: &str| row.get_column_iter().position(|(name, _)| name == wanted).unwrap();
        let text = |name: &str| row.get_string(place(name)).unwrap().clone();
        let rest: Value = serde_json::from_str(&text("rest")).unwrap();
        let row = json!([text("id"), text("partitionkey"), text("type"), text("session_id"), text("remark"), rest]);
        Received { id: text("id"), payload: Bytes::from(row.to_string()) }
    };
    reader.into_iter().map(|row| received(row.unwrap())).collect()
}

const PARQUET: &str = "file_format = 'parquet'";

#[tokio::test(flavor = "multi_thread")]
async fn ndjson_on_a_disk_keeps_the_contract() {
    conformance::run(&Archive { place: Place::Disk(tempfile::tempdir().unwrap()), more: "" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parquet_on_a_disk_keeps_the_contract() {
    conformance::run(&Archive { place: Place::Disk(tempfile::tempdir().unwrap()), more: PARQUET }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ndjson_on_s3_keeps_the_contract() {
    let server = Box::new(Mutex::new(S3::start(&[BUCKET])));
    conformance::run(&Archive { place: Place::S3(server), more: "" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parquet_on_s3_keeps_the_contract() {
    let server = Box::new(Mutex::new(S3::start(&[BUCKET])));
    conformance::run(&Archive { place: Place::S3(server), more: PARQUET }).await;
}
