//! A file system in memory that does to the journal what a bad day does: it loses what was not synced, fails, fills up.
//!
//! Every file has what a reader sees, and what is on the disk. A write changes what is seen; a sync brings it to the disk. A crash
//! keeps, of what was not synced, any part: each write whole, torn or not at all; of names, any number of the oldest changes in
//! their order. A sync that fails drops what it was to write, while a reader still sees it: as Linux does.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::fs::{FileHandle, FileSystem, Handle, Listed, LockGuard};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The next write fails, after a part of it.
    Write,
    /// The next sync of a file fails.
    Sync,
    /// The next write finds no space, after a part of it.
    Full,
}

#[derive(Clone)]
enum Change {
    Bytes(u64, Vec<u8>),
    Len(u64),
}

#[derive(Default)]
struct Inode {
    seen: Vec<u8>,
    on_disk: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum NameChange {
    Set(PathBuf, u64),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    names: BTreeMap<PathBuf, u64>,
    names_on_disk: BTreeMap<PathBuf, u64>,
    unsynced_names: Vec<NameChange>,
    dirs: BTreeSet<PathBuf>,
    /// Each of one file alone, where an inode is named.
    faults: Vec<(Option<u64>, Fault)>,
    /// Free bytes that `free_bytes` tells.
    free: u64,
    /// Changes that are left until the machine is off.
    until_off: Option<u64>,
    is_off: bool,
    random: Option<fastrand::Rng>,
}

/// Clones share the same disk.
#[derive(Clone)]
pub(super) struct SimFs(Arc<Mutex<State>>);

struct SimFile {
    disk: SimFs,
    inode: u64,
}

impl SimFs {
    pub(super) fn new(seed: u64) -> Self {
        let random = Some(fastrand::Rng::with_seed(seed));
        Self(Arc::new(Mutex::new(State { free: u64::MAX, random, ..State::default() })))
    }

    /// Lets one of the next operations fail.
    pub(super) fn fail_once(&self, fault: Fault) {
        self.lock().faults.push((None, fault));
    }

    /// Lets one of the next operations on `file` fail.
    pub(super) fn fail_once_in(&self, file: &Path, fault: Fault) {
        let mut state = self.lock();
        let inode = state.names[file];
        state.faults.push((Some(inode), fault));
    }

    pub(super) fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    pub(super) fn set_free(&self, free: u64) {
        self.lock().free = free;
    }

    /// The machine goes off at the `nth` change from now; everything fails from then on.
    pub(super) fn off_after(&self, nth: u64) {
        self.lock().until_off = Some(nth);
    }

    /// Goes off now if it is not off, and on again, with what the disk kept.
    pub(super) fn restart(&self) {
        let mut state = self.lock();
        let state = &mut *state;
        let random = state.random.as_mut().expect("made with one");
        let kept = random.usize(..=state.unsynced_names.len());
        let kept_names: Vec<_> = state.unsynced_names.drain(..).take(kept).collect();
        for change in kept_names {
            apply_name(&mut state.names_on_disk, change);
        }
        for inode in state.inodes.values_mut() {
            for change in std::mem::take(&mut inode.unsynced) {
                match (random.u8(..4), change) {
                    (0, _) => {}
                    (1, Change::Bytes(at, mut bytes)) => {
                        bytes.truncate(random.usize(..=bytes.len()));
                        apply(&mut inode.on_disk, Change::Bytes(at, bytes));
                    }
                    (_, change) => apply(&mut inode.on_disk, change),
                }
            }
            inode.seen.clone_from(&inode.on_disk);
        }
        state.names.clone_from(&state.names_on_disk);
        (state.until_off, state.is_off) = (None, false);
        state.faults.clear();
    }

    /// A disk of its own with what this one shows now.
    pub(super) fn image(&self) -> Self {
        let (state, copy) = (self.lock(), Self::new(0));
        {
            let mut into = copy.lock();
            for (number, inode) in &state.inodes {
                let (seen, on_disk) = (inode.seen.clone(), inode.seen.clone());
                into.inodes.insert(*number, Inode { seen, on_disk, unsynced: Vec::new() });
            }
            into.next_inode = state.next_inode;
            into.names.clone_from(&state.names);
            into.names_on_disk.clone_from(&state.names);
            into.dirs.clone_from(&state.dirs);
        }
        copy
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.lock().names.keys().cloned().collect()
    }

    /// Changes the bytes of a file behind everybody's back.
    pub(super) fn edit(&self, path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.lock();
        let number = state.names[path];
        let inode = state.inodes.get_mut(&number).expect("named");
        edit(&mut inode.seen);
        inode.on_disk.clone_from(&inode.seen);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn apply(bytes: &mut Vec<u8>, change: Change) {
    match change {
        Change::Len(len) => bytes.resize(len as usize, 0),
        Change::Bytes(at, new) => {
            let end = at as usize + new.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[at as usize..end].copy_from_slice(&new);
        }
    }
}

fn apply_name(names: &mut BTreeMap<PathBuf, u64>, change: NameChange) {
    match change {
        NameChange::Set(path, inode) => drop(names.insert(path, inode)),
        NameChange::Remove(path) => drop(names.remove(&path)),
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(&from) {
                names.insert(to, inode);
            }
        }
    }
}

fn off() -> io::Error {
    io::Error::other("the machine is off")
}

impl State {
    /// Counts a change; fails once the machine is off.
    fn change(&mut self) -> io::Result<()> {
        if let Some(left) = &mut self.until_off {
            self.is_off |= *left == 0;
            *left = left.saturating_sub(1);
        }
        if self.is_off { Err(off()) } else { Ok(()) }
    }

    fn fault(&mut self, at: u64, among: &[Fault]) -> Option<Fault> {
        let hits =
            |(inode, fault): &(Option<u64>, Fault)| inode.is_none_or(|inode| inode == at) && among.contains(fault);
        let index = self.faults.iter().position(hits)?;
        Some(self.faults.remove(index).1)
    }

    fn rename(&mut self, change: NameChange) {
        apply_name(&mut self.names, change.clone());
        self.unsynced_names.push(change);
    }
}

impl FileSystem for SimFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.lock().dirs.insert(dir.to_path_buf());
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        let state = self.lock();
        let in_dir = |path: &&PathBuf| path.parent() == Some(dir);
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        let files = state.names.keys().filter(in_dir).map(|path| Listed { name: name(path), is_dir: false });
        let dirs = state.dirs.iter().filter(in_dir).map(|path| Listed { name: name(path), is_dir: true });
        let mut listed: Vec<_> = files.chain(dirs).collect();
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    fn create(&self, path: &Path) -> io::Result<Handle> {
        let mut state = self.lock();
        state.change()?;
        let inode = state.next_inode;
        state.next_inode += 1;
        state.inodes.insert(inode, Inode::default());
        state.rename(NameChange::Set(path.to_path_buf(), inode));
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Handle> {
        let state = self.lock();
        let inode = *state.names.get(path).ok_or(ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.change()?;
        state.rename(NameChange::Rename(from.to_path_buf(), to.to_path_buf()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.change()?;
        if state.names.contains_key(path) {
            state.rename(NameChange::Remove(path.to_path_buf()));
        }
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.lock().dirs.remove(path);
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.change()?;
        let state = &mut *state;
        for change in std::mem::take(&mut state.unsynced_names) {
            apply_name(&mut state.names_on_disk, change);
        }
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Ok(self.lock().free)
    }

    fn try_lock(&self, _path: &Path) -> io::Result<Option<LockGuard>> {
        Ok(Some(Box::new(())))
    }
}

impl FileHandle for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().inodes[&self.inode].seen.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let state = self.disk.lock();
        let seen = &state.inodes[&self.inode].seen;
        let from = (at as usize).min(seen.len());
        let count = buffer.len().min(seen.len() - from);
        buffer[..count].copy_from_slice(&seen[from..from + count]);
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        let went_off = state.change().is_err();
        let fault = if went_off { None } else { state.fault(self.inode, &[Fault::Write, Fault::Full]) };
        let random = state.random.as_mut().expect("made with one");
        let written = if went_off || fault.is_some() { random.usize(..=bytes.len()) } else { bytes.len() };
        let change = Change::Bytes(at, bytes[..written].to_vec());
        let inode = state.inodes.get_mut(&self.inode).expect("open");
        apply(&mut inode.seen, change.clone());
        inode.unsynced.push(change);
        match fault {
            _ if went_off => Err(off()),
            Some(Fault::Full) => Err(ErrorKind::StorageFull.into()),
            Some(_) => Err(io::Error::other("input/output error")),
            None => Ok(()),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.change()?;
        let inode = state.inodes.get_mut(&self.inode).expect("open");
        apply(&mut inode.seen, Change::Len(len));
        inode.unsynced.push(Change::Len(len));
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if self.len()? < len { self.set_len(len) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.change()?;
        let fault = state.fault(self.inode, &[Fault::Sync]);
        let inode = state.inodes.get_mut(&self.inode).expect("open");
        let unsynced = std::mem::take(&mut inode.unsynced);
        if fault.is_some() {
            return Err(io::Error::other("input/output error"));
        }
        for change in unsynced {
            apply(&mut inode.on_disk, change);
        }
        Ok(())
    }
}
