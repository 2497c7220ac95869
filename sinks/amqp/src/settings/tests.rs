use super::*;

fn settings(toml: &str) -> Settings {
    let url = if toml.contains("url") { "" } else { "url = \"amqp://h\"\n" };
    toml::from_str(&format!("{url}{toml}")).unwrap()
}

fn problems_of(toml: &str, format: Format) -> Vec<(String, String)> {
    let context = Context { name: "queue".into(), format };
    settings(toml).problems(&context).into_iter().map(|problem| (problem.path, problem.message)).collect()
}

fn paths(toml: &str) -> Vec<String> {
    problems_of(toml, Format::CloudEvents).into_iter().map(|(path, _)| path).collect()
}

#[test]
fn the_example_is_sound_and_holds_every_setting() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/example.toml")).unwrap();
    let example: toml::Table = text.parse().unwrap();
    let table = example["sinks"]["queue"]["settings"].as_table().unwrap().clone();
    let read: Settings = table.clone().try_into().unwrap();
    assert_eq!(read.problems(&Context { name: "queue".into(), format: Format::CloudEvents }), []);
    let shown = toml::Table::try_from(&read).unwrap();
    assert_eq!(shown.keys().collect::<Vec<_>>(), table.keys().collect::<Vec<_>>());
    assert_eq!(shown["declare"].as_table().unwrap().len(), 4);
    assert_eq!(shown["tls"].as_table().unwrap().len(), 3);
}

#[test]
fn little_needs_to_be_said() {
    let plain = settings("exchange = \"e\"");
    assert_eq!(plain.problems(&Context { name: "queue".into(), format: Format::Raw }), []);
    assert_eq!((plain.mode, plain.routing_key.as_str(), plain.unconfirmed_max), (Mode::Binary, "tccc.{action}", 1000));
    assert!(toml::from_str::<Settings>("url = \"amqp://h\"").is_err(), "an exchange has to be named");
    assert!(toml::from_str::<Settings>("url = \"amqp://h\"\nexchange = \"\"\nmandatory = false").is_err());
}

#[test]
fn what_is_wrong_is_named() {
    let wrong = [
        ("url = \"http://h\"\nexchange = \"e\"", "url"),
        ("exchange = \"{tenant}\"", "exchange"),
        ("exchange = \"e\"\nrouting_key = \"a b\"", "routing_key"),
        ("exchange = \"{source}\"\ndeclare = {}", "declare"),
        ("exchange = \"\"\ndeclare = {}", "declare"),
        ("exchange = \"e\"\ndeclare = { queue = \"\" }", "declare.queue"),
        ("exchange = \"e\"\ndeclare = { queue = \"q\", binding = \"a b\" }", "declare.binding"),
        ("exchange = \"e\"\ntimeout = \"0s\"", "timeout"),
        ("exchange = \"e\"\nconnect_timeout = \"0s\"", "connect_timeout"),
        ("exchange = \"e\"\nunconfirmed_max = 0", "unconfirmed_max"),
        ("exchange = \"e\"\ntls = {}", "tls"),
        ("url = \"amqps://h\"\nexchange = \"e\"\ntls = { cert_file = \"c\" }", "tls.key_file"),
        ("url = \"amqps://h\"\nexchange = \"e\"\ntls = { key_file = \"k\" }", "tls.cert_file"),
    ];
    for (toml, path) in wrong {
        assert_eq!(paths(toml), [path], "{toml}");
    }
}

#[test]
fn structured_mode_needs_whole_events() {
    let found = problems_of("exchange = \"e\"\nmode = \"structured\"", Format::Raw);
    assert_eq!(found[0].0, "mode");
    assert_eq!(problems_of("exchange = \"e\"\nmode = \"structured\"", Format::CloudEvents), []);
}

#[test]
fn the_effective_settings_show_no_credentials() {
    let secret = settings("url = \"amqps://canaryuser:canarypassword@h:1/v?heartbeat=5\"\nexchange = \"e\"");
    let shown = toml::to_string(&secret).unwrap();
    assert!(shown.contains("amqps://***@h:1/v"), "{shown}");
    assert!(!format!("{shown}{secret:?}").contains("canary"), "{shown}");
}
