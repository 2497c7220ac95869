//! What can go wrong with a file, and which fault that is to the pipeline. All of it is trouble of the sink as a whole.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use sink_api::Fault;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// `step` is a participle: `opened`, `written`, …
    #[error("{} cannot be {step}: {source}", path.display())]
    Io { step: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is not a regular file; write \"-\" as the path for standard output", path.display())]
    NotAFile { path: PathBuf },
    #[error("{} was deleted while it was being written", path.display())]
    Deleted { path: PathBuf },
    #[error("{} has {free_bytes} bytes of free space, {needed_bytes} are needed", path.display())]
    NoSpace { path: PathBuf, free_bytes: u64, needed_bytes: u64 },
    #[error("the reader of standard output has gone")]
    NoReader,
    #[error("the file did not answer within {limit:?}")]
    TimedOut { limit: Duration },
    #[error("the gateway is stopping")]
    Stopping,
}

/// For `map_err`: what was being done to which file.
pub(crate) fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { step, path: path.to_owned(), source }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Io { source, .. } => code(source),
            Error::NotAFile { .. } => "not-a-file",
            Error::Deleted { .. } => "file-deleted",
            Error::NoSpace { .. } => "disk-full",
            Error::NoReader => "pipe-closed",
            Error::TimedOut { .. } => "timeout",
            Error::Stopping => "stopping",
        };
        Self::new(code, error.to_string())
    }
}

fn code(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::NOSPC) => "disk-full",
        Some(Errno::DQUOT) => "quota-exceeded",
        Some(Errno::FBIG) => "file-too-large",
        Some(Errno::ACCESS | Errno::PERM) => "permission-denied",
        Some(Errno::ROFS) => "read-only",
        Some(Errno::NOENT) => "not-found",
        Some(Errno::NOTDIR) => "not-a-directory",
        Some(Errno::ISDIR) => "is-a-directory",
        Some(Errno::NAMETOOLONG | Errno::LOOP | Errno::INVAL) => "bad-path",
        Some(Errno::MFILE | Errno::NFILE) => "too-many-open-files",
        Some(Errno::STALE) => "stale-handle",
        Some(Errno::TIMEDOUT) => "timeout",
        Some(Errno::PIPE) => "pipe-closed",
        // EIO, and whatever else a file system thinks of.
        _ => "io-error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_names_the_code_the_path_and_the_cause() {
        let source = io::Error::from(Errno::NOSPC);
        let fault = Fault::from(failed("written", Path::new("data/events.ndjson"))(source));
        assert_eq!(fault.code, "disk-full");
        assert!(fault.reason.starts_with("data/events.ndjson cannot be written: No space left"), "{}", fault.reason);
    }
}
