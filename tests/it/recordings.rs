//! Every recording comes home once, byte for byte, or is a dead letter with the true reason; what became of it is told and counted.
//!
//! `TRUNKLINE_TEST_RECORDINGS=4000` makes the trial of it a large one: recordings of 0.1 to 5 MB, and a bound on memory.
//! `TRUNKLINE_TEST_PROGRAM=target/release/trunkline` has it run another build.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use test_servers::recorder::{Recorder, Reply, Request};
use test_servers::redis::{Program, Redis};

use crate::support::{
    Gateway, GatewayBuilder, Outcome, Sender, by_id, events, eventually, file_sink, folder, trunkline,
};

/// Stands in every URL, and must not be seen.
const CANARY: &str = "canarysign";

/// What the large trial may take.
const MEMORY_MAX_KIB: u64 = 100 << 10;
const TRIAL_TIME_MAX: Duration = Duration::from_secs(1800);

/// How the server behaves with one recording: what it does at the first requests, and what it does in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Sound,
    Truncates,
    Stalls,
    LiesOnce,
    NotYet,
    SlowDown,
    PageOnce,
    KnowsNoRanges,
    ChangesEdition,
    Refuses,
    LeadsInside,
}

impl Manner {
    /// One in ten misbehaves.
    fn of(number: usize) -> Self {
        const BAD: [Manner; 10] = [
            Manner::Truncates,
            Manner::Stalls,
            Manner::LiesOnce,
            Manner::NotYet,
            Manner::SlowDown,
            Manner::PageOnce,
            Manner::KnowsNoRanges,
            Manner::ChangesEdition,
            Manner::Refuses,
            Manner::LeadsInside,
        ];
        if number.is_multiple_of(10) { BAD[number / 10 % BAD.len()] } else { Self::Sound }
    }

    /// The code of the dead letter.
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Refuses => Some("http-403"),
            Self::LeadsInside => Some("address-refused"),
            _ => None,
        }
    }

    /// The answer to the request number `nth`, from 0, for a recording of these bytes.
    fn answer(self, nth: usize, request: &Request, bytes: Arc<Vec<u8>>) -> Reply {
        let half = bytes.len() / 2;
        let sound = || Reply::file(request, Arc::clone(&bytes), "1");
        match (self, nth) {
            (Self::Refuses, _) => Reply::status(403),
            (Self::LeadsInside, _) => Reply::redirect(&format!("http://169.254.169.254/latest?sign={CANARY}")),
            (Self::Truncates, 0) => sound().cut_at(half),
            (Self::Stalls, 0) => sound().cut_at(half).stalling(),
            (Self::LiesOnce, 0) => sound().saying_length(bytes.len() as u64 + 1000),
            (Self::NotYet, 0 | 1) => Reply::status(404),
            (Self::SlowDown, 0 | 1) => Reply::status(503),
            (Self::PageOnce, 0) => Reply::whole(b"<html>wait a moment</html>".to_vec().into()),
            (Self::KnowsNoRanges, 0) => sound().cut_at(half),
            (Self::KnowsNoRanges, _) => Reply::whole(bytes).header("etag", "\"1\""),
            (Self::ChangesEdition, 0) => {
                let old = bytes.iter().map(|byte| !byte).collect::<Vec<_>>();
                Reply::file(request, Arc::new(old), "old").cut_at(half)
            }
            _ => sound(),
        }
    }
}

/// Recordings by number, cut out of one stretch of noise, each with its number in front.
struct Recordings {
    noise: Vec<u8>,
    lengths: std::ops::Range<usize>,
    asked: Mutex<HashMap<usize, usize>>,
}

impl Recordings {
    fn new(lengths: std::ops::Range<usize>) -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        let noise = std::iter::repeat_with(|| random.u8(..)).take(lengths.end + 4096).collect();
        Self { noise, lengths, asked: Mutex::default() }
    }

    fn bytes(&self, number: usize) -> Vec<u8> {
        let span = self.lengths.end - self.lengths.start;
        let length = self.lengths.start + number * 7919 % span;
        let mut bytes = format!("ID3\x04recording {number}\0").into_bytes();
        bytes.extend_from_slice(&self.noise[number % 4096..][..length]);
        bytes
    }

    fn serve(self: &Arc<Self>) -> Recorder {
        let this = Arc::clone(self);
        Recorder::start(move |request| {
            let name = request.path.trim_start_matches("/rec-").split('.').next().expect("a name");
            let number = name.parse().expect("a number");
            let nth = {
                let mut asked = this.asked.lock().expect("no panic while locked");
                let nth = asked.entry(number).or_default();
                *nth += 1;
                *nth - 1
            };
            Manner::of(number).answer(nth, request, Arc::new(this.bytes(number)))
        })
    }
}

/// A recordings sink `home` on the folder `archive`, and a file sink that is told.
fn sinks(dir: &Path, timeout: &str) -> String {
    let told =
        file_sink("told", &dir.join("told.ndjson")).replace("start", "actions = [\"recording.archived\"]\nstart");
    let root = dir.join("archive").display().to_string();
    format!(
        "[sinks.home]\ntype = \"recordings\"\nstart = \"oldest\"\nactions = [\"record\", \"voicemail\"]\nconcurrency = 2\n\
         batch = {{ events_max = 16, linger = \"5ms\" }}\nretry = {{ delay_min = \"20ms\", delay_max = \"200ms\", attempts_max = 5 }}\n\
         settings = {{ hosts = [\"127.0.0.1\", \"169.254.169.254\"], allow_networks = [\"127.0.0.1/32\"], timeout = \"{timeout}\", \
         store = {{ provider = \"disk\", root = {root:?} }} }}\n{told}"
    )
}

fn record(recorder: &Recorder, number: usize) -> (&'static str, String) {
    let url = recorder.url(&format!("/rec-{number}.mp3?sign={CANARY}"));
    let mut body = json!({ "SdkAppId": 1400, "SessionId": format!("s-{}", number / 2), "Timestamp": 1_787_003_950, "RecordURL": url,
        "EndpointUser": "0086canaryphone" });
    if number % 50 == 1 {
        return ("voicemail", body.to_string());
    }
    body["RecordId"] = json!(format!("rec-{number}"));
    ("record", body.to_string())
}

async fn push_all(gateway: &Gateway, recorder: &Recorder, numbers: std::ops::Range<usize>) {
    let sender = Sender::new(&gateway.url());
    let pushes = stream::iter(numbers).map(|number| {
        let sender = sender.clone();
        let (action, body) = record(recorder, number);
        async move { sender.push(action, &format!("push-{number}"), &body).await }
    });
    let answers: Vec<_> = pushes.buffer_unordered(16).collect().await;
    assert!(answers.iter().all(|answer| *answer == Outcome::Acknowledged), "every push is acknowledged");
}

async fn settled(gateway: &Gateway, patience: Duration) -> Value {
    let deadline = Instant::now() + patience;
    loop {
        let sinks = gateway.status().await["sinks"].clone();
        if ["home", "told"].iter().all(|name| sinks[name]["pending"] == 0 && sinks[name]["state"] == "running") {
            return sinks;
        }
        assert!(Instant::now() < deadline, "not settled: {sinks}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The code of each dead letter, by event id.
async fn dead_letters(gateway: &Gateway) -> BTreeMap<String, (String, String)> {
    let mut letters = BTreeMap::new();
    let mut after = String::new();
    loop {
        let page = gateway.get(&format!("/api/v1/dead-letters?limit=1000{after}")).await.1;
        for item in page["items"].as_array().expect("a list") {
            let text = |name: &str| item[name].as_str().expect("text").to_owned();
            letters.insert(text("event_id"), (text("code"), text("reason")));
        }
        let Some(next) = page["next"].as_str() else { return letters };
        after = format!("&after={next}");
    }
}

async fn metric(gateway: &Gateway, name: &str) -> u64 {
    let text = gateway.get("/metrics").await.1.as_str().expect("text").to_owned();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("trunkline_{name}{{sink=\"home\"}} ")).map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
}

/// `trunkline recordings verify --json` beside the gateway: whether all is well, and what it found.
fn verify(dir: &Path) -> (bool, Value) {
    let config = dir.join("gateway.toml");
    let output = trunkline()
        .args(["recordings", "verify", "--json", "--sink", "home", "--config"])
        .arg(config)
        .args(["--set", &format!("journal.disk.dir={}", dir.join("journal").display())])
        .output()
        .expect("the program runs");
    let found = serde_json::from_slice(&output.stdout);
    let found = found.unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.success(), found)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recording_comes_home_once_or_is_a_dead_letter_with_the_true_reason() {
    let large = std::env::var("TRUNKLINE_TEST_RECORDINGS").ok().map(|count| count.parse::<usize>().expect("a number"));
    let (count, lengths) = large.map_or((200, 10_000..200_000), |count| (count, 100_000..5_000_000));
    let recordings = Arc::new(Recordings::new(lengths));
    let recorder = recordings.serve();
    let dir = folder();
    let timeout = if large.is_some() { "3s" } else { "500ms" };
    let gateway = GatewayBuilder::new(dir.path())
        .config("log.filter = \"debug\"")
        .sinks(&sinks(dir.path(), timeout))
        .start()
        .await;
    for name in ["recordings_archived_total", "recordings_lost_total"] {
        assert_eq!(metric(&gateway, name).await, 0, "every series exists from the start");
    }
    let begun = Instant::now();
    push_all(&gateway, &recorder, 0..count).await;
    let pushed_in = begun.elapsed();
    let status = settled(&gateway, TRIAL_TIME_MAX).await;
    let (took, memory_kib) = (begun.elapsed(), gateway.memory_max_kib());

    let letters = dead_letters(&gateway).await;
    let told = events(&dir.path().join("told.ndjson"));
    assert!(by_id(&told).values().all(|times| *times == 1), "each is told of once");
    let told: HashMap<_, _> =
        told.iter().map(|event| (event["data"]["event_id"].as_str().expect("an id"), event)).collect();
    for number in 0..count {
        let id = format!("push-{number}");
        match Manner::of(number).code() {
            Some(code) => assert_eq!(letters.get(&id).map(|(code, _)| code.as_str()), Some(code), "{number}"),
            None => assert_archived(
                dir.path(),
                told.get(id.as_str()).unwrap_or_else(|| panic!("{number} is not told of")),
                &recordings.bytes(number),
            ),
        }
    }
    let lost = (0..count).filter(|number| Manner::of(*number).code().is_some()).count();
    assert_eq!((told.len(), letters.len()), (count - lost, lost));
    assert_eq!(metric(&gateway, "recordings_archived_total").await, told.len() as u64);
    assert_eq!(metric(&gateway, "recordings_lost_total").await, lost as u64);
    let (is_well, found) = verify(dir.path());
    assert_eq!((is_well, &found["archived"], &found["orphans"]), (lost == 0, &json!(told.len()), &json!([])));
    assert_eq!(found["missing"].as_array().map(Vec::len), Some(lost), "{found}");
    let seen = format!("{}{}{status}{letters:?}{found}", gateway.lines().join("\n"), gateway.get("/metrics").await.1);
    assert!(!seen.contains("canary"), "{:?}", seen.find("canary").map(|at| &seen[at.saturating_sub(300)..at + 20]));
    eprintln!(
        "{count} recordings pushed in {pushed_in:?}, settled in {took:?}: {} archived, {lost} dead letters, at most {memory_kib} KiB, {} requests",
        told.len(),
        recorder.requests().len()
    );
    assert!(large.is_none() || memory_kib < MEMORY_MAX_KIB, "{memory_kib} KiB");
    gateway.stop().await;
}

fn assert_archived(dir: &Path, event: &Value, bytes: &[u8]) {
    let data = &event["data"];
    let key = data["key"].as_str().expect("a key");
    let held = std::fs::read(dir.join("archive").join(key)).unwrap_or_else(|error| panic!("{key}: {error}"));
    assert!(held == bytes, "{key} is not what was recorded");
    assert_eq!(data["length_bytes"], json!(bytes.len()));
    assert_eq!(
        (&event["type"], &event["source"]),
        (&json!("com.tencent.ccc.recording.archived.v1"), &json!("/tccc/1400"))
    );
    assert_eq!(event["subject"], data["session_id"]);
}

#[tokio::test]
async fn verify_names_what_is_missing_and_what_nobody_named() {
    verify_names_what_is_wrong("").await;
}

#[tokio::test]
async fn verify_knows_the_events_of_a_journal_in_redis() {
    let redis = Redis::start_durable(Program::Redis);
    let journal = format!("[journal]\nbackend = \"redis\"\nredis = {{ url = {:?} }}", redis.url());
    verify_names_what_is_wrong(&journal).await;
    drop(redis);
    let dir = folder();
    let text = format!("{journal}\n[sources.main]\npath = \"/push\"\n{}", sinks(dir.path(), "1s"));
    std::fs::write(dir.path().join("gateway.toml"), text).unwrap();
    let output = trunkline().args(["recordings", "verify"]).current_dir(dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "a journal that is not reachable: {said}");
}

async fn verify_names_what_is_wrong(journal: &str) {
    let recordings = Arc::new(Recordings::new(1000..5000));
    let recorder = recordings.serve();
    let dir = folder();
    // What one sink has not settled is held, so that events of recordings that were removed are known.
    let held = file_sink("held", &dir.path().join("held.ndjson"));
    let sinks = format!("{}{held}", sinks(dir.path(), "500ms"));
    let gateway = GatewayBuilder::new(dir.path()).config(journal).sinks(&sinks).start().await;
    let pause = async |sink: &str| gateway.call("POST", &format!("/api/v1/sinks/{sink}/pause"), None, "{}").await.0;
    assert_eq!(pause("held").await, 200);
    push_all(&gateway, &recorder, 1..10).await;
    settled(&gateway, Duration::from_secs(30)).await;
    assert_eq!(verify(dir.path()), (true, json!({ "archived": 9, "missing": [], "orphans": [] })));

    let archive = dir.path().join("archive");
    let key = |number: usize| format!("main/1400/date=2026-08-17/s-{}/rec-{number}.mp3", number / 2);
    std::fs::remove_file(archive.join(key(2))).unwrap();
    std::fs::write(archive.join(key(3)), "cut").unwrap();
    std::fs::write(archive.join("stray.mp3"), "ID3").unwrap();
    push_all(&gateway, &recorder, 80..81).await;
    settled(&gateway, Duration::from_secs(30)).await;
    assert_eq!(pause("home").await, 200);
    push_all(&gateway, &recorder, 12..13).await;
    let (is_well, found) = verify(dir.path());
    assert!(!is_well);
    assert_eq!(
        (&found["archived"], &found["orphans"]),
        (&json!(7), &json!([{ "sink": "home", "key": "stray.mp3", "length_bytes": 3 }]))
    );
    let missing = |number: usize, state: &str, code: Option<&str>| {
        json!({ "sink": "home", "event_id": format!("push-{number}"), "action": "record",
            "session_id": format!("s-{}", number / 2), "key": key(number).trim_end_matches(".mp3"), "state": state, "code": code })
    };
    let all = [
        missing(2, "settled", None),
        missing(3, "damaged", None),
        missing(80, "dead-letter", Some("http-403")),
        missing(12, "pending", None),
    ];
    assert_eq!(found["missing"], json!(all));

    let output = trunkline()
        .args(["recordings", "verify", "--sink", "told", "--config"])
        .arg(dir.path().join("gateway.toml"))
        .output();
    assert_eq!(output.unwrap().status.code(), Some(2), "a sink that archives nothing");
    gateway.stop().await;
}

#[tokio::test]
async fn a_full_journal_is_drained_although_every_delivery_adds_a_push() {
    let recordings = Arc::new(Recordings::new(1000..2000));
    let recorder = recordings.serve();
    let dir = folder();
    let builder = || {
        GatewayBuilder::new(dir.path())
            .config("ingress.body_size_max = \"16KiB\"\njournal = { size_max = \"256KiB\", disk = { segment_size = \"64KiB\" } }")
            .sinks(&sinks(dir.path(), "500ms"))
            .expect_errors()
    };
    let gateway = builder().start().await;
    let paused = gateway.call("POST", "/api/v1/sinks/home/pause", None, "{}").await.0;
    assert_eq!(paused, 200);
    let sender = Sender::new(&gateway.url()).without_resends();
    let mut accepted = 0;
    while let (action, body) = record(&recorder, 10 * accepted + 2)
        && sender.push(action, &format!("push-{accepted}"), &body).await == Outcome::Acknowledged
    {
        accepted += 1;
    }
    assert!(accepted > 50, "{accepted}");
    assert_eq!(gateway.call("POST", "/api/v1/sinks/home/resume", None, "{}").await.0, 200);
    settled(&gateway, Duration::from_secs(60)).await;
    assert_eq!(metric(&gateway, "recordings_archived_total").await, accepted as u64);
    assert_eq!(by_id(&events(&dir.path().join("told.ndjson"))).len(), accepted);
    let (action, body) = record(&recorder, 5);
    eventually("there is room again", async || {
        (sender.push(action, "push-after", &body).await == Outcome::Acknowledged).then_some(())
    })
    .await;
    gateway.stop().await;
}
