//! `traceparent` to span context and back (W3C Trace Context §3.2). What is read here was checked when the push came.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};

/// The trace id of a `traceparent`: 32 hex digits. `None` where it is none.
pub fn trace_id(traceparent: &str) -> Option<&str> {
    traceparent.split('-').nth(1).filter(|id| id.len() == 32)
}

/// The span that `traceparent` names, in another process. `None` where it names none.
pub(super) fn read(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
    let context = SpanContext::new(trace, span, TraceFlags::new(flags), true, TraceState::default());
    context.is_valid().then_some(context)
}

pub(super) fn remote(span: SpanContext) -> Context {
    Context::new().with_remote_span_context(span)
}

/// In the form of version 00: 55 characters. Of the flags only `sampled` is known.
pub(super) fn write(span: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), u8::from(span.is_sampled()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(write(&read(text).unwrap()), text);
        assert_eq!(trace_id(text), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    }

    #[test]
    fn what_names_no_span_is_none() {
        for text in ["", "00-1", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", "00-x-y-01"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
