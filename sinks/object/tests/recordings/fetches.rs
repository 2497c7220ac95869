//! A recording comes home whole, whatever the server does on the way, if it gives it at all.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use sha2_of::sha256_hex;
use sink_api::Outcome;
use test_servers::recorder::{Recorder, Reply};

use crate::support::{SHORT, archived, deliver, fault, home, mp3, named, noise, record, sink_on};

mod sha2_of {
    pub fn sha256_hex(bytes: &[u8]) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

const LEN: usize = 300_000;

#[tokio::test]
async fn a_recording_is_archived_byte_for_byte_and_told_of() {
    let bytes = mp3(2000);
    let recorder = Recorder::start({
        let bytes = bytes.clone();
        move |request| Reply::file(request, bytes.clone(), "1")
    });
    let home = home("");
    let (derived, body) = archived(&home.sink, record(&recorder, "/a.mp3")).await;
    assert_eq!((derived.action.as_str(), derived.id_suffix.as_str()), ("recording.archived", "archived"));
    assert_eq!(derived.session_id.as_deref(), Some("s-1"));
    assert_eq!(
        body,
        json!({
            "sdk_app_id": 1400, "session_id": "s-1", "recording_id": "r-1",
            "bucket": home.dir.path().join("archive").display().to_string(), "key": "main/1400/date=1970-01-01/s-1/r-1.mp3",
            "length_bytes": bytes.len(), "duration_seconds": 52.245, "sha256": sha256_hex(&bytes),
            "content_type": "audio/mpeg", "event_id": "p-r-1",
        })
    );
    assert_eq!(home.bytes(&body["key"]), *bytes);
    assert_eq!(home.files(), 1, "nothing else remains");
}

#[tokio::test]
async fn an_event_that_is_delivered_again_repeats_the_same_push_without_fetching() {
    let recorder = Recorder::start(|request| Reply::file(request, noise("a", LEN), "1"));
    let home = home("");
    let (first, _) = archived(&home.sink, record(&recorder, "/a.mp3")).await;
    let (second, _) = archived(&home.sink, record(&recorder, "/a.mp3")).await;
    let restarted = sink_on(home.dir.path(), "");
    let (third, _) = archived(&restarted, record(&recorder, "/a.mp3")).await;
    assert_eq!((&first, &second), (&second, &third));
    assert_eq!(recorder.requests().len(), 1);
    let another = named("record", "r-1", "s-1", json!({ "url": recorder.url("/gone") }));
    assert_eq!(
        archived(&home.sink, another).await.0,
        first,
        "two participants that share a recording share the object"
    );
}

#[tokio::test]
async fn a_voicemail_and_an_event_without_ids_have_a_place_too() {
    let recorder = Recorder::start(|request| Reply::file(request, noise("v", LEN), "1"));
    let home = home("");
    let (_, body) = archived(&home.sink, named("voicemail", "v-1", "s-2", json!({ "url": recorder.url("/v") }))).await;
    assert_eq!(body["key"], "main/1400/date=1970-01-01/s-2/p-v-1.mp3");
    assert_eq!(body["recording_id"], serde_json::Value::Null);
    assert_eq!(body["duration_seconds"], serde_json::Value::Null, "noise does not play");
}

#[tokio::test]
async fn other_actions_are_none_of_its_business() {
    let home = home("");
    let outcome = deliver(&home.sink, named("cdr", "r-1", "s-1", json!({ "url": "http://nowhere" }))).await;
    assert_eq!(outcome, Outcome::delivered());
}

#[tokio::test]
async fn a_transfer_that_breaks_or_stalls_goes_on_where_it_was() {
    for stalls in [false, true] {
        let recorder = Recorder::start(move |request| {
            let reply = Reply::file(request, noise("a", LEN), "1");
            match request.range_from() {
                Some(from) if from > 2 * LEN / 3 => reply,
                _ if stalls => reply.cut_at(LEN / 2).stalling(),
                _ => reply.cut_at(LEN / 3),
            }
        });
        let home = home(&format!("timeout = '{}ms'", SHORT.as_millis()));
        let (_, body) = archived(&home.sink, record(&recorder, "/a.mp3")).await;
        assert_eq!(home.bytes(&body["key"]), *noise("a", LEN));
        let requests = recorder.requests();
        assert!((2..=4).contains(&requests.len()), "{requests:?}");
        assert!(requests[1..].iter().all(|request| request.header("if-range") == Some("\"1\"")), "{requests:?}");
    }
}

#[tokio::test]
async fn a_server_that_knows_no_ranges_sends_it_all_again() {
    let tries = AtomicUsize::new(0);
    let recorder = Recorder::start(move |_| {
        let reply = Reply::whole(noise("a", LEN)).header("etag", "\"1\"");
        if tries.fetch_add(1, Ordering::SeqCst) == 0 { reply.cut_at(LEN / 2) } else { reply }
    });
    let home = home("");
    let (_, body) = archived(&home.sink, record(&recorder, "/a.mp3")).await;
    assert_eq!(home.bytes(&body["key"]), *noise("a", LEN));
}

#[tokio::test]
async fn parts_of_different_editions_are_never_put_together() {
    // The second server does not heed If-Range, and neither tells its editions apart by length.
    for heeds in [true, false] {
        let tries = AtomicUsize::new(0);
        let recorder = Recorder::start(move |request| match tries.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::file(request, noise("old", LEN), "old").cut_at(LEN / 2),
            _ if heeds => Reply::file(request, noise("new", LEN), "new"),
            _ => {
                let reply = Reply::whole(noise("new", LEN)).header("etag", "\"new\"");
                request.range_from().map_or(reply.clone(), |from| reply.part(from))
            }
        });
        let home = home("");
        let (_, body) = archived(&home.sink, record(&recorder, "/a.mp3")).await;
        assert_eq!(home.bytes(&body["key"]), *noise("new", LEN), "heeds If-Range: {heeds}");
    }
}

#[tokio::test]
async fn without_an_etag_nothing_is_put_together_at_all() {
    let tries = AtomicUsize::new(0);
    let recorder = Recorder::start(move |request| {
        assert_eq!(request.range_from(), None);
        let reply = Reply::whole(noise("a", LEN)).header("etag", "W/\"weak\"");
        if tries.fetch_add(1, Ordering::SeqCst) < 2 { reply.cut_at(LEN / 2) } else { reply }
    });
    let home = home("");
    let (_, body) = archived(&home.sink, record(&recorder, "/a.mp3")).await;
    assert_eq!(home.bytes(&body["key"]), *noise("a", LEN));
}

#[tokio::test]
async fn a_body_in_chunks_is_taken_whole_or_not_at_all() {
    let tries = AtomicUsize::new(0);
    let recorder = Recorder::start(move |request| {
        let reply = Reply::file(request, noise("a", LEN), "1").chunked();
        if tries.fetch_add(1, Ordering::SeqCst) == 0 { reply.cut_at(LEN / 2) } else { reply }
    });
    let home = home("");
    let (_, body) = archived(&home.sink, record(&recorder, "/a.mp3")).await;
    assert_eq!(home.bytes(&body["key"]), *noise("a", LEN));
}

#[tokio::test]
async fn a_recording_that_is_not_there_yet_is_tried_again() {
    let tries = AtomicUsize::new(0);
    let recorder = Recorder::start(move |request| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::status(404),
        _ => Reply::file(request, noise("a", LEN), "1"),
    });
    let home = home("");
    let (kind, code, _) = fault(&home.sink, record(&recorder, "/a.mp3")).await;
    assert_eq!((kind, code.as_str()), ("retry", "http-404"));
    archived(&home.sink, record(&recorder, "/a.mp3")).await;
}

#[tokio::test]
async fn redirects_lead_to_allowed_hosts() {
    let recorder = Recorder::start(|request| match request.path.split('?').next().unwrap() {
        "/a.mp3" => Reply::redirect("/b.mp3?sign=canarysign#part"),
        "/b.mp3" => Reply::redirect("c.mp3"),
        "/c.mp3" => Reply::file(request, noise("a", LEN), "1"),
        other => panic!("{other}"),
    });
    let home = home("");
    archived(&home.sink, record(&recorder, "/a.mp3")).await;
    assert_eq!(recorder.requests().len(), 3);
}

#[tokio::test]
async fn where_the_link_is_refused_the_vendors_own_transfer_is_tried() {
    let recorder = Recorder::start(|request| match request.path.as_str() {
        "/custom" => Reply::file(request, noise("a", LEN), "1"),
        _ => Reply::status(403),
    });
    let home = home("");
    for urls in [
        json!({ "url": recorder.url("/expired"), "custom_url": recorder.url("/custom") }),
        json!({ "url": null, "custom_url": recorder.url("/custom") }),
    ] {
        archived(&home.sink, named("record", &urls["url"].is_null().to_string(), "s-1", urls)).await;
    }
    let neither = json!({ "url": recorder.url("/expired"), "custom_url": "http://elsewhere.test/" });
    let (kind, code, _) = fault(&home.sink, named("record", "r-9", "s-1", neither)).await;
    assert_eq!((kind, code.as_str()), ("rejected", "http-403"), "the first reason counts");
}
