//! The template of an object's key, and which events of a batch go into one object.
//!
//! It promises the same key for the same events, so that a delivery that is repeated writes the same object again, and different keys
//! for different ones of the same journal; and that a key holds `A-Za-z0-9._=-` and `/` alone, with no segment that is empty or made of
//! dots, whatever the events hold.

use std::collections::HashMap;

use aws_lc_rs::digest::{Context, SHA256};
use sink_api::template::{self, TemplateError};
use sink_api::{Batch, BatchEvent, Event};

use crate::key::{ABSENT, CHARACTERS, date, hour, is_no_name, reduced};
use crate::store::hex;

/// Where `settings` name none.
pub(super) const KEY_DEFAULT: &str = "{source}/{sdk_app_id}/{action}/date={date}/hour={hour}/{shard}-{first}-{last}";

/// A longer value is cut.
const VALUE_LEN_MAX: usize = 100;

/// Fits into the 1,024 bytes that S3 and the 850 that COS take, with every value at its longest.
const TEMPLATE_LEN_MAX: usize = 256;

/// Digits of an offset, so that names sort as the journal does.
const OFFSET_DIGITS: usize = 20;

/// Hex digits of `{ids}`, and of the metadata that say which events an object holds.
const IDS_DIGITS: usize = 16;

/// A template that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(template::Template<Field>);

/// The events of a batch that go into one object, and its key without an extension.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) key: String,
    /// Hex digits by which these events are known again.
    pub(super) ids: String,
    pub(super) events: Vec<&'a BatchEvent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Source,
    SdkAppId,
    Action,
    Date,
    Hour,
    Shard,
    First,
    Last,
    Ids,
}

const FIELDS: [(&str, Field); 9] = [
    ("source", Field::Source),
    ("sdk_app_id", Field::SdkAppId),
    ("action", Field::Action),
    ("date", Field::Date),
    ("hour", Field::Hour),
    ("shard", Field::Shard),
    ("first", Field::First),
    ("last", Field::Last),
    ("ids", Field::Ids),
];

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Wrong {
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error("lacks {{{0}}}, without which one batch would overwrite another")]
    Lacks(&'static str),
    #[error("begins or ends with '/', or has a segment that is empty or made of dots")]
    Segment,
    #[error("is longer than {TEMPLATE_LEN_MAX} characters")]
    TooLong,
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        if text.len() > TEMPLATE_LEN_MAX {
            return Err(Wrong::TooLong);
        }
        let template = template::Template::parse(text, &FIELDS, CHARACTERS)?;
        if text.split('/').any(is_no_name) {
            return Err(Wrong::Segment);
        }
        let needed = [("shard", Field::Shard), ("first", Field::First), ("last", Field::Last)];
        match needed.iter().find(|(_, field)| !template.has(*field)) {
            Some((name, _)) => Err(Wrong::Lacks(name)),
            None => Ok(Self(template)),
        }
    }

    /// Events of different actions never share an object.
    pub(super) fn tells_actions_apart(&self) -> bool {
        self.0.has(Field::Action)
    }

    /// The objects that `batch` becomes, in the order of their first events.
    pub(super) fn groups<'a>(&self, batch: &'a Batch) -> Vec<Group<'a>> {
        let mut places = HashMap::new();
        let mut groups: Vec<Vec<&BatchEvent>> = Vec::new();
        for entry in &batch.events {
            let place = *places.entry(self.render(&entry.event, None)).or_insert(groups.len());
            match groups.get_mut(place) {
                Some(group) => group.push(entry),
                None => groups.push(vec![entry]),
            }
        }
        groups.into_iter().map(|events| self.group(batch.shard, events)).collect()
    }

    fn group<'a>(&self, shard: u16, events: Vec<&'a BatchEvent>) -> Group<'a> {
        let offsets = || events.iter().map(|entry| entry.offset);
        let (first, last) = (offsets().min().unwrap_or_default(), offsets().max().unwrap_or_default());
        let extent = Extent { shard, first, last, ids: digest_of_ids(&events) };
        let key = events.first().map_or_else(String::new, |entry| self.render(&entry.event, Some(&extent)));
        Group { key, ids: extent.ids, events }
    }

    /// Without an extent: what the events of one object have in common.
    fn render(&self, event: &Event, extent: Option<&Extent>) -> String {
        self.0.render(|field| field.value(event, extent))
    }
}

/// Which stretch of the journal an object holds events of.
struct Extent {
    shard: u16,
    first: u64,
    last: u64,
    ids: String,
}

impl Field {
    fn value(self, event: &Event, extent: Option<&Extent>) -> String {
        let of_extent = |show: fn(&Extent) -> String| extent.map(show).unwrap_or_default();
        match self {
            Self::Source => safe(&event.pushsource),
            Self::SdkAppId => event.source.rsplit_once("/tccc/").map_or_else(|| ABSENT.to_owned(), |(_, id)| safe(id)),
            Self::Action => safe(&event.action),
            Self::Date => date(event.time),
            Self::Hour => hour(event.time),
            Self::Shard => of_extent(|extent| extent.shard.to_string()),
            Self::First => of_extent(|extent| format!("{:0OFFSET_DIGITS$}", extent.first)),
            Self::Last => of_extent(|extent| format!("{:0OFFSET_DIGITS$}", extent.last)),
            Self::Ids => of_extent(|extent| extent.ids.clone()),
        }
    }
}

fn digest_of_ids(events: &[&BatchEvent]) -> String {
    let mut sha256 = Context::new(&SHA256);
    for entry in events {
        sha256.update(entry.event.id.as_bytes());
        sha256.update(b"\n");
    }
    let mut digits = hex(sha256.finish().as_ref());
    digits.truncate(IDS_DIGITS);
    digits
}

/// What is left of `value`: never empty, never dots alone.
fn safe(value: &str) -> String {
    match reduced(value, VALUE_LEN_MAX) {
        empty if empty.is_empty() => ABSENT.to_owned(),
        dots if is_no_name(&dots) => "_".repeat(dots.len()),
        safe => safe,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::{any, prop_assert, proptest};
    use sink_api::conformance::{batch, event};

    use super::*;
    use crate::key::is_safe;

    fn keys(template: &str, batch: &Batch) -> Vec<String> {
        Template::parse(template).unwrap().groups(batch).into_iter().map(|group| group.key).collect()
    }

    #[test]
    fn a_batch_falls_apart_by_what_the_template_names() {
        let mut events: Vec<_> = (0..5).map(|n| event(&format!("p-{n}"), "s")).collect();
        events[1].action = "record".to_owned();
        events[3].time = Timestamp::from_second(3_600).unwrap();
        events[4].source = "/tccc".to_owned();
        let batch = batch(3, 7, events);
        let expected = [
            "main/1400000000/cdr/date=1970-01-01/hour=00/3-00000000000000000007-00000000000000000009",
            "main/1400000000/record/date=1970-01-01/hour=00/3-00000000000000000008-00000000000000000008",
            "main/1400000000/cdr/date=1970-01-01/hour=01/3-00000000000000000010-00000000000000000010",
            "main/none/cdr/date=1970-01-01/hour=00/3-00000000000000000011-00000000000000000011",
        ];
        assert_eq!(keys(KEY_DEFAULT, &batch), expected);
        let all = keys("pod-0/{shard}/{first}-{last}-{ids}", &batch);
        assert_eq!(all.len(), 1);
        assert!(all[0].starts_with("pod-0/3/00000000000000000007-00000000000000000011-"), "{all:?}");
        assert_eq!(all, keys("pod-0/{shard}/{first}-{last}-{ids}", &batch), "the same again");
    }

    #[test]
    fn a_wrong_template_is_told() {
        for (text, wrong) in [
            ("{first}-{last}", Wrong::Lacks("shard")),
            ("{shard}-{first}", Wrong::Lacks("last")),
            ("/{shard}-{first}-{last}", Wrong::Segment),
            ("a/../{shard}-{first}-{last}", Wrong::Segment),
            ("", Wrong::Segment),
        ] {
            assert_eq!(Template::parse(text), Err(wrong), "{text}");
        }
        assert_eq!(Template::parse(&"a".repeat(300)), Err(Wrong::TooLong));
        for text in ["{nope}/{shard}-{first}-{last}", "{shard", "a b/{shard}-{first}-{last}"] {
            assert!(matches!(Template::parse(text), Err(Wrong::Template(_))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_events_hold_their_keys_are_safe(action in any::<String>(), source in any::<String>(), app in any::<String>()) {
            let mut odd = event("p", "s");
            (odd.action, odd.pushsource, odd.source) = (action, source, format!("/tccc/{app}"));
            let batch = batch(u16::MAX, u64::MAX - 1, vec![odd]);
            let key = keys(KEY_DEFAULT, &batch).remove(0);
            prop_assert!(key.chars().all(|c| is_safe(c) || c == '/'), "{}", key);
            prop_assert!(key.split('/').count() == 6 && key.len() < 600, "{}", key);
            prop_assert!(!key.split('/').any(|segment| segment.bytes().all(|byte| byte == b'.')), "{}", key);
        }
    }
}
