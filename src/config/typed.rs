//! Reading a type out of a table to the end: every problem is noted and put aside, and the reading goes on without it.
//!
//! Text from the environment or the command line is read as what the type asks for: only where text will not do is it taken for a
//! TOML value, or, where a list is asked for, split at commas. So `007` stays a password and becomes a number of attempts.

use serde_path_to_error::{Error, Segment};
use toml::{Table, Value};

use super::layers::Origins;
use super::path::{Path, Step};
use super::problem::Problem;
use super::report;
use super::value::{Fault, Node};

/// What came of a reading.
#[derive(Debug)]
pub struct Reading<T> {
    /// The value without what was put aside; `None` where the top itself lacks something.
    pub value: Option<T>,
    pub problems: Vec<Problem>,
    /// What was put aside or is missing: there, the value says nothing of what its author meant.
    pub dropped: Vec<Path>,
}

/// Reads `table`, which stands at `at`. `attempt` reads once and stops at the first fault.
pub fn read<T>(
    table: Table,
    at: &Path,
    origins: &Origins,
    attempt: impl Fn(Node) -> Result<T, Error<Fault>>,
) -> Reading<T> {
    let mut mender = Mender { root: Value::Table(table), at, origins, problems: Vec::new(), dropped: Vec::new() };
    let value = loop {
        match attempt(Node(mender.root.clone())) {
            Ok(value) => break Some(value),
            Err(error) => {
                let path = steps(error.path());
                let path = narrow(&mender.root, path, error.inner(), &attempt);
                if !mender.mend(&path, error.inner()) {
                    break None;
                }
            }
        }
    };
    Reading { value, problems: mender.problems, dropped: mender.dropped }
}

/// The table being read, and what was found so far. Each mending takes something away or turns text into something else, so a
/// reading ends.
struct Mender<'a> {
    root: Value,
    at: &'a Path,
    origins: &'a Origins,
    problems: Vec<Problem>,
    dropped: Vec<Path>,
}

impl Mender<'_> {
    /// Notes the fault at `path` and changes the table so that it does not come again; false where that is not possible.
    fn mend(&mut self, path: &Path, fault: &Fault) -> bool {
        match fault {
            Fault::UnknownKey { key, known } => {
                let holder = self.holder_of(path, key);
                let full = self.original(&holder).key(key);
                self.note(report::unknown_key(full.clone(), key, known));
                self.dropped.push(full);
                remove(&mut self.root, &holder.key(key))
            }
            Fault::MissingKey { key } => {
                let holder = self.original(path);
                let full = holder.key(key);
                if !self.dropped.contains(&full) {
                    self.note(report::missing_key(full.clone(), key));
                    self.dropped.push(full);
                }
                self.dropped.push(holder);
                remove(&mut self.root, path)
            }
            Fault::UnknownWord { .. } | Fault::Unfit { .. } | Fault::Said(_) => {
                let full = self.original(path);
                let is_text = self.origins.of(&full).is_some_and(|origin| origin.is_text());
                let Some(value) = find(&mut self.root, path) else { return false };
                if is_text && let Some(better) = read_again(value, fault) {
                    *value = better;
                    return true;
                }
                // What lacks only what was put aside before has been reported with it.
                if !self.dropped.iter().any(|gone| gone.parent().is_some_and(|parent| parent == full)) {
                    let problem = report::unfit(full.clone(), value, fault);
                    self.note(problem);
                }
                self.dropped.push(full);
                remove(&mut self.root, path)
            }
        }
    }

    fn note(&mut self, problem: Problem) {
        let origin = self.origins.of(&problem.path).cloned();
        self.problems.push(problem.from(origin));
    }

    /// The table that holds the unknown `key`: the one at `path`, or the one above where `path` ends in the key already, or one
    /// below where the table at `path` was read as a whole before it was told apart.
    fn holder_of(&mut self, path: &Path, key: &str) -> Path {
        let has_key = |value: &mut Value| value.get(key).is_some();
        if find(&mut self.root, path).is_some_and(has_key) {
            return path.clone();
        }
        let above = path.parent().unwrap_or_default();
        let ends_in_key = path.0.last().is_some_and(|last| matches!(last, Step::Key(name) if name == key));
        let below = find(&mut self.root, path).and_then(|value| holder_below(value, path, key));
        below.filter(|_| !ends_in_key).unwrap_or(above)
    }

    /// The path in the config as it was written: items of a list that were taken away still count, and the table's own place comes
    /// before it.
    fn original(&self, path: &Path) -> Path {
        path.0.iter().fold(self.at.clone(), |parent, step| match step {
            Step::Key(key) => parent.key(key),
            Step::Index(index) => {
                let left = (0..).map(|index| parent.index(index)).filter(|item| !self.dropped.contains(item));
                left.into_iter().nth(*index).expect("an endless sequence")
            }
        })
    }
}

fn holder_below(value: &Value, at: &Path, key: &str) -> Option<Path> {
    let Value::Table(table) = value else { return None };
    match table.contains_key(key) {
        true => Some(at.clone()),
        false => table.iter().find_map(|(inner, value)| holder_below(value, &at.key(inner), key)),
    }
}

fn steps(path: &serde_path_to_error::Path) -> Path {
    let step = |segment: &Segment| match segment {
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Enum { .. } | Segment::Unknown => None,
    };
    Path(path.iter().filter_map(step).collect())
}

/// A table that has a `type` is read as a whole before it is told apart, and its faults say no key. The key at fault is the one
/// that, with `type` alone beside it, gives the same fault.
fn narrow<T>(root: &Value, path: Path, fault: &Fault, attempt: &impl Fn(Node) -> Result<T, Error<Fault>>) -> Path {
    if matches!(fault, Fault::UnknownKey { .. } | Fault::MissingKey { .. }) {
        return path;
    }
    let mut trial = root.clone();
    let Some(Value::Table(table)) = find(&mut trial, &path) else { return path };
    let Some(tag) = table.remove("type") else { return path };
    let others = std::mem::take(table);
    let mut fails_alike = |entry: Option<(String, Value)>| {
        if let Some(place) = find(&mut trial, &path) {
            let tag = ("type".to_owned(), tag.clone());
            *place = Value::Table(std::iter::once(tag).chain(entry).collect());
        }
        attempt(Node(trial.clone())).is_err_and(|error| steps(error.path()) == path && error.inner() == fault)
    };
    if fails_alike(None) {
        return path.key("type");
    }
    match others.into_iter().find(|(key, value)| fails_alike(Some((key.clone(), value.clone())))) {
        Some((key, _)) => path.key(&key),
        None => path,
    }
}

/// What a text may stand for besides itself.
fn read_again(value: &Value, fault: &Fault) -> Option<Value> {
    let Value::String(text) = value else { return None };
    let as_toml = toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        .filter(|value| !value.is_str());
    let wants_list = matches!(fault, Fault::Unfit { expected } if expected == "a sequence");
    match as_toml {
        Some(value) if value.is_array() || !wants_list => Some(value),
        _ if wants_list => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Some(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
        _ => None,
    }
}

fn find<'a>(root: &'a mut Value, path: &Path) -> Option<&'a mut Value> {
    path.0.iter().try_fold(root, |value, step| match step {
        Step::Key(key) => value.get_mut(key.as_str()),
        Step::Index(index) => value.get_mut(*index),
    })
}

/// Takes away what stands at `path`; false where nothing does, or `path` is the top.
fn remove(root: &mut Value, path: &Path) -> bool {
    let (Some(parent), Some(last)) = (path.parent(), path.0.last()) else { return false };
    match (find(root, &parent), last) {
        (Some(Value::Table(table)), Step::Key(key)) => table.remove(key).is_some(),
        (Some(Value::Array(items)), Step::Index(index)) if *index < items.len() => {
            items.remove(*index);
            true
        }
        _ => false,
    }
}
