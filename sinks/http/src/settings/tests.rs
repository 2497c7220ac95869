use super::*;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn settings(toml: &str) -> Settings {
    toml::from_str(toml).unwrap_or_else(|error| panic!("{toml}: {error}"))
}

fn paths(toml: &str, format: Format) -> Vec<String> {
    let context = Context { name: "hook".into(), format };
    settings(toml).problems(&context).into_iter().map(|problem| problem.path).collect()
}

#[test]
fn good_settings_have_no_problems() {
    for toml in [
        "url = \"https://example.com/hook?x=1\"",
        "url = { env = \"HOOK_URL\" }\ntls = { ca_file = \"ca.pem\" }",
        "url = \"http://user:pass@example.com\"",
        "url = \"http://127.0.0.1:1/\"\nallow_networks = [\"127.0.0.0/8\"]",
        "url = \"https://example.com\"\nauth = { type = \"bearer\", token = \"t\" }\nheaders = { X-Key = \"k\" }",
        "url = \"https://example.com\"\nheaders = { Authorization = { env = \"A\" }, User-Agent = \"a\" }",
        "url = \"https://example.com\"\nauth = { type = \"oauth2\", token_url = \"https://a.example/t\", client_id = \"c\", client_secret = \"s\" }",
    ] {
        assert_eq!(paths(toml, Format::CloudEvents), Vec::<String>::new(), "{toml}");
    }
    let signed = format!("url = \"https://example.com\"\nsigning_secret = [\"{SECRET}\", {{ file = \"x\" }}]");
    assert_eq!(settings(&signed).signing_secret.0.len(), 2);
    assert_eq!(paths(&signed, Format::CloudEvents), Vec::<String>::new());
}

#[test]
fn the_example_holds_every_setting() {
    let example: toml::Table = include_str!("../../example.toml").parse().unwrap();
    let table = example["sinks"]["hook"]["settings"].as_table().unwrap();
    assert_eq!(paths(&table.to_string(), Format::CloudEvents), Vec::<String>::new());
    let no_such_key = toml::from_str::<Settings>("no-such-key = 1").unwrap_err().to_string();
    let (_, known) = no_such_key.split_once("expected one of ").unwrap();
    let known: Vec<_> = known.split('`').skip(1).step_by(2).collect();
    assert!(known.len() == 9 && known.iter().all(|key| table.contains_key(*key)), "{known:?}");
}

#[test]
fn all_problems_are_told_at_once() {
    let toml = r#"
        url = "http://u:p@10.0.0.1/"
        mode = "batch"
        signing_secret = ["whsec_short", "hunter2"]
        headers = { Host = "h", webhook-id = "1", "a b" = "x", X-Bad = "a\nb", Authorization = "x" }
        auth = { type = "basic", username = "a:b", password = "p" }
        timeout = "2s"
        tls = { cert_file = "c" }
    "#;
    let expected = [
        "url",
        "mode",
        "signing_secret",
        "signing_secret",
        "headers.Authorization",
        "headers.Host",
        "headers.X-Bad",
        "headers.a b",
        "headers.webhook-id",
        "auth",
        "auth.username",
        "connect_timeout",
        "tls",
        "tls.key_file",
    ];
    assert_eq!(paths(toml, Format::Data), expected);
}

#[test]
fn no_problem_repeats_a_secret() {
    let toml =
        "url = \"ftp://hunter2:hunter2@h/?hunter2\"\nsigning_secret = \"hunter2\"\nheaders = { X = \"hunter2\\n\" }";
    let context = Context { name: "hook".into(), format: Format::CloudEvents };
    let problems = settings(toml).problems(&context);
    assert_eq!(problems.len(), 3);
    assert!(!format!("{problems:?}").contains("hunter2"), "{problems:?}");
}

#[test]
fn urls_that_lead_nowhere_good_are_refused() {
    for url in [
        "",
        "example.com",
        "ftp://example.com",
        "http://",
        "https://example.com/#here",
        "http://127.1/",
        "http://0x7f000001/",
        "http://2130706433/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://169.254.169.254/latest",
        "http://0/",
    ] {
        assert_eq!(paths(&format!("url = {url:?}"), Format::CloudEvents), ["url"], "{url}");
    }
}

#[test]
fn what_is_shown_is_masked() {
    let toml = format!(
        "url = \"https://u:hunter2@example.com:8443/a/b?hunter2\"\nsigning_secret = \"{SECRET}\"\nheaders = {{ X = \"hunter2\" }}"
    );
    let shown = toml::to_string(&settings(&toml)).unwrap();
    assert!(!shown.contains("hunter2") && !shown.contains("MfKQ9"), "{shown}");
    assert!(shown.contains("url = \"https://***@example.com:8443/a/b?***\""), "{shown}");
    assert!(shown.contains("timeout = \"10s\"") && shown.contains("connect_timeout = \"3s\""), "{shown}");
    assert!(!format!("{:?}", settings(&toml)).contains("hunter2"));
}

#[test]
fn a_mode_goes_with_the_formats_that_it_can_carry() {
    let url = "url = \"https://example.com\"";
    for (mode, format, is_good) in [
        ("", Format::Data, true),
        ("", Format::Raw, true),
        ("binary", Format::Data, true),
        ("binary", Format::Raw, true),
        ("binary", Format::CloudEvents, true),
        ("batch", Format::CloudEvents, true),
        ("structured", Format::CloudEvents, true),
        ("structured", Format::Data, false),
        ("structured", Format::Raw, false),
        ("batch", Format::Data, false),
        ("batch", Format::Raw, false),
    ] {
        let mode_line = if mode.is_empty() { String::new() } else { format!("\nmode = \"{mode}\"") };
        let found = paths(&format!("{url}{mode_line}"), format);
        assert_eq!(found.is_empty(), is_good, "{mode} {format:?}: {found:?}");
    }
}

#[test]
fn unknown_keys_are_refused() {
    for toml in ["urk = \"x\"", "tls = { ca = \"x\" }", "auth = { type = \"bearer\", token = \"t\", user = \"x\" }"] {
        assert!(toml::from_str::<Settings>(&format!("url = \"https://example.com\"\n{toml}")).is_err(), "{toml}");
    }
}
