//! How trouble with the storage is said: one log line, one count, and, for damage, the bytes set aside.

use std::path::Path;

use crate::metrics::JournalMetrics;

use super::fs::{FileHandle, FileSystem};
use super::scan::Stretch;

/// No more of a damaged stretch is kept than this.
const KEPT_BYTES_MAX: u64 = 4 << 20;
/// No more files are kept than this; what is damaged beyond is reported only.
const KEPT_FILES_MAX: usize = 256;

#[derive(Clone)]
pub(super) struct Reporter {
    pub metrics: JournalMetrics,
}

impl Reporter {
    /// Something that was durable cannot be read. A person must look.
    pub(super) fn corrupt(&self, path: &Path, position: u64, detail: &str) {
        self.count("corrupt");
        tracing::error!(file = %file_name(path), position, detail, "journal data is damaged; the rest is served");
    }

    /// A write that a crash cut off; it was not acknowledged.
    pub(super) fn torn(&self, path: &Path, stretch: Stretch) {
        self.count("torn");
        let (position, bytes) = (stretch.at, stretch.len);
        tracing::warn!(file = %file_name(path), position, bytes, "an unfinished write was cut off");
    }

    /// `kind` is one of [`crate::metrics::JOURNAL_ERRORS`].
    pub(super) fn count(&self, kind: &'static str) {
        self.metrics.errors.with_label_values(&[kind]).inc();
    }
}

/// Copies a stretch of a file into `quarantine`, for a person to look at. Best effort: the journal goes on without.
pub(super) fn set_aside(fs: &dyn FileSystem, quarantine: &Path, path: &Path, file: &dyn FileHandle, stretch: Stretch) {
    let copy = || -> std::io::Result<()> {
        fs.create_dir_all(quarantine)?;
        if fs.list(quarantine)?.len() >= KEPT_FILES_MAX {
            return Ok(());
        }
        let mut bytes = vec![0; stretch.len.min(KEPT_BYTES_MAX) as usize];
        let read = file.read_at(&mut bytes, stretch.at)?;
        let name = format!("{}-{}.bytes", file_name(path), stretch.at);
        fs.create(&quarantine.join(name))?.write_all_at(&bytes[..read], 0)
    };
    if let Err(error) = copy() {
        tracing::warn!(file = %file_name(path), %error, "damaged bytes could not be copied to quarantine");
    }
}

/// Moves a whole file into `quarantine`.
pub(super) fn move_aside(fs: &dyn FileSystem, quarantine: &Path, path: &Path) {
    let moved = fs.create_dir_all(quarantine).and_then(|()| {
        let name = file_name(path);
        let taken = fs.list(quarantine)?;
        let free = (0..).map(|number| format!("{name}.{number}")).find(|name| taken.iter().all(|it| it.name != *name));
        fs.rename(path, &quarantine.join(free.expect("numbers do not end")))
    });
    if let Err(error) = moved {
        tracing::warn!(file = %file_name(path), %error, "a file could not be moved to quarantine");
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
