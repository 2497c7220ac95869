//! A sink's trouble is its own.

use crate::support::{GatewayBuilder, Outcome, Sender, cdr, eventually, file_sink, folder, wait_for_events};

#[tokio::test]
async fn a_dead_sink_delays_neither_replies_nor_other_sinks() {
    let dir = folder();
    let blocked = dir.path().join("blocked");
    std::fs::write(&blocked, "a file where the sink needs a folder").unwrap();
    let (good, bad) = (dir.path().join("good.ndjson"), blocked.join("bad.ndjson"));
    let gateway =
        GatewayBuilder::new(dir.path()).sinks(&(file_sink("good", &good) + &file_sink("bad", &bad))).start().await;
    let sender = Sender::new(&gateway.url());
    for number in 0..500 {
        let outcome = sender.push("cdr", &format!("push-{number}"), &cdr(&format!("s-{}", number % 7), number)).await;
        assert_eq!(outcome, Outcome::Acknowledged);
    }
    wait_for_events(&good, 500).await;

    let status = eventually("the journal knows that the good sink has settled", async || {
        let status = gateway.status().await;
        (status["sinks"]["good"]["pending"] == 0 && status["sinks"]["bad"]["state"] == "broken").then_some(status)
    })
    .await;
    let bad_sink = &status["sinks"]["bad"];
    assert_eq!(bad_sink["pending"], 500);
    assert_eq!(bad_sink["dead_letters"], 0, "an outage burns no attempts");
    assert!(bad_sink["last_error"]["reason"].as_str().unwrap().contains("blocked"), "{bad_sink}");
    assert_eq!(status["sinks"]["good"]["state"], "running");

    std::fs::remove_file(&blocked).unwrap();
    let events = wait_for_events(&bad, 500).await;
    for session in 0..7 {
        let name = format!("s-{session}");
        let numbers: Vec<_> = events
            .iter()
            .filter(|event| event["subject"] == name.as_str())
            .map(|event| event["data"]["duration_seconds"].as_u64().unwrap())
            .collect();
        assert!(numbers.is_sorted(), "session {name} is out of order: {numbers:?}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_sink_gets_what_it_selects_in_the_format_it_wants() {
    let dir = folder();
    let path = |name: &str| dir.path().join(name);
    let sinks = file_sink("calls", &path("calls.ndjson"))
        .replace("type = \"file\"", "type = \"file\"\nactions = [\"CDR\"]\nformat = \"data\"")
        + &file_sink("rest", &path("rest.ndjson"))
            .replace("type = \"file\"", "type = \"file\"\nactions = [\"record\", \"futureKind\"]\nformat = \"raw\"")
        + &file_sink("other", &path("other.ndjson"))
            .replace("type = \"file\"", "type = \"file\"\nsources = [\"second\"]");
    let gateway =
        GatewayBuilder::new(dir.path()).config("[sources.second]\npath = \"/second\"").sinks(&sinks).start().await;
    let sender = Sender::new(&gateway.url());
    let second = sender.at(&format!("http://{}/second", gateway.ingress));
    assert_eq!(sender.push("cdr", "p-1", &cdr("s", 1)).await, Outcome::Acknowledged);
    let pretty = "{\n  \"SessionId\": \"s\",\r\n  \"RecordId\": \"r\"\n}";
    assert_eq!(sender.push("record", "p-2", pretty).await, Outcome::Acknowledged);
    assert_eq!(sender.push("futurekind", "p-3", "{\"x\": 1e400}").await, Outcome::Acknowledged);
    assert_eq!(second.push("cdr", "p-4", &cdr("s", 4)).await, Outcome::Acknowledged);

    let lines = |name: &str| {
        std::fs::read_to_string(path(name)).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    eventually("all sinks have what they select", async || {
        (lines("calls.ndjson").len() == 2 && lines("rest.ndjson").len() == 2 && lines("other.ndjson").len() == 1)
            .then_some(())
    })
    .await;
    gateway.stop().await;
    assert!(lines("calls.ndjson")[0].contains("\"duration_seconds\":1"));
    assert!(!lines("calls.ndjson")[0].contains("specversion"));
    assert_eq!(lines("rest.ndjson")[0], "{   \"SessionId\": \"s\",    \"RecordId\": \"r\" }");
    assert_eq!(lines("rest.ndjson")[1], "{\"x\": 1e400}");
    assert!(lines("other.ndjson")[0].contains("\"id\":\"p-4\""));
}
