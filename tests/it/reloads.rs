//! A reload changes what runs without losing, delaying or redelivering a push; a bad config is refused whole.

use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{
    GatewayBuilder, Outcome, Sender, by_id, cdr, events, eventually, file_sink, folder, wait_for_events,
};

#[tokio::test]
async fn a_reload_under_load_loses_and_redelivers_nothing() {
    let dir = folder();
    let (first, second) = (dir.path().join("first.ndjson"), dir.path().join("second.ndjson"));
    let config = |round: usize| {
        let changing = file_sink("first", &first).replace("5ms", &format!("{}ms", 5 + round % 3));
        let coming_and_going = if round.is_multiple_of(2) { file_sink("second", &second) } else { String::new() };
        GatewayBuilder::new(dir.path()).sinks(&(changing + &coming_and_going))
    };
    let gateway = config(0).start().await;
    let mut senders = tokio::task::JoinSet::new();
    for number in 0..8 {
        let sender = Sender::new(&gateway.url()).without_resends();
        senders.spawn(async move {
            for push in 0..150 {
                let id = format!("push-{number}-{push}");
                assert_eq!(sender.push("cdr", &id, &cdr(&format!("s-{number}"), push)).await, Outcome::Acknowledged);
            }
        });
    }
    let mut round = 0;
    while !senders.is_empty() || round % 2 == 1 || round < 4 {
        round += 1;
        config(round).write();
        let (status, answer) = gateway.reload().await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["changed"], json!(["first"]), "{answer}");
        let came_or_went = if round.is_multiple_of(2) { &answer["added"] } else { &answer["removed"] };
        assert_eq!(*came_or_went, json!(["second"]), "{answer}");
        while senders.try_join_next().map(|ended| ended.unwrap()).is_some() {}
    }
    for path in [&first, &second] {
        wait_for_events(path, 1_200).await;
    }
    gateway.stop().await;
    for path in [&first, &second] {
        let events = events(path);
        let counts = by_id(&events);
        assert_eq!((counts.len(), events.len()), (1_200, 1_200), "every push once in {}", path.display());
        for session in 0..8 {
            let name = format!("s-{session}");
            let numbers = events.iter().filter(|event| event["subject"] == name.as_str());
            let numbers: Vec<_> = numbers.map(|event| event["data"]["duration_seconds"].as_u64()).collect();
            assert!(numbers.is_sorted(), "session {name} is out of order");
        }
    }
}

#[tokio::test]
async fn a_bad_config_is_refused_whole_and_said() {
    let dir = folder();
    let out = dir.path().join("events.ndjson");
    let builder = || GatewayBuilder::new(dir.path());
    let gateway = builder().expect_errors().start().await;
    let sender = Sender::new(&gateway.url());
    builder()
        .config("log.filter = \"nonsense=loud\"\nadmin.tokn = \"x\"\n[sources.other]\npath = \"/other\"")
        .sinks(&file_sink("renamed", &out))
        .write();
    let (status, problem) = gateway.reload().await;
    assert_eq!((status, problem["status"].as_u64()), (422, Some(422)));
    let problems: Vec<_> = problem["problems"].as_array().unwrap().iter().filter_map(|p| p.as_str()).collect();
    assert!(problems.iter().any(|problem| problem.contains("log.filter")), "{problems:?}");
    assert!(problems.iter().any(|problem| problem.contains("admin.tokn")), "{problems:?}");

    // Lines are written by a thread of their own, perhaps after the reply.
    let is_error = |line: &String| line.contains("\"level\":\"ERROR\"");
    let errors = eventually("the refusal is logged", async || {
        let errors: Vec<_> = gateway.lines().into_iter().filter(is_error).collect();
        (!errors.is_empty()).then_some(errors)
    })
    .await;
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("log.filter") && errors[0].contains("admin.tokn"), "{errors:?}");
    let other = sender.at(&format!("http://{}/other", gateway.ingress)).without_resends();
    assert_eq!(other.once("cdr", "p-0", cdr("s", 0)).await.unwrap().0, 404);
    assert_eq!(sender.push("cdr", "p-1", &cdr("s", 1)).await, Outcome::Acknowledged);
    wait_for_events(&out, 1).await;
    assert!(gateway.status().await["sinks"]["events"].is_object());
    gateway.stop().await;
}

#[tokio::test]
async fn a_swapped_symlink_is_noticed_within_ten_seconds() {
    let dir = folder();
    let path = |name: &str| dir.path().join(name);
    std::fs::create_dir(path("v1")).unwrap();
    std::fs::create_dir(path("v2")).unwrap();
    symlink("v1", path("..data")).unwrap();
    symlink("..data/gateway.toml", path("gateway.toml")).unwrap();
    let gateway = GatewayBuilder::new(dir.path()).start().await;
    let second = GatewayBuilder::new(dir.path()).sinks(&file_sink("second", &path("second.ndjson")));
    std::fs::write(path("v2/gateway.toml"), second.text()).unwrap();
    symlink("v2", path("..next")).unwrap();
    std::fs::rename(path("..next"), path("..data")).unwrap();

    let begun = Instant::now();
    eventually("the new sink runs in place of the old one", async || {
        let sinks = gateway.status().await["sinks"].clone();
        (sinks["second"].is_object() && sinks["events"].is_null()).then_some(())
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    gateway.stop().await;
}

#[tokio::test]
async fn credentials_follow_sighup_and_a_changed_secret_file() {
    let dir = folder();
    let secret = dir.path().join("password");
    std::fs::write(&secret, "first\n").unwrap();
    let gateway = GatewayBuilder::new(dir.path()).start().await;
    let client = reqwest::Client::new();
    let push = async |password: &str| {
        let request = client.post(format!("{}?action=cdr", gateway.url())).basic_auth("tccc", Some(password));
        let id = format!("push-{password}");
        request.header("x-tccc-push-uuid", id).body(cdr("s", 1)).send().await.unwrap().status().as_u16()
    };
    assert_eq!(push("none").await, 200);
    let auth = format!(
        "auth = {{ type = \"basic\", username = \"tccc\", password = {{ file = {:?} }} }}\n",
        secret.display().to_string()
    );
    let out = dir.path().join("events.ndjson");
    // Keys that follow the path belong to the source.
    GatewayBuilder::new(dir.path()).sinks(&(auth + &file_sink("events", &out))).write();
    gateway.hang_up();
    eventually("the wrong password is refused", async || (push("none").await != 200).then_some(())).await;
    assert_eq!(push("first").await, 200);

    std::fs::write(&secret, "second\n").unwrap();
    eventually("the new password passes", async || (push("second").await == 200).then_some(())).await;
    assert_ne!(push("first").await, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn a_removed_sink_keeps_its_place_until_it_is_forgotten() {
    let dir = folder();
    let (kept, gone) = (dir.path().join("kept.ndjson"), dir.path().join("gone.ndjson"));
    let one = || GatewayBuilder::new(dir.path()).sinks(&file_sink("kept", &kept));
    let both = || {
        let second = file_sink("gone", &gone).replace("\"oldest\"", "\"now\"");
        GatewayBuilder::new(dir.path()).sinks(&(file_sink("kept", &kept) + &second))
    };
    let gateway = both().start().await;
    let sender = Sender::new(&gateway.url());
    let forget = async || gateway.call("POST", "/api/v1/sinks/gone/forget", None, "").await.0;
    let has_series = async || gateway.get("/metrics").await.1.as_str().unwrap().contains("sink=\"gone\"");
    assert_eq!(sender.push("cdr", "p-1", &cdr("s", 1)).await, Outcome::Acknowledged);
    wait_for_events(&gone, 1).await;
    assert_eq!(forget().await, 409);

    one().write();
    assert_eq!(gateway.reload().await.1["removed"], json!(["gone"]));
    assert!(!has_series().await);
    assert_eq!(sender.push("cdr", "p-2", &cdr("s", 2)).await, Outcome::Acknowledged);
    both().write();
    assert_eq!(gateway.reload().await.1["added"], json!(["gone"]));
    assert!(has_series().await);
    let events = wait_for_events(&gone, 2).await;
    assert_eq!(events.len(), 2, "what came before is not delivered again");

    one().write();
    assert_eq!(gateway.reload().await.0, 200);
    assert_eq!(sender.push("cdr", "p-3", &cdr("s", 3)).await, Outcome::Acknowledged);
    assert_eq!((forget().await, forget().await), (200, 404));
    both().write();
    assert_eq!(gateway.reload().await.0, 200);
    assert_eq!(sender.push("cdr", "p-4", &cdr("s", 4)).await, Outcome::Acknowledged);
    let events = wait_for_events(&gone, 3).await;
    assert!(!by_id(&events).contains_key("p-3"), "a forgotten sink begins as a new one");
    wait_for_events(&kept, 4).await;
    gateway.stop().await;
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_the_rest_goes_through() {
    let dir = folder();
    let gateway = GatewayBuilder::new(dir.path()).start().await;
    GatewayBuilder::new(dir.path())
        .config("ingress.connections_max = 77\njournal.size_max = \"1GiB\"\n[sources.second]\npath = \"/second\"")
        .write();
    let (status, answer) = gateway.reload().await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["needs_restart"], json!(["ingress.connections_max", "journal.size_max"]));
    let (_, _, config) = gateway.call("GET", "/api/v1/config", None, "").await;
    assert_eq!(config["ingress"]["connections_max"], 10_000);
    assert_eq!(config["sources"]["second"]["path"], "/second");
    let second = Sender::new(&format!("http://{}/second", gateway.ingress));
    assert_eq!(second.push("cdr", "p-1", &cdr("s", 1)).await, Outcome::Acknowledged);
    let is_told = |line: &String| line.contains("WARN") && line.contains("ingress.connections_max");
    eventually("the log says so", async || gateway.lines().iter().any(is_told).then_some(())).await;
    gateway.stop().await;
}
