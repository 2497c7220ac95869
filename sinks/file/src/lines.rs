//! From events to lines.

use sink_api::{Batch, Format};

/// The payloads of `batch`, a line each, the last one ended too.
///
/// A body in `raw` may hold line breaks. In JSON they can only stand between tokens, so each becomes a space and the text means
/// the same; in a body that is not JSON they become spaces too, since a line is an event.
pub(crate) fn of(batch: &Batch, format: Format) -> Vec<u8> {
    let mut lines = Vec::new();
    for entry in &batch.events {
        let payload = entry.event.payload(format);
        lines.extend(payload.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
        lines.push(b'\n');
    }
    lines
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sink_api::conformance::{batch, event};

    use super::*;

    #[test]
    fn a_body_over_several_lines_stays_one_line_with_the_same_meaning() {
        let mut spread = event("p-1", "s-1");
        spread.raw = Bytes::from_static(b"{\r\n  \"a\": \"b\\n\"\n}");
        let mut garbage = event("p-2", "s-1");
        garbage.raw = Bytes::from_static(b"\xff\n\xfe");
        let lines = of(&batch(0, 1, vec![spread, garbage]), Format::Raw);
        assert_eq!(lines, b"{    \"a\": \"b\\n\" }\n\xff \xfe\n");
    }
}
