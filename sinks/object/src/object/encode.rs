//! From events to the bytes of one object, piece by piece.

use std::io;

use bytes::Bytes;
use parquet::errors::ParquetError;
use sink_api::{Event, Format};

use super::ndjson::Ndjson;
use super::parquet::Parquet;
use super::settings::{Compression, FileFormat, Settings};

/// How objects are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) format: Format,
    file_format: FileFormat,
    compression: Compression,
}

/// An encoder failed, which works in memory alone: a bug, or none left.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the compressor failed: {0}")]
    Compressor(#[from] io::Error),
    #[error("the Parquet writer failed: {0}")]
    Parquet(#[from] ParquetError),
}

pub(super) enum Encoder {
    Ndjson(Box<Ndjson>),
    Parquet(Box<Parquet>),
}

impl Layout {
    pub(super) fn of(settings: &Settings, format: Format) -> Self {
        Self { format, file_format: settings.file_format, compression: settings.compression }
    }

    /// What keys end with.
    pub(super) fn extension(self) -> &'static str {
        match (self.file_format, self.compression) {
            (FileFormat::Parquet, _) => ".parquet",
            (FileFormat::Ndjson, Compression::None) => ".ndjson",
            (FileFormat::Ndjson, Compression::Gzip) => ".ndjson.gz",
            (FileFormat::Ndjson, Compression::Zstd) => ".ndjson.zst",
        }
    }

    /// What the bytes are. There is no content encoding beside it: COS would drop it, and with it some clients and stores unpack an
    /// object unasked, so that its length and checksum are no longer those of what was stored.
    pub(super) fn content_type(self) -> &'static str {
        match (self.file_format, self.compression) {
            (FileFormat::Parquet, _) => "application/vnd.apache.parquet",
            (FileFormat::Ndjson, Compression::None) => "application/x-ndjson",
            (FileFormat::Ndjson, Compression::Gzip) => "application/gzip",
            (FileFormat::Ndjson, Compression::Zstd) => "application/zstd",
        }
    }

    /// For an object of events of `action`, or of any where they are lines.
    pub(super) fn encoder(self, action: &str) -> Result<Encoder, Error> {
        Ok(match self.file_format {
            FileFormat::Ndjson => Encoder::Ndjson(Box::new(Ndjson::new(self.format, self.compression)?)),
            FileFormat::Parquet => Encoder::Parquet(Box::new(Parquet::new(action, self.compression)?)),
        })
    }
}

impl Encoder {
    pub(super) fn add(&mut self, event: &Event) -> Result<(), Error> {
        match self {
            Self::Ndjson(file) => Ok(file.add(event)?),
            Self::Parquet(file) => Ok(file.add(event)?),
        }
    }

    /// What can go out already; often nothing.
    pub(super) fn take(&mut self) -> Bytes {
        Bytes::from(match self {
            Self::Ndjson(file) => file.take(),
            Self::Parquet(file) => file.take(),
        })
    }

    /// What remains.
    pub(super) fn finish(self) -> Result<Bytes, Error> {
        Ok(Bytes::from(match self {
            Self::Ndjson(file) => file.finish()?,
            Self::Parquet(file) => file.finish()?,
        }))
    }
}
