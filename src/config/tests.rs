//! Layers, secrets, and the config file that is shipped.

use std::ffi::OsString;
use std::sync::Arc;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use sink_api::settings::{Period, Secret, Size};
use sink_api::{BuildError, Context, Problem, Sink, SinkKind};

use super::model::{Auth, RawSettings, Source};
use super::*;

/// A kind of sink whose settings have a bit of everything.
pub(super) struct TestKind;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestSettings {
    path: String,
    rotate_size_max: Option<Size>,
    rotate_age_max: Option<Period>,
    token: Option<Secret>,
    tries: Option<u32>,
}

impl SinkKind for TestKind {
    const KIND: &'static str = "test";
    type Settings = TestSettings;

    fn check(settings: &TestSettings, _context: &Context) -> Vec<Problem> {
        let mut problems = Vec::new();
        if settings.rotate_size_max == Some(Size(0)) {
            let message = "found 0B, must be more".to_owned();
            problems.push(Problem { path: "rotate_size_max".to_owned(), message });
        }
        if let Some(Secret::Inline(token)) = &settings.token {
            use secrecy::ExposeSecret;
            let message = format!("{} is too weak", token.expose_secret());
            problems.push(Problem { path: "token".to_owned(), message });
        }
        problems
    }

    fn build(_settings: TestSettings, _context: Context) -> Result<Arc<dyn Sink>, BuildError> {
        Err(BuildError("for reading only".to_owned()))
    }
}

pub(super) fn kinds() -> Kinds {
    Kinds::new(vec![Kind::of::<TestKind>()])
}

pub(super) const BASE: &str = "[sources.main]\npath = \"/push\"\n";

fn read(text: &str, env: &[(&str, &str)], overrides: &[&str]) -> Result<Loaded, Problems> {
    read_with(&kinds(), text, env, overrides)
}

fn read_with(kinds: &Kinds, text: &str, env: &[(&str, &str)], overrides: &[&str]) -> Result<Loaded, Problems> {
    let env = env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let overrides: Vec<String> = overrides.iter().map(|argument| (*argument).to_owned()).collect();
    parse("gateway.toml", text, &overrides, env, kinds)
}

fn problems(text: &str, env: &[(&str, &str)], overrides: &[&str]) -> String {
    read(text, env, overrides).err().map(|problems| problems.to_string()).unwrap_or_default()
}

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
    let text = format!("{BASE}[ingress]\nlisten = \"127.0.0.1:1\"\nbody_timeout = \"1s\"\nidle_timeout = \"1s\"\n");
    let env = [
        ("TRUNKLINE__INGRESS__BODY_TIMEOUT", "2s"),
        ("TRUNKLINE__INGRESS__IDLE_TIMEOUT", "2s"),
        ("TRUNKLINE_ADMIN_TOKEN", "not config"),
        ("TRUNKLINE_CRASH_AT", "not config"),
    ];
    let config = read(&text, &env, &["ingress.idle_timeout=3s"]).unwrap_or_else(|p| panic!("{p}")).config;
    assert_eq!(config.ingress.listen.port(), 1);
    assert_eq!(config.ingress.body_timeout, Period::from_secs(2));
    assert_eq!(config.ingress.idle_timeout, Period::from_secs(3));
}

#[test]
fn text_from_outside_is_read_as_what_the_key_asks_for() {
    let env = [
        ("TRUNKLINE__SINKS__MY_SINK__TYPE", "test"),
        ("TRUNKLINE__SINKS__MY_SINK__CONCURRENCY", "7"),
        ("TRUNKLINE__SINKS__MY_SINK__SETTINGS__PATH", "007"),
        ("TRUNKLINE__SINKS__MY_SINK__SETTINGS__TRIES", "007"),
        ("TRUNKLINE__SINKS__MY_SINK__SOURCES", "main, other"),
        ("TRUNKLINE__INGRESS__HTTP2", "true"),
        ("TRUNKLINE__INGRESS__BODY_SIZE_MAX", "2097152"),
        ("TRUNKLINE__ADMIN__TOKEN", "007"),
    ];
    let overrides = [
        "sources.other.path=/other",
        "sources.other.auth={ type = \"basic\", username = \"u\", password = \"p\" }",
        "sources.main.actions=[\"cdr\", \"record\"]",
        "ingress.trusted_proxies=10.0.0.0/8,192.168.0.0/16",
        "sinks.my-sink.type=test",
        "sinks.my-sink.settings.path=x=y",
        "sinks.my_sink.retry={ attempts_max = 3 }",
    ];
    let said = problems(BASE, &[], &["admin.token={ env = \"T\" }"]);
    assert!(said.ends_with("written as text; set admin.token.env instead (from --set)"), "{said}");
    // `tries` is text that has to become a number; TOML knows no leading zeros.
    let said = problems(BASE, &env, &overrides);
    assert!(said.contains("sinks.my_sink.settings.tries: found \"007\"; expected a whole number"), "{said}");
    let env = env.map(|(name, value)| (name, if name.ends_with("TRIES") { "7" } else { value }));
    let loaded = read(BASE, &env, &overrides).unwrap_or_else(|p| panic!("{p}"));
    let config = &loaded.config;
    let sink = &config.sinks["my_sink"];
    assert_eq!((sink.concurrency, sink.retry.attempts_max), (7, 3));
    assert_eq!(sink.sources.as_ref().unwrap().len(), 2);
    let settings = loaded.settings["my_sink"].effective().unwrap();
    assert_eq!((settings["path"].as_str(), settings["tries"].as_integer()), (Some("007"), Some(7)));
    assert_eq!(loaded.settings["my-sink"].effective().unwrap()["path"].as_str(), Some("x=y"));
    assert_eq!(config.sources["main"].actions.as_ref().unwrap(), &["cdr", "record"]);
    assert_eq!(config.sources["other"].auth, Auth::Basic { username: "u".to_owned(), password: "p".into() });
    assert_eq!((config.ingress.http2, config.ingress.body_size_max), (true, Size(2 << 20)));
    assert_eq!(config.ingress.trusted_proxies.len(), 2);
    assert_eq!(config.admin.token, Some("007".into()));
}

#[test]
fn mistakes_from_outside_name_where_they_came_from() {
    let env = [
        ("TRUNKLINE__INGRESS__LISTN", "127.0.0.1:1"),
        ("TRUNKLINE__INGRESS__HTTP2", "perhaps"),
        ("TRUNKLINE__INGRESS____X", "1"),
        ("trunkline__drain", "now"),
    ];
    let said = problems(
        BASE,
        &env,
        &["log.format", "log.format=colourful", "sources.main.auth.type=none", "sources.main.auth={}"],
    );
    for line in [
        "ingress.listn: unknown key, did you mean `listen`?",
        "(from env TRUNKLINE__INGRESS__LISTN)",
        "ingress.http2: found \"perhaps\"; expected true or false (from env TRUNKLINE__INGRESS__HTTP2)",
        "the variable TRUNKLINE__INGRESS____X names no key",
        "drain: found a string; expected a table (from env trunkline__drain)",
        "--set number 1 is not key=value",
        "log.format: found \"colourful\"; known: auto, text, json (from --set)",
        "sources.main.auth.type: set together with sources.main.auth, which holds it (from --set)",
    ] {
        assert!(said.contains(line), "{line} is missing in\n{said}");
    }
}

#[test]
fn a_missing_file_is_said_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gateway.toml");
    let said = load(&file, &[], [], &kinds()).err().unwrap().to_string();
    assert!(said.contains("cannot be read") && said.contains("--config FILE"), "{said}");
    std::fs::write(&file, BASE).unwrap();
    assert!(load(&file, &[], [], &kinds()).is_ok());
}

#[test]
fn what_is_odd_is_warned_of() {
    let warned = |text: &str| {
        let loaded = read(text, &[], &[]).unwrap_or_else(|p| panic!("{p}"));
        loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let [no_sink] = &warned(BASE)[..] else { panic!("one warning") };
    assert!(no_sink.starts_with("sinks: no sink"), "{no_sink}");
    let sink = "[sinks.a]\ntype = \"test\"\nsettings = { path = \"x\" }\n";
    let warnings = warned(&format!("{BASE}{sink}actions = [\"CDR\", \"recrod\", \"brand.new\"]\n"));
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("sinks.a.actions[1]: \"recrod\" is no known action, did you mean \"record\"?"));
    let content = "when = 'data.directon == \"inbound\" && has(data.extra.Any) && data.participants[0].email != \"\"'\n\
                   [sinks.a.mask]\nparticipants.email = \"drop\"\n\"participants[].email\" = \"drop\"\n\"extra.Any\" = \"last4\"\n\
                   \"participants[].extra.Any[].X\" = \"last4\"\ncallr = \"drop\"\n";
    let content = content.replace("participants.email", "\"participants.email\"");
    let warnings = warned(&format!("{BASE}{sink}{content}"));
    assert_eq!(warnings.len(), 3, "{warnings:#?}");
    for part in [
        "sinks.a.when: asks for data.directon, which no event has, did you mean `direction`?",
        "sinks.a.mask.callr: masks nothing that any event has, did you mean `caller`?",
        "sinks.a.mask.\"participants.email\": masks nothing that any event has, did you mean `participants[].email`?",
    ] {
        assert!(warnings.iter().any(|warning| warning.starts_with(part)), "{part} is not in {warnings:#?}");
    }
}

const CANARY: &str = "c4naryS3cret";

/// Configs with a secret in the right places, in wrong ones, and beside faults.
const CANARY_CONFIGS: [&str; 15] = [
    "[admin]\ntoken = \"CANARY\n",
    "[admin]\ntoken = CANARY\n",
    "[admin]\ntoken \"CANARY\"\n",
    "[admin]\ntoken = \"\"\"\nCANARY\nCANARY=\n\"\"\" x\n",
    "[admin]\ntokn = \"CANARY\"\n",
    "[admin]\ntoken = { evn = \"CANARY\" }\n",
    "[admin]\ntoken = [\"CANARY\"]\n",
    "[sources.main]\npath = \"push?token=CANARY\"\n",
    "[sources.main]\npath = \"/p\"\nauth = \"basic:CANARY\"\n",
    "[sources.main]\npath = \"/p\"\nauth = { type = \"basic\", password = \"CANARY\" }\n",
    "[sources.main]\npath = \"/p\"\nauth = { type = \"basic\", username = 1, password = \"CANARY\" }\n",
    "[sources.main]\npath = \"/p\"\nauth = { type = \"none\", password = \"CANARY\" }\n",
    "[sinks.a]\ntype = \"test\"\nsettings = { path = \"x\", token = \"CANARY\", tries = \"http://u:CANARY@h/?x=CANARY\" }\n",
    "[sinks.a]\ntype = \"test\"\nsettings = \"token=CANARY\"\n",
    "[sinks.a]\ntype = \"test\"\nmask = { caller = { hmac_key = \"CANARY\", x = 1 }, callee = { hmac_kye = \"CANARY\" } }\n",
];

#[test]
fn no_problem_ever_quotes_a_secret() {
    for text in CANARY_CONFIGS {
        let said = problems(&text.replace("CANARY", CANARY), &[], &[]);
        assert!(!said.is_empty() && !said.contains(CANARY), "{text}\n{said}");
    }
    let env = [
        ("TRUNKLINE__ADMIN__TOKEN__ENV__X", CANARY),
        ("TRUNKLINE__ADMIN__PASSWORD", CANARY),
        ("TRUNKLINE__SOURCES__MAIN__AUTH", CANARY),
        ("TRUNKLINE__SINKS", CANARY),
    ];
    let set = format!("admin.token:{CANARY}");
    let said = problems(BASE, &env, &[&set]);
    assert!(said.lines().count() >= 5 && !said.contains(CANARY), "{said}");
}

proptest! {
    /// Whatever a secret looks like, it is taken as it is, from wherever, and shown nowhere.
    #[test]
    fn a_secret_stays_as_it_is_and_hidden(secret in "[!-~]{12,24}") {
        let env = [("TRUNKLINE__ADMIN__TOKEN", secret.as_str())];
        let loaded = read(BASE, &env, &[]).unwrap_or_else(|p| panic!("{p}"));
        prop_assert_eq!(&loaded.config.admin.token, &Some(secret.as_str().into()));
        let shown = effective(&loaded).unwrap() + &format!("{:?}", loaded.config);
        prop_assert!(!shown.contains(&secret));
        let said = problems(BASE, &env, &["sources.main.path=x"]);
        prop_assert!(said.starts_with("sources.main.path: ") && !said.contains(&secret));
    }

    /// No text at all makes the loading panic.
    #[test]
    fn any_text_is_read_or_refused(text in r#"(\[[a-z]{1,8}(\.[a-z]{1,4})?\]\n|(listen|path|type|auth|sinks|settings|[a-z]{1,6}) = ("[a-z:/]{0,6}"|[0-9]{1,4}|true|\[1, "a"\]|\{ type = "basic" \})\n){0,12}"#) {
        let said = problems(&text, &[], &[]);
        prop_assert!(!said.is_empty() || text.contains("path"));
    }
}

#[test]
fn the_effective_config_has_all_defaults_masks_secrets_and_loads_again() {
    let text = format!(
        "{BASE}auth = {{ type = \"basic\", username = \"u\", password = \"{CANARY}\" }}\n[admin]\ntoken = {{ env = \"T\" }}\n\
         [sinks.a]\ntype = \"test\"\nsettings = {{ path = \"amqp://u:{CANARY}@host/x\", rotate_age_max = \"1h\", token = {{ file = \"f\" }} }}\n"
    );
    let loaded = read(&text, &[], &[]).unwrap_or_else(|p| panic!("{p}"));
    let shown = effective(&loaded).unwrap();
    assert!(!shown.contains(CANARY), "{shown}");
    for part in
        ["password = \"***\"", "env = \"T\"", "amqp://***@host/x", "rotate_age_max = \"1h\"", "window = \"24h\""]
    {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
    let again = read(&shown, &[], &[]).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(effective(&again).unwrap(), shown);
    assert!(!format!("{:?}", loaded.config).contains(CANARY));
}

#[test]
fn references_that_lead_nowhere_are_all_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(file("good"), "secret\n").unwrap();
    std::fs::write(file("empty"), "\n").unwrap();
    let text = format!(
        "{BASE}auth = {{ type = \"basic\", username = \"u\", password = {{ file = \"{}\" }} }}\n\
         [ingress]\ntls = {{ cert_file = \"{}\", key_file = \"{}\" }}\n[admin]\ntoken = {{ env = \"TRUNKLINE_NOT_SET_ANYWHERE\" }}\n\
         [sinks.a]\ntype = \"test\"\nsettings = {{ path = \"x\", token = {{ file = \"{}\" }} }}\n",
        file("empty"),
        file("good"),
        file("no.key"),
        file("gone"),
    );
    let loaded = read(&text, &[], &[]).unwrap_or_else(|p| panic!("{p}"));
    let problems = resolve_secrets(&loaded).unwrap_err();
    let mut paths: Vec<String> = problems.iter().map(|problem| problem.path.to_string()).collect();
    paths.sort();
    let expected = ["admin.token", "ingress.tls.key_file", "sinks.a.settings.token", "sources.main.auth.password"];
    assert_eq!(paths, expected, "{problems}");
    std::fs::write(file("empty"), "secret").unwrap();
    std::fs::write(file("no.key"), "").unwrap();
    std::fs::write(file("gone"), "secret").unwrap();
    assert_eq!(resolve_secrets(&loaded).unwrap_err().len(), 1);
}

const SHIPPED: &str = include_str!("../../gateway.toml");

fn read_shipped(text: &str, overrides: &[&str]) -> Result<Loaded, Problems> {
    read_with(&crate::sinks::kinds(), text, &[], overrides)
}

/// The shipped file with the keys and tables that are commented out put in.
fn shipped_in_full() -> String {
    let is_table = |line: &str| line.starts_with("# [") && line.ends_with(']');
    let is_key = |line: &str| {
        line.strip_prefix("# ").and_then(|line| line.split_once(" = ")).is_some_and(|(key, _)| {
            key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        })
    };
    let put_in = |line: &'static str| if is_key(line) || is_table(line) { &line[2..] } else { line };
    SHIPPED.lines().map(put_in).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_shipped_config_is_the_defaults_with_one_source_and_one_sink() {
    let loaded = read_shipped(SHIPPED, &[]).unwrap_or_else(|p| panic!("{p}"));
    let source = Source { path: "/push".to_owned(), actions: None, auth: Auth::None, allow_unauthenticated: false };
    let mut sink: model::Sink = toml::from_str("type = \"file\"").unwrap();
    sink.settings = RawSettings(toml::from_str("path = \"data/events.ndjson\"").unwrap());
    let mut expected = Config::default();
    expected.sources.insert("main".into(), source);
    expected.sinks.insert("events".into(), sink);
    assert_eq!(loaded.config, expected);
    assert!(loaded.config.sinks["events"].settings == expected.sinks["events"].settings);
    assert_eq!(loaded.warnings, []);
}

#[test]
fn the_shipped_config_holds_every_key() {
    let text = shipped_in_full();
    let loaded = read_shipped(&text, &[]).unwrap_or_else(|p| panic!("{p}"));
    assert!(loaded.config.ingress.tls.is_some() && loaded.config.admin.token.is_some());
    assert!(matches!(loaded.config.sources["oauth"].auth, Auth::OAuth2(_)));
    assert!(matches!(loaded.config.sources["provider"].auth, Auth::Jwt(_)));
    let table: Table = toml::from_str(&text).unwrap();
    let mut tables = 0;
    each_table(&Value::Table(table), &Path::default(), &mut |path, keys| {
        let prefix = path.to_string();
        // Further sources and sinks say only what differs.
        let passed_over = [
            "sources",
            "sources.oauth",
            "sources.provider",
            "sinks",
            "sinks.hook",
            "sinks.stream",
            "sinks.queue",
            "sinks.archive",
            "sinks.recordings",
        ];
        if passed_over.contains(&prefix.as_str()) || path.is_sensitive() {
            return;
        }
        // What the key is not known by says which keys are.
        let dot = if prefix.is_empty() { "" } else { "." };
        let said = read_shipped(&text, &[&format!("{prefix}{dot}no-such-key=1")]).err().unwrap().to_string();
        let (_, known) = said.split_once("known: ").unwrap_or(("", ""));
        let known = known.split(" (from").next().unwrap_or_default();
        for key in known.split(", ").filter(|key| !key.is_empty()) {
            // One of two that exclude each other stands in the other's sentence.
            let is_excluded = ["jwks_file", "root"].contains(&key) && text.contains(&format!("{key} = "));
            let is_there = keys.contains(&key) || is_excluded;
            assert!(is_there, "{prefix}{dot}{key} is not in gateway.toml");
        }
        tables += 1;
    });
    assert!(tables >= 15, "{tables}");
}

fn each_table(value: &Value, at: &Path, visit: &mut impl FnMut(&Path, &[&str])) {
    let Value::Table(table) = value else { return };
    let keys: Vec<&str> = table.keys().map(String::as_str).collect();
    visit(at, &keys);
    table.iter().for_each(|(key, value)| each_table(value, &at.key(key), visit));
}
