//! Any JSON object at all normalises, into one line that is valid under the schema, and what it held can be found again.

use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

use super::json::{self, Member};
use super::samples::{assert_valid, push};
use super::{KNOWN_ACTIONS, normalise};

const NAMES: [&str; 22] = [
    "SdkAppId",
    "SessionId",
    "Caller",
    "Direction",
    "CallType",
    "Duration",
    "EndedTimestamp",
    "Timestamp",
    "SeatUser",
    "Name",
    "SkillGroupNameList",
    "Uui",
    "IVRKeyPressed",
    "IVRKeyPressedEx",
    "Key",
    "ServeParticipants",
    "Sequence",
    "EndStatusString",
    "EndpointUser",
    "SeatUser.Name",
    "QueuedSkillGroupId",
    "Satisfaction",
];

fn key() -> impl Strategy<Value = String> {
    let known = (proptest::sample::select(NAMES.to_vec()), any::<u64>()).prop_map(|(name, bits)| {
        let turn =
            |(at, letter): (usize, char)| if bits >> (at % 64) & 3 == 0 { letter.to_ascii_uppercase() } else { letter };
        format!("\"{}\"", name.chars().enumerate().map(turn).collect::<String>())
    });
    prop_oneof![3 => known, 1 => text()]
}

fn text() -> impl Strategy<Value = String> {
    let escapes =
        proptest::sample::select(vec![r#""\ud800""#, r#""\udfffx""#, r#""\u0000\n""#, r#""\ud83d\ude00""#, r#""""#]);
    prop_oneof![any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()), escapes.prop_map(str::to_owned)]
}

fn value() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        (0..4_000_000_000_i64).prop_map(|number| number.to_string()),
        "-?[1-9][0-9]{0,40}(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,5})?",
    ];
    let word = proptest::sample::select(vec!["null", "true", "false", "0", "1", "\"0\"", "[ ]", "{ }"])
        .prop_map(str::to_owned);
    prop_oneof![number, word, text()].prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(|items| format!("[ {} ]", items.join(" ,\n"))),
            proptest::collection::vec((key(), inner), 0..6).prop_map(object),
        ]
    })
}

fn object(members: Vec<(String, String)>) -> String {
    let members: Vec<_> = members.into_iter().map(|(key, value)| format!("{key} : {value}")).collect();
    format!("{{\n{} }}", members.join("\t, "))
}

/// `data` with every `extra` emptied: what is verbatim need not fit into a [`Value`].
fn without_extra(data: &str) -> Value {
    let mut fields = serde_json::Map::new();
    for Member { key, value, .. } in json::members(data).unwrap() {
        let value = match json::unquoted(key) {
            "extra" => Value::Object(serde_json::Map::new()),
            "participants" if value != "null" => {
                json::elements(value, usize::MAX).unwrap().unwrap().into_iter().map(without_extra).collect()
            }
            _ => serde_json::from_str(value).unwrap(),
        };
        fields.insert(json::unquoted(key).to_owned(), value);
    }
    Value::Object(fields)
}

fn compacted(value: &str) -> String {
    let mut out = String::new();
    json::compact(value, &mut out);
    out
}

/// Whether a scalar that is not in `extra` is a value of `data`, or says nothing (null, empty, 0).
fn is_found(value: &str, extra: &[Member<'_>], name: &[u8], data: &Value) -> bool {
    if extra.iter().any(|member| *member.name == *name && member.value == compacted(value)) {
        return true;
    }
    // Structures are read member by member, times and closed sets become words: both are covered by tests of their own.
    let is_string_or_id =
        [&b"caller"[..], b"uui", b"sessionid", b"endpointuser"].contains(&&*name.to_ascii_lowercase());
    let said = super::values::text(value).filter(|text| !text.is_empty());
    match (is_string_or_id, said) {
        (true, Some(said)) => data.as_object().unwrap().values().any(|found| found.as_str() == Some(&said)),
        _ => NAMES.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(name)),
    }
}

proptest! {
    #[test]
    fn any_object_normalises_and_can_be_found_again(
        members in proptest::collection::vec((key(), value()), 0..12),
        action in proptest::sample::select(KNOWN_ACTIONS.iter().copied().chain(["future"]).collect::<Vec<_>>()),
    ) {
        let body = object(members);
        let event = normalise(&push(action, body.clone())).event;
        let text = event.data.get();
        prop_assert!(!text.contains(['\n', '\r']));
        let data = without_extra(text);
        let mut bare = event.clone();
        bare.data = RawValue::from_string(data.to_string()).unwrap();
        assert_valid(action, &serde_json::to_value(&bare).unwrap());

        let data_members = json::members(text).unwrap();
        let extra = json::members(data_members.iter().find(|member| member.key == "\"extra\"").unwrap().value).unwrap();
        let sent = json::members(&body).unwrap();
        for (at, member) in sent.iter().enumerate() {
            let is_last = !sent[at + 1..].iter().any(|later| later.name == member.name);
            prop_assert!(!is_last || is_found(member.value, &extra, &member.name, &data), "{} in {text}", member.key);
        }
    }

    #[test]
    fn any_bytes_normalise(body in any::<Vec<u8>>(), action in any::<String>(), version in any::<Option<String>>()) {
        let mut push = push(&action, body);
        push.version = version;
        let event = normalise(&push).event;
        prop_assert!(!event.data.get().contains('\n'));
        assert_valid("other", &serde_json::to_value(&event).unwrap());
    }
}
