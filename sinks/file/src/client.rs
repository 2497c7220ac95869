//! The file itself: appending to it so that a reader meets whole lines, whatever happened before.
//!
//! One append, under an advisory lock on the file, so that other instances and processes that keep to it interleave whole batches:
//!
//! ```text
//! open, or create and fsync the directory ─▶ same file as the path names? ─▶ settle the tail ─▶ rotate if due
//!   ─▶ write ─▶ fdatasync ─▶ still linked? ─▶ confirmed         any failure: cut back to the confirmed length, drop the handle
//! ```
//!
//! The handle is kept between appends and never trusted after an error, since a failed fsync may have forgotten what it lost.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{Access, access, statvfs};
use serde::de::IgnoredAny;

use crate::error::{Error, failed};
use crate::rotation::{Limits, name_aside};
use crate::settings::Settings;

/// Events hold personal data: not for everybody. The umask takes away more.
const FILE_MODE: u32 = 0o640;
const DIR_MODE: u32 = 0o750;

/// A longer tail without a line break is no line of ours, and is closed rather than cut.
const TAIL_SIZE_MAX: u64 = 16 << 20;

/// A file that is replaced this often while it is being opened is given up until the next call.
const REPLACED_TIMES_MAX: usize = 8;

pub(crate) struct LogFile {
    path: PathBuf,
    limits: Limits,
    handle: Option<Handle>,
    /// What a failed append may have left behind and could not cut.
    doubtful: Option<Doubtful>,
    /// How much space the last append lacked, or might have.
    needed_bytes: u64,
}

struct Handle {
    file: File,
    begun: Timestamp,
    /// The length after the last confirmed append. Another length means that somebody else wrote.
    confirmed_len: Option<u64>,
}

struct Doubtful {
    device: u64,
    inode: u64,
    confirmed_len: u64,
    len: u64,
}

impl LogFile {
    pub(crate) fn new(settings: &Settings) -> Self {
        let limits = Limits {
            size_bytes_max: settings.rotate_size_max.map(|size| size.0),
            age_max: settings.rotate_age_max.map(|age| age.0),
        };
        Self { path: settings.path.clone(), limits, handle: None, doubtful: None, needed_bytes: 0 }
    }

    /// Appends whole lines. On `Ok` they are on stable storage; on `Err` none of them counts.
    pub(crate) fn append(&mut self, lines: &[u8], now: Timestamp) -> Result<(), Error> {
        let appended = self.append_locked(lines, now);
        match &appended {
            Ok(()) => self.needed_bytes = 0,
            Err(_) => {
                self.handle = None;
                self.needed_bytes = lines.len() as u64;
            }
        }
        appended
    }

    fn append_locked(&mut self, lines: &[u8], now: Timestamp) -> Result<(), Error> {
        let mut handle = self.lock_current(now)?;
        let mut broken_line = self.settle_tail(&handle)?;
        let len = handle.file.metadata().map_err(failed("examined", &self.path))?.len();
        if self.limits.are_reached(len, lines.len() as u64, handle.begun, now) {
            self.move_aside(now)?;
            drop(handle);
            handle = self.lock_current(now)?;
            broken_line = self.settle_tail(&handle)?;
        }
        let before = handle.file.metadata().map_err(failed("examined", &self.path))?;
        let written = if broken_line {
            write_synced(&handle.file, &[b"\n", lines].concat())
        } else {
            write_synced(&handle.file, lines)
        };
        if let Err(error) = written {
            self.take_back(&handle.file, &before);
            return Err(failed("written", &self.path)(error));
        }
        let after = handle.file.metadata().map_err(failed("examined", &self.path))?;
        if after.nlink() == 0 {
            return Err(Error::Deleted { path: self.path.clone() });
        }
        handle.confirmed_len = Some(after.len());
        unlock(&handle.file).map_err(failed("unlocked", &self.path))?;
        self.handle = Some(handle);
        Ok(())
    }

    /// Whether an append would find what it needs. Creates nothing.
    pub(crate) fn probe(&mut self) -> Result<(), Error> {
        let existing = match self.path.metadata() {
            Ok(metadata) if !metadata.is_file() => return Err(Error::NotAFile { path: self.path.clone() }),
            Ok(_) => self.path.as_path(),
            Err(error) if error.kind() == ErrorKind::NotFound => nearest_existing(&self.path),
            Err(error) => return Err(failed("examined", &self.path)(error)),
        };
        let wanted =
            if existing == self.path { Access::READ_OK | Access::WRITE_OK } else { Access::WRITE_OK | Access::EXEC_OK };
        let step = if existing == self.path { "written" } else { "created in" };
        access(existing, wanted).map_err(io::Error::from).map_err(failed(step, existing))?;
        let space = statvfs(existing).map_err(io::Error::from).map_err(failed("examined", existing))?;
        let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
        // A file system without fixed size says 0 of 0 blocks.
        if space.f_blocks > 0 && free_bytes < self.needed_bytes.max(1) {
            let needed_bytes = self.needed_bytes.max(1);
            return Err(Error::NoSpace { path: existing.to_owned(), free_bytes, needed_bytes });
        }
        Ok(())
    }

    pub(crate) fn close(&mut self) {
        self.handle = None;
    }

    /// The locked handle of the file that the path names now. Whoever held the lock before may have moved the file aside, so the
    /// path is asked again once the lock is held.
    fn lock_current(&mut self, now: Timestamp) -> Result<Handle, Error> {
        for _ in 0..REPLACED_TIMES_MAX {
            let handle = match self.handle.take() {
                Some(handle) => handle,
                None => self.open(now)?,
            };
            lock(&handle.file).map_err(failed("locked", &self.path))?;
            let held = handle.file.metadata().map_err(failed("examined", &self.path))?;
            match self.path.metadata() {
                Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => return Ok(handle),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(failed("examined", &self.path)(error)),
            }
        }
        Err(Error::Deleted { path: self.path.clone() })
    }

    fn open(&self, now: Timestamp) -> Result<Handle, Error> {
        if let Some(dir) = parent(&self.path) {
            create_dir_synced(dir).map_err(failed("created", dir))?;
        }
        // Asked before opening: opening a pipe would wait for its reader.
        if self.path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return Err(Error::NotAFile { path: self.path.clone() });
        }
        let mut options = OpenOptions::new();
        let options = options.read(true).append(true).create(true).mode(FILE_MODE);
        let file = options.open(&self.path).map_err(failed("opened", &self.path))?;
        // Also for a file that exists: whoever created it may have died before this.
        let real_path = self.path.canonicalize().map_err(failed("examined", &self.path))?;
        sync_dir(parent(&real_path).unwrap_or(Path::new("/"))).map_err(failed("synced", &self.path))?;
        let created = file.metadata().and_then(|metadata| metadata.created());
        let begun = created.ok().and_then(|time| Timestamp::try_from(time).ok()).unwrap_or(now);
        Ok(Handle { file, begun, confirmed_len: None })
    }

    /// Cuts what was half-written. True if a broken line remains that the next write has to close.
    fn settle_tail(&mut self, handle: &Handle) -> Result<bool, Error> {
        let metadata = handle.file.metadata().map_err(failed("examined", &self.path))?;
        if handle.confirmed_len == Some(metadata.len()) {
            return Ok(false);
        }
        let mut len = metadata.len();
        if let Some(doubtful) = self.doubtful.take_if(|doubtful| doubtful.is_of(&metadata))
            && handle.file.set_len(doubtful.confirmed_len).is_ok()
        {
            len = doubtful.confirmed_len;
        }
        let Tail { start, is_whole } = Tail::of(&handle.file, len).map_err(failed("read", &self.path))?;
        if start == len {
            return Ok(false);
        }
        let cuttable = !is_whole && len - start <= TAIL_SIZE_MAX;
        // Where a file may only grow, the broken line stays and is closed: one line is damaged, not two.
        Ok(!(cuttable && handle.file.set_len(start).is_ok()))
    }

    fn move_aside(&self, now: Timestamp) -> Result<(), Error> {
        let real_path = self.path.canonicalize().map_err(failed("examined", &self.path))?;
        let aside = name_aside(&real_path, now).map_err(failed("rotated", &self.path))?;
        std::fs::rename(&real_path, aside).map_err(failed("rotated", &self.path))
    }

    /// Forgets a failed append: its pages may be lost on the disk and yet be seen by readers.
    fn take_back(&mut self, file: &File, before: &Metadata) {
        if file.set_len(before.len()).is_err()
            && let Ok(after) = file.metadata()
        {
            let (device, inode) = (after.dev(), after.ino());
            self.doubtful = Some(Doubtful { device, inode, confirmed_len: before.len(), len: after.len() });
        }
    }
}

impl Doubtful {
    /// The same file, and nobody wrote to it since.
    fn is_of(&self, metadata: &Metadata) -> bool {
        (self.device, self.inode, self.len) == (metadata.dev(), metadata.ino(), metadata.len())
    }
}

/// What follows the last line break of a file.
struct Tail {
    start: u64,
    /// It is a JSON object: a line that lacks nothing but its end.
    is_whole: bool,
}

impl Tail {
    fn of(file: &File, len: u64) -> io::Result<Self> {
        const BLOCK: u64 = 64 << 10;
        let mut start = len;
        while start > 0 && len - start <= TAIL_SIZE_MAX {
            let block_start = start.saturating_sub(BLOCK);
            let block = read_range(file, block_start, start)?;
            if let Some(at) = block.iter().rposition(|&byte| byte == b'\n') {
                start = block_start + at as u64 + 1;
                break;
            }
            start = block_start;
        }
        if len - start > TAIL_SIZE_MAX {
            return Ok(Self { start, is_whole: false });
        }
        let tail = read_range(file, start, len)?;
        let is_whole = tail.starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(&tail).is_ok();
        Ok(Self { start, is_whole })
    }
}

fn read_range(file: &File, start: u64, end: u64) -> io::Result<Vec<u8>> {
    let length = usize::try_from(end - start).map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}

fn write_synced(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_data()
}

/// Waits for the lock. Where a file system knows no locks, there are none.
fn lock(file: &File) -> io::Result<()> {
    file.lock().or_else(|error| if error.kind() == ErrorKind::Unsupported { Ok(()) } else { Err(error) })
}

fn unlock(file: &File) -> io::Result<()> {
    file.unlock().or_else(|error| if error.kind() == ErrorKind::Unsupported { Ok(()) } else { Err(error) })
}

fn parent(path: &Path) -> Option<&Path> {
    path.parent().filter(|dir| !dir.as_os_str().is_empty())
}

fn nearest_existing(path: &Path) -> &Path {
    path.ancestors().skip(1).find(|dir| !dir.as_os_str().is_empty() && dir.exists()).unwrap_or(Path::new("."))
}

/// Creates `dir` and what is missing above it; each is fsynced into its parent.
fn create_dir_synced(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(above) = parent(dir) {
        create_dir_synced(above)?;
    }
    match DirBuilder::new().mode(DIR_MODE).create(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_dir(parent(dir).unwrap_or(Path::new("."))),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
