//! The kinds of sinks that this gateway has: one line each. The only file that names sink crates.

use crate::config::{Kind, Kinds};

/// Every kind that `type` in a `[sinks.NAME]` can name.
pub fn kinds() -> Kinds {
    Kinds::new(vec![
        Kind::of::<sink_file::File>(),
        Kind::of::<sink_http::Http>(),
        Kind::of::<sink_kafka::Kafka>(),
        Kind::of::<sink_amqp::Amqp>(),
        Kind::of::<sink_object::Object>(),
        Kind::of::<sink_object::Recordings>(),
    ])
}
