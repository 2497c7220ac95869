//! The columns of a Parquet file: per action one fixed list, the attributes of the event before the fields of its `data`.
//!
//! Objects within `data` are flattened, their names joined with `_`; lists and `extra` are JSON text. The lists are those of the
//! published schemas in `deploy/schemas`, which a test holds them against; what an event has beyond them, or in another type because a
//! mask changed it, is kept in the last column, `rest`.

/// A column that is filled from `data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Where it stands in `data`: a name, or an object's and one within it, joined by a dot.
    path: &'static str,
    pub kind: Kind,
}

/// What a column holds. Every column filled from `data` can be null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `BYTE_ARRAY`, a string.
    Text,
    /// `BYTE_ARRAY`, a string that is JSON.
    Json,
    /// `INT64`, milliseconds of UTC.
    Time,
    /// `INT64`.
    Integer,
    /// `DOUBLE`.
    Number,
}

/// An attribute, which kind it is, and whether every event has it.
pub const ATTRIBUTES: [(&str, Kind, bool); 12] = [
    ("specversion", Kind::Text, true),
    ("id", Kind::Text, true),
    ("source", Kind::Text, true),
    ("type", Kind::Text, true),
    ("subject", Kind::Text, false),
    ("time", Kind::Time, true),
    ("datacontenttype", Kind::Text, true),
    ("dataschema", Kind::Text, true),
    ("recordedtime", Kind::Time, true),
    ("partitionkey", Kind::Text, true),
    ("pushsource", Kind::Text, true),
    ("traceparent", Kind::Text, false),
];

/// The last column: a JSON object of what no other column holds, by the names of columns; else null.
pub const REST: &str = "rest";

impl Column {
    /// Its name in the file.
    pub fn name(&self) -> String {
        self.path.replace('.', "_")
    }

    /// The field of `data`, and the one within it where the former is an object.
    pub(super) fn steps(&self) -> (&'static str, Option<&'static str>) {
        self.path.split_once('.').map_or((self.path, None), |(outer, inner)| (outer, Some(inner)))
    }
}

impl Kind {
    /// As the README calls it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "JSON text",
            Self::Time => "timestamp (ms, UTC)",
            Self::Integer => "integer",
            Self::Number => "double",
        }
    }
}

/// The actions that have a list of their own, by the name of their schema; all others have that of `other`.
pub const ACTIONS: [(&str, &[Column]); 7] = [
    ("cdr", CDR),
    ("imcdr", IMCDR),
    ("videocdr", VIDEO),
    ("record", RECORDING),
    ("voicemail", RECORDING),
    ("recording.archived", ARCHIVED),
    ("other", OTHER),
];

/// The columns of `action`'s `data`, compared without case.
pub fn columns(action: &str) -> &'static [Column] {
    let own = ACTIONS.iter().find(|(name, _)| action.eq_ignore_ascii_case(name));
    own.map_or(OTHER, |(_, columns)| columns)
}

const fn text(path: &'static str) -> Column {
    Column { path, kind: Kind::Text }
}

const fn json(path: &'static str) -> Column {
    Column { path, kind: Kind::Json }
}

const fn time(path: &'static str) -> Column {
    Column { path, kind: Kind::Time }
}

const fn integer(path: &'static str) -> Column {
    Column { path, kind: Kind::Integer }
}

const fn number(path: &'static str) -> Column {
    Column { path, kind: Kind::Number }
}

const CDR: &[Column] = &[
    time("accepted_at"),
    text("agent.email"),
    text("agent.name"),
    text("agent.nickname"),
    text("agent.phone"),
    json("agent.skill_groups"),
    text("agent.staff_number"),
    text("agent.user_id"),
    text("call_type"),
    text("callee"),
    text("caller"),
    text("caller_location"),
    text("direction"),
    integer("duration_seconds"),
    text("end_state.class"),
    text("end_state.raw"),
    time("ended_at"),
    json("extra"),
    text("hung_up_by"),
    integer("ivr_duration_seconds"),
    json("ivr_keys"),
    json("participants"),
    text("phone_location.city"),
    text("phone_location.country"),
    text("phone_location.number"),
    text("phone_location.operator"),
    text("phone_location.province"),
    text("queue.id"),
    text("queue.name"),
    time("queued_at"),
    json("rating_keys"),
    text("recording_id"),
    text("remark"),
    time("ringing_at"),
    integer("sdk_app_id"),
    text("session_id"),
    time("started_at"),
    text("uui"),
    json("warnings"),
];

const IMCDR: &[Column] = &[
    time("accepted_at"),
    text("agent.email"),
    text("agent.name"),
    text("agent.nickname"),
    text("agent.phone"),
    json("agent.skill_groups"),
    text("agent.staff_number"),
    text("agent.user_id"),
    text("client_data"),
    integer("duration_seconds"),
    text("end_state.class"),
    text("end_state.raw"),
    time("ended_at"),
    json("extra"),
    integer("ivr_duration_seconds"),
    json("ivr_keys"),
    text("queue.id"),
    text("queue.name"),
    time("queued_at"),
    text("remark"),
    time("ringing_at"),
    text("satisfaction.content"),
    text("satisfaction.id"),
    integer("sdk_app_id"),
    text("session_id"),
    time("started_at"),
    text("user_id"),
    text("user_nickname"),
    json("warnings"),
];

const VIDEO: &[Column] = &[
    time("accepted_at"),
    text("agent.email"),
    text("agent.name"),
    text("agent.nickname"),
    text("agent.phone"),
    json("agent.skill_groups"),
    text("agent.staff_number"),
    text("agent.user_id"),
    text("client_data"),
    integer("duration_seconds"),
    text("end_state.class"),
    text("end_state.raw"),
    time("ended_at"),
    json("extra"),
    text("queue.id"),
    text("queue.name"),
    text("remark"),
    integer("sdk_app_id"),
    text("session_id"),
    time("started_at"),
    text("user_id"),
    text("user_nickname"),
    json("warnings"),
];

const RECORDING: &[Column] = &[
    text("custom_url"),
    text("endpoint"),
    json("extra"),
    time("recorded_at"),
    text("recording_id"),
    integer("sdk_app_id"),
    text("session_id"),
    text("url"),
    json("warnings"),
];

const ARCHIVED: &[Column] = &[
    text("bucket"),
    text("content_type"),
    number("duration_seconds"),
    text("event_id"),
    json("extra"),
    text("key"),
    integer("length_bytes"),
    text("recording_id"),
    integer("sdk_app_id"),
    text("session_id"),
    text("sha256"),
    json("warnings"),
];

const OTHER: &[Column] = &[json("extra"), integer("sdk_app_id"), text("session_id"), json("warnings")];
