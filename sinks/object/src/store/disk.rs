//! A directory as a store: objects are files below it, their keys are paths.
//!
//! An object is written beside its place under a name that begins with a dot, fsynced, read back and compared, and only then moved
//! to its place; the directories on the way are fsynced too. So a file under its own name is whole, and what a crash left half-written
//! is hidden and in nobody's way. Metadata are extended attributes of the file; the content type has no place here and is not kept.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use rustix::fs::{XattrFlags, fsetxattr, getxattr, listxattr};
use rustix::io::Errno;

use super::error::Error;
use super::{Description, Listed};

/// Objects hold personal data: not for everybody. The umask takes away more.
const FILE_MODE: u32 = 0o640;
const DIR_MODE: u32 = 0o750;

const BLOCK_SIZE: usize = 64 << 10;

/// What the names of attributes with metadata begin with.
const ATTRIBUTES: &str = "user.trunkline.";

/// File systems keep no more at an object.
const ATTRIBUTES_LEN_MAX: usize = 64 << 10;

/// What an unfinished file's name ends with.
const UNFINISHED: &str = ".unfinished";

/// An unfinished file that nothing was written to for so long is a crash's.
const LEFT_BEHIND_AGE: Duration = Duration::from_secs(3_600);

#[derive(Clone)]
pub(super) struct Disk {
    root: PathBuf,
}

impl Disk {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) async fn begin(&self, key: &str, description: &Description) -> Result<DiskUpload, Error> {
        let (root, place) = (self.root.clone(), self.path_of(key)?);
        let metadata = description.metadata.clone();
        let (file, unfinished) = blocking(move || {
            let (file, unfinished) = open_beside(&place)?;
            describe_file(&file, &metadata).map_err(failed("described", &unfinished.0))?;
            Ok((file, unfinished))
        })
        .await?;
        let is_new = description.is_new;
        Ok(DiskUpload { root, place: self.path_of(key)?, unfinished, file: Some(file), is_new })
    }

    pub(super) async fn length_of(&self, key: &str) -> Result<u64, Error> {
        let path = self.path_of(key)?;
        blocking(move || match path.metadata() {
            Ok(metadata) if metadata.is_file() => Ok(metadata.len()),
            Ok(_) => Err(Error::NotFound),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Err(Error::NotFound)
            }
            Err(error) => Err(failed("examined", &path)(error)),
        })
        .await
    }

    pub(super) async fn describe(&self, key: &str) -> Result<(u64, HashMap<String, String>), Error> {
        let (length_bytes, path) = (self.length_of(key).await?, self.path_of(key)?);
        let metadata = blocking(move || description_of(&path).map_err(failed("examined", &path))).await?;
        Ok((length_bytes, metadata))
    }

    /// The keys of files beside `stem` whose names begin as its does.
    pub(super) async fn keys_beside(&self, stem: &str) -> Result<Vec<String>, Error> {
        let (root, place) = (self.root.clone(), self.path_of(stem)?);
        let stem = stem.to_owned();
        blocking(move || {
            let beside = list_dir(&root, place.parent().unwrap_or(&root));
            match beside {
                Ok((_, found)) => {
                    Ok(found.into_iter().map(|listed| listed.key).filter(|key| key.starts_with(&stem)).collect())
                }
                Err(Error::Disk { source, .. }) if source.kind() == io::ErrorKind::NotADirectory => Ok(Vec::new()),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// SHA-256 and length of what lies there.
    pub(super) async fn digest(&self, key: &str) -> Result<([u8; 32], u64), Error> {
        let path = self.path_of(key)?;
        blocking(move || digest_of(&path)).await
    }

    /// Every object below `prefix`, a path that ends with `/`, or empty.
    pub(super) async fn list(&self, prefix: &str) -> Result<DiskList, Error> {
        let dir = if prefix.is_empty() { self.root.clone() } else { self.path_of(prefix.trim_end_matches('/'))? };
        Ok(DiskList { root: self.root.clone(), dirs: vec![dir], found: Vec::new() })
    }

    /// Whether objects could be written. Creates nothing.
    pub(super) async fn probe(&self) -> Result<(), Error> {
        let root = self.root.clone();
        blocking(move || {
            let existing =
                root.ancestors().find(|dir| !dir.as_os_str().is_empty() && dir.exists()).unwrap_or(Path::new("."));
            let metadata = existing.metadata().map_err(failed("examined", existing))?;
            if !metadata.is_dir() {
                return Err(failed("used", existing)(io::ErrorKind::NotADirectory.into()));
            }
            rustix::fs::access(existing, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
                .map_err(io::Error::from)
                .map_err(failed("written", existing))
        })
        .await
    }

    /// # Errors
    /// When `key` would lead out of the root. Keys are made of safe characters, so that none does.
    fn path_of(&self, key: &str) -> Result<PathBuf, Error> {
        let is_sound =
            !key.is_empty() && key.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'));
        if is_sound {
            Ok(self.root.join(key))
        } else {
            Err(failed("used", &self.root)(io::ErrorKind::InvalidFilename.into()))
        }
    }
}

/// An object on its way. Dropped half-way it takes its unfinished file along.
pub(super) struct DiskUpload {
    root: PathBuf,
    place: PathBuf,
    unfinished: Unfinished,
    /// Taken by the thread that writes.
    file: Option<File>,
    is_new: bool,
}

impl DiskUpload {
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        let mut file = self.file.take().ok_or(Error::Stopping)?;
        let path = self.unfinished.0.clone();
        let written = blocking(move || {
            file.write_all(&bytes).map_err(failed("written", &path))?;
            Ok(file)
        });
        self.file = Some(written.await?);
        Ok(())
    }

    /// Confirms that the file holds bytes of this digest and length, and puts it in its place.
    pub(super) async fn finish(&mut self, sha256: [u8; 32], length_bytes: u64) -> Result<(), Error> {
        let file = self.file.take().ok_or(Error::Stopping)?;
        let (root, place, unfinished) = (self.root.clone(), self.place.clone(), self.unfinished.0.clone());
        let is_new = self.is_new;
        blocking(move || {
            file.sync_all().map_err(failed("synced", &unfinished))?;
            let (held_sha256, held_length) = digest_of(&unfinished)?;
            if held_length != length_bytes {
                let (sent, held) = (length_bytes.to_string(), held_length.to_string());
                return Err(Error::Mismatch { what: "length", sent, held });
            }
            if held_sha256 != sha256 {
                let (sent, held) = (super::hex(&sha256), super::hex(&held_sha256));
                return Err(Error::Mismatch { what: "checksum", sent, held });
            }
            move_into_place(&unfinished, &place, is_new)?;
            sync_dirs(&place, &root)
        })
        .await
    }
}

/// A file that goes with the value, unless it was moved away; also where nobody waits any more for the thread that made it.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Where it stays, it is hidden, and the next upload to its place removes it.
        drop(fs::remove_file(&self.0));
    }
}

pub(super) struct DiskList {
    root: PathBuf,
    dirs: Vec<PathBuf>,
    found: Vec<Listed>,
}

impl DiskList {
    /// One directory at a time is held in memory.
    pub(super) async fn next(&mut self) -> Result<Option<Listed>, Error> {
        while self.found.is_empty() {
            let Some(dir) = self.dirs.pop() else { return Ok(None) };
            let root = self.root.clone();
            let (mut dirs, found) = blocking(move || list_dir(&root, &dir)).await?;
            self.dirs.append(&mut dirs);
            self.found = found;
        }
        Ok(self.found.pop())
    }
}

fn list_dir(root: &Path, dir: &Path) -> Result<(Vec<PathBuf>, Vec<Listed>), Error> {
    let (mut dirs, mut found) = (Vec::new(), Vec::new());
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((dirs, found)),
        Err(error) => return Err(failed("listed", dir)(error)),
    };
    for entry in entries {
        let path = entry.map_err(failed("listed", dir))?.path();
        let metadata = match path.metadata() {
            // An unfinished file that got its name meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata.map_err(failed("examined", &path))?,
        };
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if metadata.is_dir() {
            dirs.push(path);
        } else if !is_hidden && let Some(key) = path.strip_prefix(root).ok().and_then(Path::to_str) {
            found.push(Listed { key: key.to_owned(), length_bytes: metadata.len() });
        }
    }
    Ok((dirs, found))
}

/// A new file beside `place`, in a directory that is made if it is missing. What crashes left there is removed. Its name is its own,
/// since the thread of an upload that was given up may still be at work on another.
fn open_beside(place: &Path) -> Result<(File, Unfinished), Error> {
    let dir = place.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir).map_err(failed("created", dir))?;
    let begin = format!(".{}.", place.file_name().unwrap_or_default().to_string_lossy());
    for entry in fs::read_dir(dir).map_err(failed("listed", dir))? {
        let path = entry.map_err(failed("listed", dir))?.path();
        if is_unfinished(&path, &begin) && is_left_behind(&path) {
            drop(fs::remove_file(&path));
        }
    }
    let unfinished =
        place.with_file_name(format!("{begin}{:016x}{UNFINISHED}", RandomState::new().build_hasher().finish()));
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(FILE_MODE).open(&unfinished);
    Ok((file.map_err(failed("created", &unfinished))?, Unfinished(unfinished)))
}

fn is_unfinished(path: &Path, begin: &str) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let random = name.strip_prefix(begin).and_then(|rest| rest.strip_suffix(UNFINISHED));
    random.is_some_and(|random| random.len() == 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether nobody can be writing to it any more. Where the file system does not say, it stays.
fn is_left_behind(path: &Path) -> bool {
    let modified = path.metadata().and_then(|metadata| metadata.modified());
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > LEFT_BEHIND_AGE))
}

/// Writes metadata as extended attributes. A file system without them keeps none.
fn describe_file(file: &File, metadata: &[(String, String)]) -> io::Result<()> {
    for (name, value) in metadata {
        let name = format!("{ATTRIBUTES}{}", name.to_ascii_lowercase());
        match fsetxattr(file, &*name, value.as_bytes(), XattrFlags::empty()) {
            Err(Errno::NOTSUP) => return Ok(()),
            written => written?,
        }
    }
    Ok(())
}

fn description_of(path: &Path) -> io::Result<HashMap<String, String>> {
    let mut buffer = vec![0; ATTRIBUTES_LEN_MAX];
    let names = match listxattr(path, &mut buffer[..]) {
        Err(Errno::NOTSUP) => return Ok(HashMap::new()),
        length => String::from_utf8_lossy(&buffer[..length?]).into_owned(),
    };
    let mut metadata = HashMap::new();
    for attribute in names.split('\0').filter(|name| !name.is_empty()) {
        if let Some(name) = attribute.strip_prefix(ATTRIBUTES) {
            let length = getxattr(path, attribute, &mut buffer[..])?;
            metadata.insert(name.to_owned(), String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    }
    Ok(metadata)
}

/// One that is new gets a second name before it loses its first, which no other file then has. File systems without such names replace
/// what is there.
fn move_into_place(unfinished: &Path, place: &Path, is_new: bool) -> Result<(), Error> {
    if is_new {
        match fs::hard_link(unfinished, place) {
            Ok(()) => return fs::remove_file(unfinished).map_err(failed("removed", unfinished)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(Error::Taken),
            Err(_) => {}
        }
    }
    fs::rename(unfinished, place).map_err(failed("moved into place", place))
}

/// Also directories that exist: whoever made them may have died before this.
fn sync_dirs(place: &Path, root: &Path) -> Result<(), Error> {
    let above_root = root.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let within_root = place.ancestors().skip(1).take_while(|dir| dir.starts_with(root));
    for dir in within_root.chain([above_root]) {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("synced", dir))?;
    }
    Ok(())
}

fn digest_of(path: &Path) -> Result<([u8; 32], u64), Error> {
    let mut file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound,
        _ => failed("opened", path)(error),
    })?;
    let (mut sha256, mut length_bytes, mut block) = (Context::new(&SHA256), 0, vec![0; BLOCK_SIZE]);
    loop {
        let count = file.read(&mut block).map_err(failed("read", path))?;
        if count == 0 {
            return Ok((super::sha256_bytes(sha256), length_bytes));
        }
        sha256.update(&block[..count]);
        length_bytes += count as u64;
    }
}

/// For `map_err`: what was being done to which path.
fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Disk { step, path: path.to_owned(), source }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer,
        Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
        Err(_) => Err(Error::Stopping),
    }
}
