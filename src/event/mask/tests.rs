//! What is masked, what stays, and by which doors nothing comes out.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use sink_api::Format;

use super::*;
use crate::journal::Push;
use crate::tccc;

pub(in crate::event) fn event(action: &str, body: &str) -> Event {
    let push = Push {
        id: "p-1".into(),
        source: "main".into(),
        action: action.to_owned(),
        version: None,
        session: tccc::read_head(body.as_bytes()).ok().and_then(|head| head.session),
        received_at: Timestamp::from_millisecond(1_787_100_000_021).unwrap(),
        traceparent: None,
        body: Bytes::copy_from_slice(body.as_bytes()),
    };
    tccc::normalise(&push).event
}

fn rule(path: &str, method: &str) -> (MaskPath, Method) {
    let method = match method {
        "last4" => Method::Last4,
        "drop" => Method::Drop,
        key => Method::hmac(key.as_bytes()),
    };
    (path.parse().unwrap(), method)
}

fn masked(action: &str, body: &str, rules: &[(&str, &str)]) -> Event {
    let mut event = event(action, body);
    Mask::new(rules.iter().map(|(path, method)| rule(path, method))).apply(&mut event);
    event
}

fn data(action: &str, body: &str, rules: &[(&str, &str)]) -> Value {
    serde_json::from_str(masked(action, body, rules).data.get()).unwrap()
}

/// Everything that a sink can see of an event.
fn seen(event: &Event) -> String {
    let raw = String::from_utf8_lossy(&event.raw);
    format!("{event:?}{}{raw}", String::from_utf8_lossy(&event.payload(Format::CloudEvents)))
}

const SAMPLE: &str = include_str!("../../../tests/samples/cdr-inbound-transfer.json");

#[test]
fn values_are_masked_by_their_method_and_the_rest_stays_byte_for_byte() {
    let rules = [("caller", "last4"), ("agent.email", "drop"), ("callee", "key"), ("participants[].email", "drop")];
    let masked = data("cdr", SAMPLE, &rules);
    let mut expected: Value = serde_json::from_str(event("cdr", SAMPLE).data.get()).unwrap();
    expected["caller"] = json!("***********1234");
    expected["agent"]["email"] = Value::Null;
    // echo -n 008607551000666 | openssl dgst -sha256 -hmac key
    expected["callee"] = json!(pseudonym(&hmac::Key::new(hmac::HMAC_SHA256, b"key"), "008607551000666"));
    expected["participants"][0]["email"] = Value::Null;
    expected["participants"][1]["email"] = Value::Null;
    assert_eq!(masked, expected);
    assert_eq!(expected["callee"].as_str().unwrap().len(), 64);
}

#[test]
fn a_pseudonym_is_hmac_sha256_in_hex() {
    // RFC 4231, test case 2.
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
    let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert_eq!(pseudonym(&key, "what do ya want for nothing?"), expected);
}

#[test]
fn the_last_four_characters_stay_where_there_are_more() {
    for (text, expected) in
        [("", ""), ("123", "***"), ("1234", "****"), ("12345", "*2345"), ("陈博陈博陈", "*博陈博陈")]
    {
        assert_eq!(last4(text), expected);
    }
    let escaped = data("future", r#"{"X":"a\"\\\n\u0007b"}"#, &[("extra.X", "last4")]);
    assert_eq!(escaped["extra"]["X"], "**\\\n\u{7}b");
}

#[test]
fn numbers_flags_objects_and_arrays_are_masked_to_their_last_value() {
    let body = r#"{"SdkAppId":1400880011,"N":1e400,"O":{"k\"":[13800001234,true,null,"\ud800x","",{"a":"12345"}]}}"#;
    let found = data("future", body, &[("sdk_app_id", "last4"), ("extra.N", "last4"), ("extra.O", "last4")]);
    assert_eq!(found["sdk_app_id"], "******0011");
    assert_eq!(found["extra"]["N"], "*e400");
    assert_eq!(found["extra"]["O"], json!({"k\"": ["*******1234", "****", null, "*******", "", {"a": "*2345"}]}));
    let dropped = data("cdr", SAMPLE, &[("participants", "drop"), ("agent", "last4"), ("duration_seconds", "drop")]);
    assert_eq!((&dropped["participants"], &dropped["duration_seconds"]), (&Value::Null, &Value::Null));
    assert_eq!(dropped["agent"]["skill_groups"], json!(["***ling", "***"]));
}

#[test]
fn deep_and_huge_values_of_extra_are_neither_lost_nor_recursed_on() {
    let deep = format!("{}\"secret\"{}", "[".repeat(200_000), "]".repeat(200_000));
    let body = format!(r#"{{"Caller":"0086138","Deep":{deep},"Huge":9007199254740993123,"Float":1e999}}"#);
    let on_small_stack = std::thread::Builder::new().stack_size(256 << 10);
    let work = move || {
        let kept = masked("cdr", &body, &[("caller", "drop")]);
        assert!(
            kept.data.get().contains(&deep) && kept.data.get().contains(r#""Huge":9007199254740993123,"Float":1e999"#)
        );
        let gone = masked("cdr", &body, &[("extra.Deep", "last4")]);
        assert!(!gone.data.get().contains("secret") && gone.data.get().contains("**cret"));
    };
    on_small_stack.spawn(work).unwrap().join().unwrap();
}

#[test]
fn members_of_extra_are_masked_by_name_path_and_from_within() {
    let body = r#"{"SeatUser":{"Rank":"secret1","rank":"secret2"},"IVRKeyPressed":[{"Key":"1","Tone":"secret3"}],
        "Crm":{"Name":"secret4","Id":7},"Tags":[{"Name":"secret5"},{"Name":"secret6"}],"note":"secret7","Noted":"kept"}"#;
    let rules = [
        ("extra.SeatUser.Rank", "drop"),
        ("extra.IVRKeyPressed[].Tone", "drop"),
        ("extra.Crm.Name", "drop"),
        ("extra.Tags[].Name", "drop"),
        ("extra.Note", "drop"),
    ];
    let event = masked("cdr", body, &rules);
    assert!(!seen(&event).contains("secret"), "{}", event.data);
    assert!(event.data.get().contains(r#""Noted":"kept""#) && event.data.get().contains(r#""Id":7"#));
    let all = data("cdr", body, &[("extra", "drop")]);
    assert_eq!(all["extra"], Value::Null);
}

#[test]
fn a_masked_field_that_could_not_be_read_or_came_twice_is_null_under_extra_too() {
    let rules = [("caller", "last4"), ("agent.email", "key"), ("participants[].phone", "drop"), ("queue.id", "drop")];
    for body in [
        r#"{"Caller":["secret"],"caller":{"a":"secret"}}"#,
        r#"{"CALLER":"secret one","Caller":"0086"}"#,
        r#"{"SeatUser":{"Mail":["secret"],"mail":"x"}}"#,
        r#"{"SeatUser":"secret"}"#,
        r#"{"ServeParticipants":[{"Phone":{"x":"secret"}},"secret",["secret"]]}"#,
        r#"{"ServeParticipants":{"Phone":"secret"}}"#,
        r#"{"QueuedSkillGroupId":["secret"]}"#,
    ] {
        for action in ["cdr", "future"] {
            let event = masked(action, body, &rules);
            assert!(!seen(&event).contains("secret"), "{action} {}", event.data);
        }
    }
    let other = masked("future", r#"{"Remark":["kept"]}"#, &rules);
    assert!(other.data.get().contains("kept"));
    let broken = masked("cdr", r#"{"Caller":"secret""#, &rules);
    assert!(!seen(&broken).contains("secret"), "{}", broken.data);
}

#[test]
fn attributes_do_not_hold_what_is_masked() {
    let body = r#"{"SdkAppId":1400880011,"SessionId":"session-secret","EndedTimestamp":1787003942}"#;
    let event = masked("cdr", body, &[("session_id", "key"), ("sdk_app_id", "drop"), ("ended_at", "drop")]);
    let shown = seen(&event);
    assert!(!["secret", "1400880011", "21:59:02"].iter().any(|part| shown.contains(part)), "{shown}");
    let data: Value = serde_json::from_str(event.data.get()).unwrap();
    assert_eq!(event.subject.as_deref(), data["session_id"].as_str());
    assert_eq!(event.subject.as_ref(), Some(&event.partitionkey));
    assert_eq!((event.source.as_str(), event.time), ("/tccc", event.recordedtime));
    assert_eq!(&event.raw[..], b"{}");
}

#[test]
fn without_a_session_the_partition_key_stays_the_push_id() {
    let event = masked("cdr", "{}", &[("session_id", "key")]);
    assert_eq!((event.subject, event.partitionkey.as_str()), (None, "p-1"));
}

proptest! {
    /// Whatever form the sender gives a masked field and wherever it puts it, the value does not come out.
    #[test]
    fn a_masked_value_never_comes_out(
        shape in proptest::sample::select(vec!["V", "[V]", "{\"a\":V}", "[[V,1],{\"b\":V}]"]),
        name in proptest::sample::select(vec!["Caller", "caller", "CALLER", "C\\u0061ller"]),
        value in "canary[a-z\"\\\\]{8,12}",
        method in proptest::sample::select(vec!["drop", "key", "last4"]),
        action in proptest::sample::select(vec!["cdr", "CDR", "future"]),
    ) {
        let literal = serde_json::to_string(&value).unwrap();
        let body = format!("{{\"{name}\": {}, \"Other\": 1}}", shape.replace('V', &literal));
        let shown = seen(&masked(action, &body, &[("caller", method)]));
        prop_assert!(!shown.contains("canary"), "{}", shown);
    }
}
