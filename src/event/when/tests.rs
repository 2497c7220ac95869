//! What expressions decide, what they are refused for, and what their failures say.

use super::*;
use crate::event::mask::tests::event;

fn judged(text: &str, action: &str, body: &str) -> Result<bool, Fault> {
    When::compile(text).unwrap_or_else(|error| panic!("{text}: {error:?}")).judge(&event(action, body))
}

fn said(text: &str) -> String {
    let Error { message, excerpt } = When::compile(text).unwrap_err();
    format!("{message}\n{}", excerpt.unwrap_or_default())
}

const CALL: &str = r#"{"SdkAppId":1400,"SessionId":"s-1","Caller":"0086138001","Direction":0,"Duration":61,"Odd":[1,2],
    "EndedTimestamp":1787003942,"SeatUser":{"Mail":"a@example.com"},"ServeParticipants":[{"Mail":"b@example.com","Sequence":1}]}"#;

#[test]
fn an_expression_sees_attributes_and_data() {
    for (text, expected) in [
        ("data.direction == 'inbound'", true),
        ("data.duration_seconds > 60 && data.duration_seconds <= 61", true),
        ("data.callee == null", true),
        ("id == 'p-1' && source == '/tccc/1400' && type == 'com.tencent.ccc.cdr.v1' && subject == 's-1'", true),
        ("time == '2026-08-17T21:59:02Z' && recordedtime > time", true),
        ("partitionkey == 's-1' && pushsource == 'main' && action == 'cdr'", true),
        ("data.participants.exists(p, p.email.endsWith('@example.com'))", true),
        ("data.participants.filter(p, p.sequence > 1).map(p, p.email).size() > 0", false),
        ("has(data.queue) && has(data.nothing)", false),
        ("data.extra.Odd[1] == 2 && type(data.caller) == string", true),
        ("data.agent.email in ['x', 'a@example.com'] ? true : false", true),
        ("false", false),
    ] {
        assert_eq!(judged(text, "cdr", CALL), Ok(expected), "{text}");
    }
    assert_eq!(judged("subject == null", "future", "{}"), Ok(true));
}

#[test]
fn every_function_named_as_known_exists() {
    let calls = "size('ab') == 2 && 'ab'.contains('a') && 'ab'.startsWith('a') && 'ab'.endsWith('b') && string(1) == '1' \
                 && int('1') == 1 && uint(1) == 1u && double(1) == 1.0 && bytes('a') == b'a' && dyn(1) == 1 && type(1) == int";
    assert!(FUNCTIONS.iter().all(|function| calls.contains(&format!("{function}("))));
    assert_eq!(judged(calls, "cdr", CALL), Ok(true));
}

#[test]
fn what_cannot_be_decided_says_why_and_quotes_no_data() {
    for (text, part) in [
        ("data.nothing == 1", "asks for `nothing`, which this event does not have"),
        ("data.extra[data.caller] == 1", "asks for a key that this event does not have"),
        ("data.callee > 5", "applies > to null_type and int"),
        ("data.caller > 5", "applies > to string and int"),
        ("data.caller", "gives string, neither true nor false"),
        ("int(data.agent.email) == 1", "calls int on a value"),
        ("data.participants[7].email == ''", "element that is not there"),
        ("data.duration_seconds / (data.duration_seconds - 61) > 0", "divides by zero"),
        ("data.duration_seconds * 9223372036854775807 > 0", "past 64 bits"),
        ("data.caller + 5 == ''", "`when` "),
        ("data.participants.exists(p, p.nothing)", "asks for `nothing`"),
    ] {
        let fault = judged(text, "cdr", CALL).unwrap_err();
        assert!(fault.code == "when" && fault.reason.contains(part), "{text}: {fault:?}");
        assert!(!["0086138001", "example.com"].iter().any(|data| fault.reason.contains(data)), "{fault:?}");
    }
}

#[test]
fn a_mistake_is_shown_with_its_place() {
    for (text, expected) in [
        ("data.direction == ", "    data.direction == \n    "),
        ("data.direction = 'inbound'", "    data.direction = 'inbound'\n                   ^"),
        (
            "true &&\n  dta.caller == ''",
            "names `dta`; known: id, source, type, subject, time, recordedtime, partitionkey, pushsource, action, data\n      dta.caller == ''\n      ^",
        ),
        ("data.caller.matches('x')", "calls `matches`; known: size, contains"),
        ("1 + 1", "gives int, neither true nor false, for every event\n    1 + 1\n    ^"),
        ("data.a.exists(x, data.b.exists(y, x == y))", "has a macro over a list inside another"),
        ("Thing{a: 1} == 1", "makes a message"),
    ] {
        assert!(said(text).contains(expected), "{text}:\n{}", said(text));
    }
    let long = format!("{} && dta == 1", vec!["true"; 100].join(" && "));
    let shown = said(&long);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[1].chars().nth(lines[2].chars().count() - 1), Some('d'), "{shown}");
}

#[test]
fn what_is_too_long_too_deep_or_empty_is_refused_and_never_overflows() {
    assert_eq!(said(&format!("{}true", " ".repeat(5000))), "is 5004 bytes long, more than 4096\n");
    for text in [
        String::new(),
        vec!["1"; 2000].join("+") + " == 1",
        format!("data{}", ".a".repeat(2000)),
        format!("{}true{}", "(".repeat(2000), ")".repeat(2000)),
        "!(false || ".repeat(300) + "true" + &")".repeat(300),
        "[".repeat(2000),
    ] {
        assert!(!said(&text).is_empty());
    }
}

#[test]
fn the_deepest_expression_is_judged_on_a_small_stack() {
    let nested = |open: &str, inner: &str, close: &str| open.repeat(20) + inner + &close.repeat(20);
    for text in [
        format!("{} == 31", ["data.duration_seconds"; 20].join("+")),
        format!("{} == [1]", nested("[", "1", "][0]").replace("][0]", "]")),
        format!("{} == 1", nested("(1 > 2 ? 2 : ", "1", ")")),
        format!("[1].exists(x, {} == 1)", "(1 > 2 ? 2 : ".repeat(15) + "x" + &")".repeat(15)),
        "!(false || ".repeat(10) + "false" + &")".repeat(10),
        format!("{} == '1'", nested("string(", "1", ")")),
    ] {
        When::compile(&text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
        let small = std::thread::Builder::new().stack_size(1 << 20);
        small.spawn(move || judged(&text, "cdr", CALL).unwrap()).unwrap().join().unwrap();
    }
}

#[test]
fn the_fields_that_it_asks_for_are_known() {
    let when = When::compile("has(data.agent.email) && data.participants[0].phone == id && data['x'] == 1").unwrap();
    let mut paths: Vec<_> = when.data_paths().collect();
    paths.sort_unstable();
    assert_eq!(paths, ["agent", "agent.email", "participants", "participants[].phone"]);
}
