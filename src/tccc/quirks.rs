//! One test per quirk of the sender (PROTOCOL.md §4), and what becomes of what cannot be read.

use serde_json::{Value, json};

use super::normalise;
use super::samples::{assert_valid, push};

fn data(action: &str, body: &str) -> Value {
    let event = normalise(&push(action, body.to_owned())).event;
    assert!(!event.data.get().contains('\n'));
    let value = serde_json::to_value(&event).unwrap();
    assert_valid(action, &value);
    value["data"].clone()
}

#[test]
fn a_number_is_read_where_a_string_is_documented_and_the_other_way_round() {
    assert_eq!(data("voicemail", r#"{"EndpointUser":13800004321}"#)["endpoint"], "13800004321");
    let data = data("cdr", r#"{"SdkAppId":"1400","Duration":"15","Direction":"1","EndedTimestamp":"1787003942"}"#);
    assert_eq!(data["sdk_app_id"], 1400);
    assert_eq!(data["duration_seconds"], 15);
    assert_eq!(data["direction"], "outbound");
    assert_eq!(data["ended_at"], "2026-08-17T21:59:02Z");
    assert_eq!(data["warnings"], json!([]));
}

#[test]
fn the_last_of_duplicate_keys_counts_and_other_spellings_stay() {
    let data = data("cdr", r#"{"Duration":15,"Duration":0,"Uui":"a","UUI":"b","X":1,"X":2}"#);
    assert_eq!(data["duration_seconds"], 0);
    assert_eq!(data["uui"], "b");
    assert_eq!(data["extra"], json!({"Uui":"a","X":2}));
}

#[test]
fn the_case_of_keys_does_not_matter() {
    let data = data("cdr", r#"{"QueuedSkillGroupID":7,"PostIVRKeyPressed":[{"key":"2","label":"Good"}]}"#);
    assert_eq!(data["queue"]["id"], "7");
    assert_eq!(data["rating_keys"][0]["label"], "Good");
    assert_eq!(data["extra"], json!({}));
}

#[test]
fn null_arrays_are_null_and_empty_arrays_are_empty() {
    let data = data("cdr", r#"{"IVRKeyPressedEx":null,"ServeParticipants":[],"PostIVRKeyPressed":null}"#);
    assert_eq!(data["ivr_keys"], Value::Null);
    assert_eq!(data["rating_keys"], Value::Null);
    assert_eq!(data["participants"], json!([]));
}

#[test]
fn big_integers_are_lossless() {
    let event =
        normalise(&push("cdr", r#"{"QueuedSkillGroupId":9007199254740993,"SdkAppId":92233720368547758080,"N":1e400}"#));
    assert!(event.event.data.get().contains(r#""queue":{"id":"9007199254740993""#));
    assert!(event.event.data.get().contains(r#""extra":{"N":1e400,"SdkAppId":92233720368547758080}"#));
    assert_eq!((event.warnings, event.event.source.as_str()), (1, "/tccc"));
}

#[test]
fn what_cannot_be_read_is_null_with_a_warning_and_stays_verbatim() {
    let data = data(
        "cdr",
        r#"{"Direction":9,"CallType":44,"SeatUser":{"Name":[1, 2],"Rank":3},"ServeParticipants":[{"Sequence":"x","New":1},5],"IVRKeyPressedEx":[{"Key":"1","Tone":2}]}"#,
    );
    let fields: Vec<_> =
        data["warnings"].as_array().unwrap().iter().map(|warning| warning["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["Direction", "SeatUser.Name", "ServeParticipants[0].Sequence", "ServeParticipants[1]"]);
    assert_eq!(data["call_type"], "other");
    assert_eq!(data["participants"][0]["extra"], json!({"New":1,"Sequence":"x"}));
    assert_eq!(
        data["extra"],
        json!({"Direction":9,"CallType":44,"SeatUser.Name":[1,2],"SeatUser.Rank":3,"ServeParticipants[1]":5,"IVRKeyPressedEx[0].Tone":2})
    );
}

#[test]
fn a_path_never_hides_a_member_of_the_same_name() {
    let data = data("cdr", r#"{"SeatUser.Rank":1,"SeatUser":{"Rank":2}}"#);
    assert_eq!(data["extra"], json!({"SeatUser.Rank":1,"SeatUser.Rank'":2}));
}

#[test]
fn richer_keys_are_preferred_and_plain_keys_lost_only_when_the_same() {
    let same = data("cdr", r#"{"IVRKeyPressed":["1"],"IVRKeyPressedEx":[{"Key":"1","Timestamp":1787003605123}]}"#);
    assert_eq!(same["ivr_keys"][0]["pressed_at"], "2026-08-17T21:53:25.123Z");
    assert_eq!(same["extra"], json!({}));
    let differs = data("cdr", r#"{"IVRKeyPressed":["1","2"],"IVRKeyPressedEx":[{"Key":"1"}]}"#);
    assert_eq!(differs["extra"], json!({"IVRKeyPressed":["1","2"]}));
    assert_eq!(data("cdr", r#"{"IVRKeyPressed":["人工",3]}"#)["ivr_keys"][1]["key"], "3");
}

#[test]
fn lone_surrogates_survive_as_they_are() {
    let event = normalise(&push("cdr", r#"{"Caller":"\ud800","\udfff":"\ud800"}"#)).event;
    assert!(event.data.get().contains(r#""caller":null"#));
    assert!(event.data.get().contains(r#""extra":{"\udfff":"\ud800","Caller":"\ud800"}"#));
}

#[test]
fn a_body_that_is_no_object_is_kept_as_a_string() {
    let normalised = normalise(&push("cdr", &b"[1,\xff\n"[..]));
    assert_eq!(normalised.warnings, 1);
    assert!(normalised.event.data.get().contains(r#""extra":{"body":"[1,�\n"}"#));
    assert_eq!(normalised.event.partitionkey, "p-1");
}

#[test]
fn odd_actions_and_versions_still_make_a_legal_type() {
    let mut odd = push("New Kind/ü", "{}");
    odd.version = Some("2-β!".into());
    assert_eq!(normalise(&odd).event.kind, "com.tencent.ccc.new_kind__.v2");
}

#[test]
fn an_archived_recording_is_read_in_our_own_names() {
    let data = data(
        "recording.archived",
        r#"{"session_id":"s","length_bytes":10,"duration_seconds":1.5,"sha256":"ab","more":[ 1 ]}"#,
    );
    assert_eq!((&data["length_bytes"], &data["duration_seconds"]), (&json!(10), &json!(1.5)));
    assert_eq!(data["extra"], json!({"more":[1]}));
}

#[test]
fn depth_and_size_cost_no_stack_and_are_bounded() {
    let depth = 1_000_000;
    let deep = format!(r#"{{"SeatUser":{{"Name":{}{}}}}}"#, "[".repeat(depth), "]".repeat(depth));
    let wide = format!(r#"{{"ServeParticipants":[{}1]}}"#, "1,".repeat(100_000));
    let small_stack = std::thread::Builder::new().stack_size(256 * 1024);
    let run = move || [deep, wide].map(|body| (body.len(), normalise(&push("cdr", body)).event.data.get().len()));
    for (sent, made) in small_stack.spawn(run).unwrap().join().unwrap() {
        assert!(made < sent + 3_000, "{sent} became {made}");
    }
}
