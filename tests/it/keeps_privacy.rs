//! Personal data stays in: unique values are pushed through every path, good and bad, and none may show in output or metrics.

use crate::support::{GatewayBuilder, Receiver, Sender, eventually, file_sink, folder, wait_for_events};

/// What must never be seen.
const CANARIES: [&str; 9] = [
    "0086canaryphone",
    "canary.mail@example.com",
    "CanaryName",
    "canaryremark",
    "canarytoken",
    "canarybody",
    "canarysecret",
    "canaryfield",
    "canaryuser",
];

fn body() -> String {
    r#"{"SdkAppId":"canarybody","SessionId":"s","Caller":"0086canaryphone","Direction":"canaryfield","Duration":"canarybody",
        "SeatUser":{"Mail":"canary.mail@example.com","Name":"CanaryName"},"UserRemark":"canaryremark","canaryfield":1,
        "RecordURL":"http://host/a.mp3?sign=canarytoken","ServeParticipants":"canarybody","StartTimestamp":"canaryphone"}"#
        .to_owned()
}

#[tokio::test]
async fn no_personal_data_or_secret_is_seen_in_output_metrics_or_replies() {
    let dir = folder();
    let good = dir.path().join("events.ndjson");
    std::fs::write(dir.path().join("blocked"), "").unwrap();
    let refusing = Receiver::start(|_| 400).await;
    let mut away = Receiver::start(|_| 200).await;
    away.stop().await;
    let hooks = (refusing.sink("refusing") + &away.sink("away")).replace("http://", "http://canaryuser:canarysecret@");
    let mut gateway = GatewayBuilder::new(dir.path())
        .config(
            "log.filter = \"trace\"\n[sources.guarded]\npath = \"/guarded\"\nauth = { type = \"basic\", username = \"canaryuser\", password = \"canarysecret\" }",
        )
        .sinks(&(file_sink("events", &good) + &file_sink("blocked", &dir.path().join("blocked/events.ndjson")) + &hooks))
        .start()
        .await;
    let sender = Sender::new(&gateway.url());
    let guarded = sender.at(&format!("http://{}/guarded?token=canarytoken", gateway.ingress));

    let mut replies = Vec::new();
    for action in ["cdr", "record", "voicemail", "imcdr", "videoCdr", "canaryfield", "specifiedSeat", ""] {
        replies.push(sender.once(action, &format!("id-{action}"), body()).await);
        replies.push(sender.once(action, &format!("id-{action}"), body().replace("canaryremark", "other")).await);
        replies.push(sender.once(action, &format!("bad-{action}"), "{\"canarybody\": canarybody").await);
        replies.push(
            sender.once(action, &format!("bad-{action}"), [b"{\"canarybody\": \"".as_slice(), &[0xff]].concat()).await,
        );
    }
    replies.push(sender.once("cdr", "large", format!("{{\"canarybody\":\"{}\"}}", "canarybody".repeat(200_000))).await);
    replies.push(
        sender.at(&format!("http://{}/canarytoken?x=canarytoken", gateway.ingress)).once("cdr", "i", body()).await,
    );
    for (user, password) in [("canaryuser", "canarytoken"), ("CanaryName", "canarysecret")] {
        let reply = reqwest::Client::new()
            .post(format!("http://{}/guarded?action=cdr", gateway.ingress))
            .basic_auth(user, Some(password))
            .body(body())
            .send()
            .await
            .unwrap();
        assert_eq!(reply.status(), 401);
        replies.push(Some((401, serde_json::Value::String(reply.text().await.unwrap()))));
    }
    replies.push(guarded.once("cdr", "unauthenticated", body()).await);
    wait_for_events(&good, 6).await;
    eventually("the broken sinks and the refused events are noticed", async || {
        let sinks = gateway.status().await["sinks"].clone();
        let is_broken = |name: &str| sinks[name]["state"] == "broken";
        (is_broken("blocked") && is_broken("away") && sinks["refusing"]["dead_letters"].as_u64() >= Some(6))
            .then_some(())
    })
    .await;

    let mut seen = gateway.get("/metrics").await.1.to_string();
    seen.push_str(&gateway.status().await.to_string());
    seen.push_str(&format!("{replies:?}"));
    gateway.terminate();
    gateway.ended().await;
    seen.push_str(&gateway.lines().join("\n"));
    for canary in CANARIES {
        let place = seen.find(canary).map(|at| seen[at.saturating_sub(200)..(at + 60).min(seen.len())].to_owned());
        assert_eq!(place, None, "{canary} is seen");
    }
}
