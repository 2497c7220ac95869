//! Events as lines, compressed as they come.
//!
//! The compressors are told nothing but the bytes, no time and no name, and always work with the same settings, so that the same events
//! make the same file.

use std::io::{self, Write};

use flate2::write::GzEncoder;
use sink_api::{Event, Format};
use zstd::stream::write::Encoder as ZstdEncoder;

use super::settings::Compression;

/// The level that zstd calls its default.
const ZSTD_LEVEL: i32 = 3;
const GZIP_LEVEL: u32 = 6;

pub(super) struct Ndjson {
    format: Format,
    lines: Lines,
}

enum Lines {
    Plain(Vec<u8>),
    Gzip(Box<GzEncoder<Vec<u8>>>),
    Zstd(Box<ZstdEncoder<'static, Vec<u8>>>),
}

impl Ndjson {
    pub(super) fn new(format: Format, compression: Compression) -> io::Result<Self> {
        let lines = match compression {
            Compression::None => Lines::Plain(Vec::new()),
            Compression::Gzip => {
                Lines::Gzip(Box::new(GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL))))
            }
            Compression::Zstd => {
                let mut encoder = ZstdEncoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                Lines::Zstd(Box::new(encoder))
            }
        };
        Ok(Self { format, lines })
    }

    /// A body in `raw` may hold line breaks. In JSON they can only stand between tokens, so each becomes a space and the text means the
    /// same; in a body that is not JSON they become spaces too, since a line is an event.
    pub(super) fn add(&mut self, event: &Event) -> io::Result<()> {
        let mut line = Vec::from(event.payload(self.format));
        line.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        line.push(b'\n');
        match &mut self.lines {
            Lines::Plain(buffer) => buffer.write_all(&line),
            Lines::Gzip(encoder) => encoder.write_all(&line),
            Lines::Zstd(encoder) => encoder.write_all(&line),
        }
    }

    /// What can go out already.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(match &mut self.lines {
            Lines::Plain(buffer) => buffer,
            Lines::Gzip(encoder) => encoder.get_mut(),
            Lines::Zstd(encoder) => encoder.get_mut(),
        })
    }

    /// What remains.
    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        match self.lines {
            Lines::Plain(buffer) => Ok(buffer),
            Lines::Gzip(encoder) => encoder.finish(),
            Lines::Zstd(encoder) => encoder.finish(),
        }
    }
}
