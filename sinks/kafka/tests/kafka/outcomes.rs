//! Each kind of trouble on a real broker, and what the sink makes of it.

use std::process::Command;
use std::time::Duration;

use sink_api::conformance::{batch, event, event_of_size};
use sink_api::{Event, Format};
use test_servers::process::{Process, installed, wait_until};

use crate::harness::{deliver_at_last, large_noise, new_records, numbered, shared, sink, sink_of, told};

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_a_cloudevent_by_the_kafka_binding() {
    let kafka = shared();
    kafka.create_topic("binding.main.cdr", 1, 1, &[]);
    let traced = || {
        let mut event = event("id-1", "s-1");
        event.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
        event
    };
    let topic = "topic = \"binding.{source}.{action}\"\n";
    for (more, format) in [("", Format::CloudEvents), ("mode = \"structured\"", Format::CloudEvents), ("", Format::Raw)]
    {
        let sink = sink_of(&kafka.brokers(), &format!("{topic}{more}"), format);
        assert_eq!(told(&sink.deliver(&batch(0, 1, vec![traced()])).await), ["delivered"]);
        sink.close().await;
    }
    let records = new_records(&kafka.reader(&["binding.main.cdr"], false));
    let [binary, structured, raw] = &records[..] else { panic!("{records:?}") };
    for record in &records {
        assert_eq!(record.key, "s-1");
        assert_eq!(record.headers["traceparent"], traced().traceparent.unwrap());
    }
    assert_eq!(binary.headers["content-type"], "application/json");
    assert_eq!(binary.headers["ce_type"], "com.tencent.ccc.cdr.v1");
    assert_eq!(binary.headers["ce_specversion"], "1.0");
    assert_eq!(binary.value(), traced().payload(Format::Data));
    assert_eq!(structured.headers["content-type"], "application/cloudevents+json; charset=UTF-8");
    assert_eq!(structured.value(), traced().payload(Format::CloudEvents));
    assert_eq!(raw.headers["ce_id"], "id-1");
    assert_eq!(raw.value(), traced().raw);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_topic_is_the_sinks_trouble_until_it_is_made() {
    let kafka = shared();
    let sink = sink(&kafka.brokers(), "topic = \"late.{action}\"");
    assert_eq!(sink.probe().await, Ok(()));
    let batch = numbered("late", 3);
    for word in told(&sink.deliver(&batch).await) {
        assert!(word.starts_with("away unknown-topic"), "{word}");
    }
    assert_eq!(sink.probe().await.unwrap_err().code, "unknown-topic");
    kafka.create_topic("late.cdr", 1, 1, &[]);
    assert_eq!(sink.probe().await, Ok(()));
    deliver_at_last(&*sink, batch).await;
    sink.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_event_that_is_too_large_is_refused() {
    let kafka = shared();
    kafka.create_topic("small.cdr", 1, 1, &["max.message.bytes=20000"]);
    let sink = sink(&kafka.brokers(), "topic = \"small.cdr\"");
    // One request of 60 KB, of which each event but one would pass by itself.
    let mut events: Vec<Event> =
        (0..8).map(|n| large_noise(&format!("e-{n}"), &format!("s-{}", n % 4), 5_000)).collect();
    events[2] = large_noise("e-2", "s-2", 30_000);
    let outcomes = told(&sink.deliver(&batch(0, 1, events)).await);
    assert_eq!(outcomes[2], "rejected message-size-too-large");
    assert_eq!(outcomes[6], "patience behind");
    for seat in [0, 1, 3, 4, 5, 7] {
        assert_eq!(outcomes[seat], "delivered", "{seat}: {outcomes:?}");
    }
    // The producer that met a fatal error has been replaced.
    assert_eq!(told(&sink.deliver(&numbered("next", 2)).await), ["delivered"; 2]);
    sink.close().await;
    let ids: Vec<String> = new_records(&kafka.reader(&["small.cdr"], false)).iter().map(|record| record.id()).collect();
    assert_eq!(ids, ["e-0", "e-1", "e-3", "e-4", "e-5", "e-7", "next-0", "next-1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_waited_for() {
    let kafka = shared();
    kafka.create_topic("narrow.cdr", 1, 1, &[]);
    let properties = "properties = { \"queue.buffering.max.messages\" = 3, \"message.timeout.ms\" = 20000 }";
    let sink = sink(&kafka.brokers(), &format!("topic = \"narrow.cdr\"\n{properties}"));
    assert_eq!(told(&sink.deliver(&numbered("many", 300)).await), ["delivered"; 300]);
    sink.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_events_larger_than_a_megabyte_pass() {
    let kafka = shared();
    kafka.create_topic("wide.cdr", 1, 1, &[]);
    let sink = sink(&kafka.brokers(), "topic = \"wide.cdr\"");
    let outcomes = sink.deliver(&batch(0, 1, vec![event_of_size("wide", "s", 4 << 20)])).await;
    assert_eq!(told(&outcomes), ["delivered"]);
    sink.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_at_the_address_is_an_outage() {
    let sink = sink("127.0.0.1:9", "properties = { \"message.timeout.ms\" = 1500 }");
    let outcomes = told(&sink.deliver(&numbered("nobody", 2)).await);
    assert!(outcomes.iter().all(|word| word.starts_with("away ")), "{outcomes:?}");
    let fault = sink.probe().await.unwrap_err();
    assert!(fault.reason.contains("127.0.0.1:9"), "{fault:?}");
    sink.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_larger_than_a_request_is_refused_alone() {
    let kafka = shared();
    kafka.create_topic("huge.cdr", 3, 1, &[]);
    for more in ["", "transactional = true"] {
        let properties = "properties = { \"message.timeout.ms\" = 20000 }";
        let sink = sink(&kafka.brokers(), &format!("topic = \"huge.cdr\"\n{properties}\n{more}"));
        let huge = large_noise("huge", "s", 2 << 20);
        let events = vec![event("before", "s"), huge, event("after", "s"), event("other", "t")];
        let outcomes = told(&sink.deliver(&batch(0, 1, events)).await);
        assert_eq!(outcomes[..3], ["delivered", "rejected message-size-too-large", "patience behind"]);
        sink.close().await;
    }
}

/// The README's consumer, as it stands there but for the addresses.
#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_consumer_keeps_each_event_once() {
    let kafka = shared();
    for topic in ["readme.cdr", "readme.record"] {
        kafka.create_topic(topic, 2, 1, &[]);
    }
    let sink = sink(&kafka.brokers(), "topic = \"readme.{action}\"");
    for _ in 0..2 {
        assert_eq!(told(&sink.deliver(&numbered("readme", 20)).await), ["delivered"; 20]);
    }
    sink.close().await;

    let readme = include_str!("../../README.md");
    let program = readme.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let program = program.replace("127.0.0.1:9092", &kafka.brokers()).replace("tccc.", "readme.");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("consumer.py"), program).unwrap();
    let log = dir.path().join("log");
    let mut consumer = Command::new(installed("python/bin/python"));
    consumer.arg("consumer.py").current_dir(dir.path());
    let _running = Process::spawn(&consumer, &log).unwrap();
    let count =
        "import sqlite3; print(*sqlite3.connect('events.db').execute('SELECT count(*) FROM events').fetchone())";
    wait_until("the consumer has every event once", Duration::from_secs(60), &log, || {
        let counted = Command::new(installed("python/bin/python")).args(["-c", count]).current_dir(dir.path()).output();
        String::from_utf8_lossy(&counted.unwrap().stdout).trim() == "20"
    });
}
