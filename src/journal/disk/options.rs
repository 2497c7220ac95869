//! How a disk journal is opened, and why that may fail.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Where the journal lies and how much it may take.
#[derive(Debug, Clone)]
pub struct Options {
    /// Made where it is missing.
    pub dir: PathBuf,
    /// Bytes of one segment file. Taken as half of `size_max` where it is greater than that: with less than two segments nothing
    /// could be given back while pushes come.
    pub segment_size: u64,
    /// Bound on the bytes of all segments, the one being written counted in full. At it new pushes are refused.
    pub size_max: u64,
    /// Free bytes of the file system below which new pushes are refused, so that checkpoints and dead letters can still be
    /// written.
    pub reserve: u64,
    /// How long a push id is remembered, by the time at which pushes were received.
    pub dedup_window: Duration,
}

impl Options {
    /// A segment is at least this large, and at most what a place in it (32 bits) can say.
    const SEGMENT_SIZE: std::ops::RangeInclusive<u64> = 4096..=u32::MAX as u64;

    pub(super) fn normalised(mut self) -> Self {
        let (least, most) = Self::SEGMENT_SIZE.into_inner();
        self.segment_size = self.segment_size.min(self.size_max / 2).clamp(least, most);
        self
    }

    pub(super) fn window_ms(&self) -> i64 {
        i64::try_from(self.dedup_window.as_millis()).unwrap_or(i64::MAX)
    }
}

/// The journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the journal in {} is in use by another process; stop it, or give this one a directory of its own (journal.disk.dir)",
        dir.display()
    )]
    Held { dir: PathBuf },
    #[error("cannot {action} {}: {source}", path.display())]
    Io { path: PathBuf, action: &'static str, source: io::Error },
    #[error(
        "{} is not a file of this gateway; give the journal a directory of its own (journal.disk.dir)",
        path.display()
    )]
    Foreign { path: PathBuf },
    #[error(
        "{} was written by a later version (format {found}, this one knows {known}); run that version",
        path.display()
    )]
    NewerVersion { path: PathBuf, found: u32, known: u32 },
}

impl OpenError {
    /// For `map_err`.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, action, source }
    }
}
