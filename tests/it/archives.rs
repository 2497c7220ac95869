//! The archive in object storage: exactly what was acknowledged, each event once, whatever is killed; and no credential anywhere.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use test_servers::process::installed;
use test_servers::s3::{ACCESS_KEY_ID, S3, SECRET_ACCESS_KEY};

use crate::support::{Gateway, GatewayBuilder, Run, SESSIONS, Sender, cdr, eventually, folder, trunkline};

const PUSHES: u64 = 2_000;

/// An archive with small batches in a bucket of `server`.
fn in_bucket(name: &str, server: &S3, secret: &str, more: &str) -> String {
    let (addr, bucket) = (server.endpoint(), "archive");
    archive(
        name,
        &format!(
            "provider = \"s3\"\nbucket = \"{bucket}\"\nendpoint = \"{addr}\"\nregion = \"us-east-1\"\npath_style = true\n\
             access_key_id = \"{ACCESS_KEY_ID}\"\nsecret_access_key = \"{secret}\"\n{more}"
        ),
    )
}

fn archive(name: &str, settings: &str) -> String {
    format!(
        "[sinks.{name}]\ntype = \"object\"\nstart = \"oldest\"\nbatch = {{ events_max = 150, linger = \"100ms\" }}\n\
         retry = {{ delay_min = \"50ms\", delay_max = \"1s\" }}\n[sinks.{name}.settings]\n{settings}\n"
    )
}

/// How often each event is in the archive below `dir`, as DuckDB reads it.
fn archived(dir: &Path) -> HashMap<String, usize> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("sinks/object/tests/object/read.py");
    let output = Command::new(installed("python/bin/python")).arg(script).arg(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut counts = HashMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        *counts.entry(line["event"]["id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

async fn wait_until_settled(gateway: &Gateway, names: &[&str]) {
    eventually("every event is archived", async || {
        let sinks = gateway.status().await["sinks"].clone();
        names.iter().all(|name| sinks[name]["pending"].as_u64() == Some(0)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_holds_each_acknowledged_event_once_whatever_is_killed() {
    let dir = folder();
    let server = S3::start(&["archive"]);
    let on_disk = dir.path().join("archive");
    let parquet = format!("provider = \"disk\"\nroot = {:?}\nfile_format = \"parquet\"", on_disk.display().to_string());
    let sinks = in_bucket("lines", &server, SECRET_ACCESS_KEY, "") + &archive("columns", &parquet);
    let start = || GatewayBuilder::new(dir.path()).sinks(&sinks).start();

    let mut run = Run::begin(start().await, PUSHES, SESSIONS);
    for percent in [25, 50, 75] {
        run.until(percent).await;
        run.restart(start).await;
    }
    let (gateway, expected) = run.end().await;
    wait_until_settled(&gateway, &["lines", "columns"]).await;
    gateway.stop().await;

    for place in [server.bucket_dir("archive"), on_disk] {
        let counts = archived(&place);
        let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "{}: more than once: {twice:?}", place.display());
        let found: HashSet<String> = counts.into_keys().collect();
        assert!(found == expected, "{}: {} of {} events", place.display(), found.len(), expected.len());
    }
}

#[tokio::test]
async fn credentials_from_the_environment_will_do() {
    let dir = folder();
    let server = S3::start(&["archive"]);
    let settings = format!(
        "provider = \"s3\"\nbucket = \"archive\"\nendpoint = \"{}\"\npath_style = true\ncompression = \"gzip\"",
        server.endpoint()
    );
    let gateway = GatewayBuilder::new(dir.path())
        .sinks(&archive("lines", &settings))
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
        .env("AWS_REGION", "us-east-1")
        .start()
        .await;
    Sender::new(&gateway.url()).push("cdr", "push-1", &cdr("s", 1)).await;
    wait_until_settled(&gateway, &["lines"]).await;
    gateway.stop().await;
    assert_eq!(archived(&server.bucket_dir("archive")), HashMap::from([("push-1".to_owned(), 1)]));
}

#[tokio::test]
async fn no_credential_of_a_store_is_seen_anywhere() {
    let dir = folder();
    let server = S3::start(&["archive"]);
    let key = "Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5MDA=";
    let cos = "provider = \"cos\"\nbucket = \"archive-1250000000\"\nendpoint = \"http://cos.invalid\"\n\
               access_key_id = \"canary-cos-id\"\nsecret_access_key = \"canary-cos-key\"\nsession_token = \"canary-cos-token\"";
    let customer = format!(
        "provider = \"s3\"\nbucket = \"archive\"\nendpoint = \"https://127.0.0.1:9\"\npath_style = true\n\
         access_key_id = \"canary-id\"\nsecret_access_key = {{ env = \"CANARY\" }}\nsession_token = \"canary-token\"\n\
         encryption = {{ type = \"customer\", key = \"{key}\" }}"
    );
    let sinks = in_bucket("sound", &server, SECRET_ACCESS_KEY, "")
        + &in_bucket("wrong", &server, "canary-wrong-secret", "key = \"wrong/{shard}-{first}-{last}\"")
        + &archive("cos", cos)
        + &archive("customer", &customer);
    let builder = || {
        let traced = GatewayBuilder::new(dir.path()).config("log.filter = \"trace\"").sinks(&sinks);
        traced.env("CANARY", "canary-by-environment")
    };
    let mut gateway = builder().start().await;
    Sender::new(&gateway.url()).push("cdr", "push-1", &cdr("s", 1)).await;
    eventually("one sink delivers and the others are broken", async || {
        let sinks = gateway.status().await["sinks"].clone();
        let broken = ["wrong", "cos", "customer"].iter().all(|name| sinks[name]["state"] == "broken");
        (broken && sinks["sound"]["delivered"].as_u64() == Some(1)).then_some(())
    })
    .await;

    let status = gateway.status().await;
    assert!(status["sinks"]["wrong"]["last_error"].to_string().contains("bad-credentials"), "{status:#}");
    let mut seen = status.to_string();
    for path in ["/metrics", "/api/v1/config"] {
        seen.push_str(&gateway.get(path).await.1.to_string());
    }
    gateway.terminate();
    gateway.ended().await;
    seen.push_str(&gateway.lines().join("\n"));
    let check = trunkline()
        .args(["--config", &dir.path().join("gateway.toml").display().to_string(), "check", "--connect"])
        .env("CANARY", "canary-by-environment")
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert_eq!(check.status.code(), Some(69), "{}", String::from_utf8_lossy(&check.stderr));
    seen.push_str(&String::from_utf8_lossy(&check.stdout));
    seen.push_str(&String::from_utf8_lossy(&check.stderr));
    assert!(seen.contains("bad-credentials") && seen.contains("{shard}"), "the places that are looked at are empty");
    for secret in ["canary-", key, SECRET_ACCESS_KEY, "Signature=", "q-signature="] {
        let place = seen.find(secret).map(|at| seen[at.saturating_sub(200)..(at + 60).min(seen.len())].to_owned());
        assert_eq!(place, None, "{secret} is seen");
    }
}
