//! Traces for an OpenTelemetry collector: one span per push, and below it one per attempt to deliver its event.
//!
//! ```text
//! sender's span (traceparent) ─▶ push cdr            from the request to its answer
//!                                 ├─ deliver events  one attempt at one sink
//!                                 └─ deliver crm
//! ```
//!
//! Where tracing is on, the push's own span is the trace context that the journal keeps and every sink hands on; without a valid
//! `traceparent` a trace begins here. Where it is off, what came is handed on as it came. The context of a delivery is not handed
//! on: an event has the same bytes at every attempt.
//!
//! A span holds names from the config, the push id, outcomes and codes. It never holds what came in a body or a URL. Spans wait in
//! a bounded queue and are dropped when it is full: nothing ever waits for the collector.

mod context;
mod export;

use std::time::SystemTime;

use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status, TracerProvider as _};
use opentelemetry_sdk::trace::{SdkTracer, Span};

pub use self::context::trace_id;
pub use self::export::{Export, SetupError};
use crate::names::{PushId, SinkName, SourceName};

/// Begins spans; does nothing where tracing is off. Clones share one queue.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<SdkTracer>);

/// A push, from its request to its answer.
#[derive(Debug)]
pub struct PushSpan {
    span: Option<Box<Span>>,
    incoming: Option<String>,
}

/// One attempt to deliver the event of one push.
#[derive(Debug)]
pub struct DeliverySpan(Option<Box<Span>>);

impl Tracer {
    /// Begins no spans.
    pub const fn off() -> Self {
        Self(None)
    }

    /// Begins the span of a push that was asked for at `begun`. `action` is one of the known ones or `other`; `incoming` is a
    /// valid `traceparent`.
    pub fn push(&self, source: &SourceName, action: &str, incoming: Option<String>, begun: SystemTime) -> PushSpan {
        let span = self.0.as_ref().map(|tracer| {
            let source = KeyValue::new("trunkline.source", source.as_str().to_owned());
            let action_named = KeyValue::new("trunkline.action", action.to_owned());
            let builder = SpanBuilder::from_name(format!("push {action}"))
                .with_kind(SpanKind::Server)
                .with_start_time(begun)
                .with_attributes([source, action_named]);
            start(tracer, builder, incoming.as_deref())
        });
        PushSpan { span, incoming }
    }

    /// Begins the span of an attempt, the first being 1, at `sink`. `traceparent` is the one that the push is kept with.
    pub fn delivery(&self, sink: &SinkName, id: &PushId, traceparent: Option<&str>, attempt: u32) -> DeliverySpan {
        DeliverySpan(self.0.as_ref().map(|tracer| {
            let builder =
                SpanBuilder::from_name(format!("deliver {sink}")).with_kind(SpanKind::Producer).with_attributes([
                    KeyValue::new("trunkline.sink", sink.as_str().to_owned()),
                    KeyValue::new("trunkline.push_id", id.as_str().to_owned()),
                    KeyValue::new("trunkline.attempt", i64::from(attempt)),
                ]);
            start(tracer, builder, traceparent)
        }))
    }
}

fn start(tracer: &SdkTracer, builder: SpanBuilder, parent: Option<&str>) -> Box<Span> {
    let parent = parent.and_then(context::read).map(context::remote).unwrap_or_default();
    Box::new(builder.start_with_context(tracer, &parent))
}

impl PushSpan {
    /// The trace context to keep with the push: this span's, or what came where tracing is off.
    pub fn traceparent(&self) -> Option<String> {
        match &self.span {
            Some(span) => Some(context::write(span.span_context())),
            None => self.incoming.clone(),
        }
    }

    /// Says which push it is, as soon as that is known.
    pub fn is_of(&mut self, id: &PushId) {
        if let Some(span) = &mut self.span {
            span.set_attribute(KeyValue::new("trunkline.push_id", id.as_str().to_owned()));
        }
    }

    /// Ends with what became of the push, in the words of `ingress_pushes_total`. `is_our_fault` marks the span as failed.
    pub fn end(self, outcome: &'static str, is_our_fault: bool) {
        let Some(mut span) = self.span else { return };
        span.set_attribute(KeyValue::new("trunkline.outcome", outcome));
        if is_our_fault {
            span.set_status(Status::error(outcome));
        }
        span.end();
    }
}

impl DeliverySpan {
    /// Ends with the outcome, in the words of `sink_attempts_total`, and the fault's code where there is one.
    pub fn end(self, outcome: &'static str, code: Option<&str>) {
        let Some(mut span) = self.0 else { return };
        span.set_attribute(KeyValue::new("trunkline.outcome", outcome));
        if let Some(code) = code {
            span.set_attribute(KeyValue::new("error.type", code.to_owned()));
            span.set_status(Status::error(code.to_owned()));
        }
        span.end();
    }
}

impl From<&opentelemetry_sdk::trace::SdkTracerProvider> for Tracer {
    fn from(provider: &opentelemetry_sdk::trace::SdkTracerProvider) -> Self {
        Self(Some(provider.tracer("trunkline")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INCOMING: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn on() -> Tracer {
        Tracer::from(&opentelemetry_sdk::trace::SdkTracerProvider::builder().build())
    }

    fn push(tracer: &Tracer, incoming: Option<&str>) -> Option<String> {
        tracer.push(&"main".into(), "cdr", incoming.map(str::to_owned), SystemTime::now()).traceparent()
    }

    #[test]
    fn off_hands_on_what_came() {
        assert_eq!(push(&Tracer::off(), Some(INCOMING)).as_deref(), Some(INCOMING));
        assert_eq!(push(&Tracer::off(), None), None);
    }

    #[test]
    fn on_continues_the_trace_under_a_span_of_its_own() {
        let kept = push(&on(), Some(INCOMING)).unwrap();
        assert_eq!(trace_id(&kept), trace_id(INCOMING));
        assert_ne!(kept, INCOMING);
        assert!(kept.ends_with("-01"), "the sender's decision to sample holds: {kept}");
    }

    #[test]
    fn on_begins_a_trace_where_none_came() {
        let (first, second) = (push(&on(), None).unwrap(), push(&on(), None).unwrap());
        assert_ne!(trace_id(&first), trace_id(&second));
    }

    #[test]
    fn a_trace_that_its_sender_does_not_sample_stays_unsampled() {
        let incoming = INCOMING.replace("-01", "-00");
        let kept = push(&on(), Some(&incoming)).unwrap();
        assert!(kept.ends_with("-00") && trace_id(&kept) == trace_id(&incoming), "{kept}");
    }
}
