//! The conformance suite, on a disk and on a real S3 server.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::json;
use sink_api::conformance::{self, Abilities, Harness, Received};
use sink_api::{Event, Sink};
use test_servers::recorder::{Recorder, Reply};
use test_servers::s3::{ACCESS_KEY_ID, S3, SECRET_ACCESS_KEY};

use crate::support::{named, noise, sink};

const BUCKET: &str = "recordings";
/// Needs two parts of an upload.
const LARGE: usize = 6 << 20;
const SMALL: usize = 3000;

enum Place {
    Disk(PathBuf),
    S3(Mutex<S3>),
}

struct Archive {
    recorder: Recorder,
    place: Place,
}

/// What lies at `/<length>/<id>`.
fn recorder() -> Recorder {
    Recorder::start(|request| {
        let mut parts = request.path.trim_start_matches('/').split('/');
        match (parts.next().unwrap().parse(), parts.next()) {
            (Ok(length), Some(id)) => Reply::file(request, noise(id, length), id),
            _ => Reply::status(403),
        }
    })
}

impl Archive {
    fn settings(&self) -> String {
        let store = match &self.place {
            Place::Disk(root) => format!("provider = 'disk', root = '{}'", root.display()),
            Place::S3(server) => format!(
                "provider = 's3', bucket = '{BUCKET}', endpoint = '{}', path_style = true, access_key_id = '{ACCESS_KEY_ID}', \
                 secret_access_key = '{SECRET_ACCESS_KEY}', timeout = '10s'",
                server.lock().unwrap().endpoint()
            ),
        };
        format!("hosts = ['127.0.0.1']\nstore = {{ {store} }}")
    }

    fn root(&self) -> PathBuf {
        match &self.place {
            Place::Disk(root) => root.clone(),
            Place::S3(server) => server.lock().unwrap().bucket_dir(BUCKET),
        }
    }

    fn event_of_length(&self, id: &str, session: &str, length: usize) -> Event {
        let event = named("record", id, session, json!({ "url": self.recorder.url(&format!("/{length}/{id}")) }));
        Event { id: id.to_owned(), ..event }
    }
}

#[async_trait]
impl Harness for Archive {
    async fn fresh(&self) -> Arc<dyn Sink> {
        sink(&self.settings())
    }

    async fn read_back(&self) -> Vec<Received> {
        let sink = self.fresh().await;
        let archive = sink.archive().unwrap();
        let mut keys = Vec::new();
        archive.list(&mut |archived| keys.push(archived.key)).await.unwrap();
        let mut received = Vec::new();
        for key in keys {
            let payload = Bytes::from(std::fs::read(self.root().join(&key)).unwrap());
            let id = archive.event_of(&key).await.unwrap().expect("every object says its event");
            received.push(Received { id, payload });
        }
        sink.close().await;
        received
    }

    async fn break_destination(&self) {
        match &self.place {
            Place::Disk(root) => {
                let _made_before = std::fs::create_dir_all(root);
                std::fs::rename(root, root.with_extension("away")).unwrap();
                std::fs::write(root, "in the way").unwrap();
            }
            Place::S3(server) => server.lock().unwrap().stop(),
        }
    }

    async fn mend_destination(&self) {
        match &self.place {
            Place::Disk(root) => {
                std::fs::remove_file(root).unwrap();
                std::fs::rename(root.with_extension("away"), root).unwrap();
            }
            Place::S3(server) => server.lock().unwrap().start_again(),
        }
    }

    fn abilities(&self) -> Abilities {
        let time_max = Duration::from_secs(60);
        Abilities { keeps_order: false, keeps_one_copy: true, answer_time_max: time_max, recovery_time_max: time_max }
    }

    fn event(&self, id: &str, session: &str) -> Event {
        self.event_of_length(id, session, SMALL)
    }

    fn large_event(&self, id: &str, session: &str) -> Event {
        self.event_of_length(id, session, LARGE)
    }

    fn poison_event(&self, id: &str, session: &str) -> Option<Event> {
        let event = named("record", id, session, json!({ "url": self.recorder.url("/poison") }));
        Some(Event { id: id.to_owned(), ..event })
    }

    fn payload(&self, event: &Event) -> Bytes {
        let length = if event.data.get().contains(&format!("/{LARGE}/")) { LARGE } else { SMALL };
        Bytes::from(noise(&event.id, length).to_vec())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::Disk(dir.path().join("archive"));
    conformance::run(&Archive { recorder: recorder(), place }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_s3_server_keeps_the_contract() {
    let place = Place::S3(Mutex::new(S3::start(&[BUCKET])));
    conformance::run(&Archive { recorder: recorder(), place }).await;
}
