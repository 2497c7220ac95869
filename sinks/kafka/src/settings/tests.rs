//! What `check` says, and what the effective config shows.

use sink_api::{Context, Format, SinkKind as _};

use super::*;
use crate::Kafka;

fn settings(toml: &str) -> Settings {
    toml::from_str(&format!("brokers = \"k1:9092\"\n{toml}")).unwrap()
}

fn problems(settings: &Settings, format: Format) -> Vec<(String, String)> {
    let context = Context { name: "events".into(), format };
    Kafka::check(settings, &context).into_iter().map(|problem| (problem.path, problem.message)).collect()
}

#[test]
fn the_example_is_sound_and_names_every_setting() {
    let example: toml::Table = include_str!("../../example.toml").parse().unwrap();
    let table = example["sinks"]["stream"]["settings"].clone();
    let settings: Settings = table.try_into().unwrap();
    assert_eq!(problems(&settings, Format::CloudEvents), []);
    let shown = toml::Table::try_from(&settings).unwrap();
    let keys: Vec<&str> = shown.keys().map(String::as_str).collect();
    assert_eq!(keys, ["brokers", "mode", "properties", "sasl", "tls", "topic", "transactional"]);
}

#[test]
fn everything_wrong_is_found_at_once() {
    let mut settings = settings(
        "topic = \"a b.{day}\"\nmode = \"structured\"\ntls = { cert_file = \"c\" }\n\
         sasl = { mechanism = \"OAUTHBEARER\", token_url = \"ftp://x\", client_id = \"\", client_secret = \"s\" }\n\
         properties = { acks = 1, \"no.such\" = \"x\" }",
    );
    settings.brokers = "k1:9092,k2".into();
    let found = problems(&settings, Format::Raw);
    let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    let expected = [
        "brokers",
        "topic",
        "mode",
        "tls.key_file",
        "sasl.token_url",
        "sasl.client_id",
        "properties.acks",
        "properties.no.such",
    ];
    assert_eq!(paths, expected);
    assert_eq!(found[0].1, "\"k2\" is not host:port");
}

#[test]
fn secrets_are_not_shown() {
    let settings = settings(
        "sasl = { mechanism = \"PLAIN\", username = \"u\", password = \"hunter2\" }\n\
         properties = { \"ssl.key.password\" = \"hunter2\", \"linger.ms\" = 7, \"client.id\" = { env = \"ID\" } }",
    );
    let shown = toml::to_string(&settings).unwrap();
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(!format!("{settings:?}").contains("hunter2"));
    assert!(shown.contains("\"linger.ms\" = 7"), "{shown}");
    assert!(shown.contains("env = \"ID\""), "{shown}");
}

#[test]
fn a_record_waits_as_long_as_the_properties_say() {
    assert_eq!(settings("").message_timeout(), MESSAGE_TIMEOUT);
    for name in properties::MESSAGE_TIMEOUT_NAMES {
        let settings = settings(&format!("properties = {{ \"{name}\" = 3000 }}"));
        assert_eq!(settings.message_timeout(), Duration::from_secs(3));
    }
}
