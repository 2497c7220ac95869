//! The table of bad configs in `testdata/bad_configs.txt`: each with every line that is said of it.

use super::tests::kinds;

const TABLE: &str = include_str!("testdata/bad_configs.txt");

struct Case<'a> {
    title: &'a str,
    text: &'a str,
    said: &'a str,
}

fn cases() -> Vec<Case<'static>> {
    let case = |block: &'static str| {
        let (title, rest) = block.split_once('\n').expect("a title");
        let (text, said) = rest.split_once("----\n").expect("what is said of it");
        Case { title, text, said: said.trim_end() }
    };
    TABLE.split("==== ").skip(1).map(case).collect()
}

fn said_of(text: &str) -> String {
    super::parse("gateway.toml", text, &[], [], &kinds()).err().map(|problems| problems.to_string()).unwrap_or_default()
}

#[test]
fn every_bad_config_is_told_what_is_wrong_with_it() {
    let cases = cases();
    assert!(cases.len() >= 25);
    for case in cases {
        assert_eq!(said_of(case.text), case.said, "{}", case.title);
    }
}

#[test]
fn a_config_with_many_faults_is_told_all_of_them_at_once() {
    let joined = "[ingress]\nlistn = 1\nbody_timeout = 5\nconnections_max = 0\n[sources.main]\npaht = \"/push\"\n\
                  [sources.other]\npath = \"x\"\nauth = { type = \"basic\", username = 1, password = 2 }\n\
                  [journal]\nsize_max = \"1MiB\"\n[dedup]\nwindow = \"1s\"\n[logs]\n\
                  [sinks.a]\ntype = \"fil\"\n[sinks.b]\ntype = \"test\"\nsources = [\"mian\", \"main\"]\nretry = { delay_max = \"1ms\" }\n";
    let said = said_of(joined);
    let paths: Vec<&str> = said.lines().filter_map(|line| line.split_once(": ")).map(|(path, _)| path).collect();
    let expected = [
        "ingress.listn",
        "ingress.body_timeout",
        "ingress.connections_max",
        "sources.main.path",
        "sources.main.paht",
        "sources.other.path",
        "sources.other.auth.password",
        "sources.other.auth.username",
        "journal.size_max",
        "dedup.window",
        "logs",
        "sinks.a.type",
        "sinks.b.settings.path",
        "sinks.b.sources[0]",
        "sinks.b.retry.delay_min",
    ];
    let mut sorted = (paths, expected.to_vec());
    sorted.0.sort_unstable();
    sorted.1.sort_unstable();
    assert_eq!(sorted.0, sorted.1, "{said}");
}
