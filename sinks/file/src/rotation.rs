//! When a file moves aside, and to which name.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

/// Where the limits of a file lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) size_bytes_max: Option<u64>,
    pub(crate) age_max: Option<Duration>,
}

impl Limits {
    /// Whether the file has to move aside before `added_bytes` more go into it. An empty file never does, so that a batch larger
    /// than the limit has a place.
    pub(crate) fn are_reached(&self, size_bytes: u64, added_bytes: u64, begun: Timestamp, now: Timestamp) -> bool {
        let too_large = self.size_bytes_max.is_some_and(|max| size_bytes.saturating_add(added_bytes) > max);
        let age = Duration::try_from(now.duration_since(begun)).unwrap_or(Duration::ZERO);
        let too_old = self.age_max.is_some_and(|max| age > max);
        size_bytes > 0 && (too_large || too_old)
    }
}

/// The first free name for `path` that is moved aside at `now`: `<stem>-<UTC time>.<extension>`, then `…_002`, `_003`, …, so that
/// names sort as the files were written. A file without an extension gets `ndjson`.
pub(crate) fn name_aside(path: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or("ndjson".into(), |extension| extension.to_string_lossy());
    let time = now.strftime("%Y%m%dT%H%M%SZ");
    let mut name = path.with_file_name(format!("{stem}-{time}.{extension}"));
    let mut number = 1;
    while name.symlink_metadata().is_ok() {
        number += 1;
        name = path.with_file_name(format!("{stem}-{time}_{number:03}.{extension}"));
    }
    match name.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(name),
        Err(error) => Err(error),
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_taken_twice() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let names =
            ["events-19700101T000000Z.log", "events-19700101T000000Z_002.log", "events-19700101T000000Z_003.log"];
        for expected in names {
            let name = name_aside(&dir.path().join("events.log"), now).unwrap();
            assert_eq!(name.file_name().unwrap(), expected);
            std::fs::write(name, "").unwrap();
        }
        assert!(names.is_sorted());
        let name = name_aside(&dir.path().join("events"), now).unwrap();
        assert_eq!(name.file_name().unwrap(), "events-19700101T000000Z.ndjson");
    }

    #[test]
    fn limits_are_reached_by_size_or_age_but_never_by_an_empty_file() {
        let limits = Limits { size_bytes_max: Some(10), age_max: Some(Duration::from_secs(60)) };
        let begun = Timestamp::UNIX_EPOCH;
        let after = |seconds| Timestamp::from_second(seconds).unwrap();
        assert!(!limits.are_reached(5, 5, begun, after(60)));
        assert!(limits.are_reached(5, 6, begun, after(0)));
        assert!(limits.are_reached(5, 1, begun, after(61)));
        assert!(!limits.are_reached(0, 11, begun, after(61)));
        assert!(!limits.are_reached(5, 1, begun, after(-61)), "a clock that went back");
    }
}
