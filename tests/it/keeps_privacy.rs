//! Personal data stays in: unique values are pushed through every path, good and bad, and none may show in output or metrics.

use serde_json::Value;

use crate::support::{Gateway, GatewayBuilder, Receiver, Sender, eventually, file_sink, folder, wait_for_events};

/// What must never be seen.
const CANARIES: [&str; 11] = [
    "0086canaryphone",
    "canary.mail@example.com",
    "CanaryName",
    "canaryremark",
    "canarytoken",
    "canarybody",
    "canarysecret",
    "canaryfield",
    "canaryuser",
    "canaryclientsecret",
    "canarybearer",
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
            "log.filter = \"trace\"\n[sources.guarded]\npath = \"/guarded\"\nauth = { type = \"basic\", username = \"canaryuser\", password = \"canarysecret\" }\n\
             [sources.oauth]\npath = \"/oauth\"\n[sources.oauth.auth]\ntype = \"oauth2\"\nclient_id = \"canaryuser\"\nclient_secret = \"canaryclientsecret\"\n\
             [sources.jwt]\npath = \"/jwt\"\n[sources.jwt.auth]\ntype = \"jwt\"\nissuer = \"i\"\naudience = \"a\"\njwks_url = \"http://127.0.0.1:9/canarytoken?canarytoken\"",
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
        replies.push(Some((401, Value::String(reply.text().await.unwrap()))));
    }
    replies.push(guarded.once("cdr", "unauthenticated", body()).await);
    let token = use_tokens(&gateway, &mut replies).await;
    wait_for_events(&good, 7).await;
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
    for canary in CANARIES.into_iter().chain(token.split('.')) {
        let place = seen.find(canary).map(|at| seen[at.saturating_sub(200)..(at + 60).min(seen.len())].to_owned());
        assert_eq!(place, None, "{canary} is seen");
    }
}

/// Fetches a token rightly and wrongly, pushes with it and with others; returns it.
async fn use_tokens(gateway: &Gateway, replies: &mut Vec<Option<(u16, Value)>>) -> String {
    let client = reqwest::Client::new();
    let url = |path: &str| format!("http://{}{path}", gateway.ingress);
    let mut token = String::new();
    for (query, secret) in [("", "canaryclientsecret"), ("", "canarybearer"), ("?client_secret=canarytoken", "")] {
        let form = format!("grant_type=client_credentials&client_id=canaryuser&client_secret={secret}");
        let reply = client
            .post(url(&format!("/oauth/token{query}")))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form)
            .send()
            .await
            .expect("a reply");
        let (status, text) = (reply.status().as_u16(), reply.text().await.expect("a body"));
        if status == 200 {
            let reply: Value = serde_json::from_str(&text).expect("JSON");
            token = reply["access_token"].as_str().expect("a token").to_owned();
        } else {
            replies.push(Some((status, Value::String(text))));
        }
    }
    let tampered = format!("{token}canarybearer");
    for (path, token, status) in [
        ("/oauth", &*token, 200),
        ("/oauth", &tampered, 401),
        ("/oauth", "canarybearer", 401),
        ("/jwt", &token, 401),
        ("/jwt", "canarybearer", 401),
    ] {
        let request = client.post(url(&format!("{path}?action=cdr"))).bearer_auth(token);
        let reply = request.body("{\"canaryfield\":1}").send().await.expect("a reply");
        assert_eq!(reply.status(), status, "{path}");
        replies.push(Some((status, Value::String(reply.text().await.expect("a body")))));
    }
    token
}
