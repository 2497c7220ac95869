//! Sinks on a broker, and what became of a batch.

use std::sync::Arc;

use sink_amqp::Amqp;
use sink_api::conformance::{batch, event};
use sink_api::{Context, Event, Format, Outcome, Sink, SinkKind as _};

/// A sink with these settings.
pub fn sink_at(url: &str, toml: &str) -> Arc<dyn Sink> {
    let settings = toml::from_str(&format!("url = \"{url}\"\n{toml}")).unwrap();
    let context = Context { name: "queue".into(), format: Format::CloudEvents };
    assert_eq!(Amqp::check(&settings, &context), []);
    Amqp::build(settings, context).unwrap()
}

/// Events `<name>-<n>`, each of a session of its own.
pub fn events(name: &str, count: usize) -> Vec<Event> {
    (0..count).map(|n| event(&format!("{name}-{n}"), &format!("{name}-s{n}"))).collect()
}

/// What became of each, in a word: `delivered`, or the code of its fault behind what follows from it.
pub async fn deliver(sink: &Arc<dyn Sink>, events: Vec<Event>) -> Vec<String> {
    let word = |outcome: Outcome| match outcome {
        Outcome::Delivered { .. } => "delivered".to_owned(),
        Outcome::Retry { fault, burns_attempt: true, .. } => format!("retry {}", fault.code),
        Outcome::Retry { fault, .. } => format!("patience {}", fault.code),
        Outcome::Rejected { fault } => format!("rejected {}", fault.code),
        Outcome::Unavailable { fault, .. } => format!("away {}", fault.code),
    };
    sink.deliver(&batch(0, 1, events)).await.into_iter().map(word).collect()
}

/// One word for all events.
pub async fn deliver_alike(sink: &Arc<dyn Sink>, events: Vec<Event>) -> String {
    let mut words = deliver(sink, events).await;
    words.dedup();
    words.join(", ")
}
