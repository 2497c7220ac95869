//! What the journal asks of a file system, and the real one.
//!
//! Everything that touches the disk goes through [`FileSystem`], so that the tests can put one below it that loses unsynced bytes,
//! fails, fills up or flips bits at any operation. The real one is `std` and two system calls that `std` lacks.

use std::any::Any;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// An open file. Reads and writes name their place, so that a handle can be shared.
pub(super) trait FileHandle: Send + Sync {
    fn len(&self) -> io::Result<u64>;
    /// May give fewer bytes than asked for at the end of the file only.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;
    /// After an error any part of it may have been written.
    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves space up to `len` and makes the file at least that long. `Unsupported` where the file system cannot.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Data and what is needed to find it again are on stable storage when this returns.
    fn sync(&self) -> io::Result<()>;
}

pub(super) type Handle = Arc<dyn FileHandle>;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub name: String,
    pub is_dir: bool,
}

/// Held for as long as the directory is ours.
pub(super) type LockGuard = Box<dyn Any + Send + Sync>;

pub(super) trait FileSystem: Send + Sync + 'static {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// By name. A directory that is not there is empty.
    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>>;
    /// A new, empty file in place of whatever has that name.
    fn create(&self, path: &Path) -> io::Result<Handle>;
    fn open(&self, path: &Path) -> io::Result<Handle>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// A name that is not there counts as removed.
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in `dir` are on stable storage when this returns.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that an ordinary user can still write.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// `None` while another process holds it.
    fn try_lock(&self, path: &Path) -> io::Result<Option<LockGuard>>;
}

/// Fills `buffer` from `at`, or fails with `UnexpectedEof`.
pub(super) fn read_exact_at(file: &dyn FileHandle, buffer: &mut [u8], at: u64) -> io::Result<()> {
    match file.read_at(buffer, at)? {
        read if read == buffer.len() => Ok(()),
        _ => Err(ErrorKind::UnexpectedEof.into()),
    }
}

/// The whole file, but no more than `len_max` bytes of it.
pub(super) fn read_whole(file: &dyn FileHandle, len_max: u64) -> io::Result<Vec<u8>> {
    let len = file.len()?.min(len_max);
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| ErrorKind::FileTooLarge)?];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Writes a small file so that after a crash either the old or the new one is there, whole.
pub(super) fn replace_file(fs: &dyn FileSystem, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let file = fs.create(&temporary)?;
    file.write_all_at(bytes, 0)?;
    file.sync()?;
    fs.rename(&temporary, path)?;
    fs.sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// The disk itself.
pub(super) struct RealFileSystem;

struct RealFile(File);

impl FileSystem for RealFileSystem {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        let entries = match std::fs::read_dir(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut listed = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            listed.push(Listed { name, is_dir: entry.file_type()?.is_dir() });
        }
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    fn create(&self, path: &Path) -> io::Result<Handle> {
        // A new inode, never an old one cut short: an fsync that failed once on the old one says nothing about this.
        self.remove(path)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Handle> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            // Looking at a journal needs no right to change it.
            Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
                File::open(path)?
            }
            other => other?,
        };
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_dir(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<LockGuard>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl FileHandle for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        match fallocate(&self.0, FallocateFlags::empty(), 0, len) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Err(ErrorKind::Unsupported.into()),
            other => Ok(other?),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
