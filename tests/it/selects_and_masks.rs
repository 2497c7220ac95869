//! Each sink gets what `when` selects, masked as `mask` says, and nothing of the original by another way.

use serde_json::Value;

use crate::support::{
    GatewayBuilder, Outcome, Sender, events, eventually, file_sink, folder, trunkline, wait_for_events,
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A file sink with further keys.
fn sink(dir: &std::path::Path, name: &str, keys: &str) -> String {
    file_sink(name, &dir.join(format!("{name}.ndjson"))).replace("type = \"file\"", &format!("type = \"file\"\n{keys}"))
}

fn call(session: &str, direction: u8, caller: &str) -> String {
    format!(
        r#"{{"SdkAppId":1400880011,"SessionId":"{session}","Caller":"{caller}","Direction":{direction},"SeatUser":{{"Mail":"canary@example.com"}},
            "ServeParticipants":[{{"Mail":"canary@example.com"}},{{"Mail":"canary@example.com","Phone":["canaryphone"]}}],"New":"canarynew"}}"#
    )
}

#[tokio::test]
async fn sinks_get_what_they_select_masked_and_keep_what_they_cannot_judge() {
    let dir = folder();
    let mask = r#"mask = { caller = "last4", "agent.email" = "drop", "participants[].email" = "drop", "participants[].phone" = "drop", session_id = { hmac_key = { env = "MASK_KEY" } }, "extra.New" = { hmac_key = { env = "MASK_KEY" } } }"#;
    let sinks = sink(dir.path(), "all", "")
        + &sink(dir.path(), "inbound", "when = 'data.direction == \"inbound\"'")
        + &sink(dir.path(), "masked", &format!("when = 'data.direction == \"inbound\"'\nformat = \"data\"\n{mask}"))
        + &sink(dir.path(), "enveloped", mask)
        + &sink(dir.path(), "strict", "when = 'data.ivr_duration_seconds >= 0'");
    let gateway = GatewayBuilder::new(dir.path()).env("MASK_KEY", "canarykey").sinks(&sinks).start().await;
    let sender = Sender::new(&gateway.url());
    for number in 0..20_u8 {
        let body = call(&format!("canarysession-{}", number % 3), number % 2, "0086canary1234");
        assert_eq!(sender.push("cdr", &format!("p-{number}"), &body).await, Outcome::Acknowledged);
    }

    let at = |name: &str| dir.path().join(format!("{name}.ndjson"));
    wait_for_events(&at("all"), 20).await;
    let inbound = wait_for_events(&at("inbound"), 10).await;
    assert!(inbound.iter().all(|event| event["data"]["direction"] == "inbound"));
    let enveloped = wait_for_events(&at("enveloped"), 20).await;
    let masked = eventually("the masked events are there", async || {
        Some(events(&at("masked"))).filter(|events| events.len() >= 10)
    })
    .await;
    for data in masked.iter().chain(enveloped.iter().map(|event| &event["data"])) {
        assert_eq!((&data["caller"], &data["agent"]["email"]), (&Value::from("**********1234"), &Value::Null));
        assert_eq!(data["participants"][1]["extra"]["Phone"], Value::Null);
        assert_eq!(data["extra"]["New"].as_str().map(str::len), Some(64));
    }
    assert!(enveloped.iter().all(|event| event["subject"] == event["data"]["session_id"]));
    for name in ["masked", "enveloped"] {
        assert!(!std::fs::read_to_string(at(name)).unwrap().contains("canary"), "{name} holds what is masked");
    }

    let status = eventually("what cannot be judged is a dead letter", async || {
        let status = gateway.status().await;
        (status["sinks"]["strict"]["dead_letters"] == 20 && status["sinks"]["inbound"]["pending"] == 0)
            .then_some(status)
    })
    .await;
    assert_eq!(
        (&status["sinks"]["inbound"]["dead_letters"], &status["sinks"]["strict"]["pending"]),
        (&0.into(), &0.into())
    );
    let lines = eventually("the log says so", async || {
        let lines = gateway.lines().join("\n");
        lines.contains("\"code\":\"when\"").then_some(lines)
    })
    .await;
    assert!(!lines.contains("canary"), "{lines}");
    gateway.stop().await;
}

fn check(dir: &std::path::Path, sinks: &str, args: &[&str]) -> (Option<i32>, String, String) {
    std::fs::write(dir.join("gateway.toml"), format!("[sources.main]\npath = \"/push\"\n{sinks}")).unwrap();
    let output = trunkline().arg("check").args(args).env("MASK_KEY", "k").current_dir(dir).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn check_shows_what_each_sink_would_get_or_why_nothing() {
    let dir = folder();
    let sinks = sink(dir.path(), "calls", "actions = [\"cdr\"]\nmask = { caller = \"last4\" }")
        + &sink(dir.path(), "records", "actions = [\"record\"]")
        + &sink(dir.path(), "second", "sources = [\"second\"]")
        + &sink(dir.path(), "outbound", "when = 'data.direction == \"outbound\"'")
        + &sink(dir.path(), "odd", "when = 'data.extra.Score > 3'")
        + "[sources.second]\npath = \"/second\"\n";
    let sample = format!("{ROOT}/tests/samples/cdr-inbound-transfer.json");
    let (code, stdout, stderr) = check(dir.path(), &sinks, &["--sample", &sample, "--action", "cdr"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for line in [
        "sink records: nothing, since `actions` does not name its action",
        "sink second: nothing, since `sources` does not name its source",
        "sink outbound: nothing, since `when` is false for it",
        "sink odd: nothing: a dead letter with code when, since `when` asks for `Score`, which this event does not have: ask has(…) first",
    ] {
        assert!(stdout.lines().any(|found| found == line), "{line} is not in\n{stdout}");
    }
    let (_, rest) = stdout.split_once("sink calls:\n").unwrap();
    let event: Value = serde_json::from_str(rest.lines().next().unwrap()).unwrap();
    assert_eq!(event["data"]["caller"], "***********1234");
}

#[test]
fn check_shows_the_place_of_a_mistake_and_the_effective_mask_without_its_key() {
    let dir = folder();
    let (code, _, stderr) = check(dir.path(), &sink(dir.path(), "a", "when = 'data.direction = \"inbound\"'"), &[]);
    assert_eq!(code, Some(64));
    assert!(stderr.contains("sinks.a.when: is no CEL expression"), "{stderr}");
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines[1..3], ["    data.direction = \"inbound\"", "                   ^"]);

    let keys = "mask = { caller = \"last4\", callee = { hmac_key = \"canarykey\" }, \"agent.mail\" = \"drop\" }";
    let (code, stdout, stderr) = check(dir.path(), &sink(dir.path(), "a", keys), &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("warning: sinks.a.mask.\"agent.mail\": masks nothing that any event has"), "{stderr}");
    assert!(stdout.contains("caller = \"last4\"") && stdout.contains("hmac_key = \"***\""), "{stdout}");
    assert!(!stdout.contains("canarykey") && !stderr.contains("canarykey"));
}
