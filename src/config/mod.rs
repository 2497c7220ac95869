//! The config: layered, typed, checked as a whole, and only then used.
//!
//! ```text
//! gateway.toml ─┐
//! TRUNKLINE__… ─┼─▶ layers ─▶ one table ─▶ typed ─▶ Config + sinks' Settings ─▶ check ─▶ Loaded
//! --set k=v    ─┘   + where each value came from   └── every problem of every step, at once ──▶ Problems
//! ```
//!
//! Promises: all problems are reported together, each with its dotted path, what was found, what is allowed and where it came from;
//! nothing that may be a secret is ever quoted; loading opens nothing but the file itself, so it can be done again at any time.
//! Refuses: unknown keys, values of another type than the key's, and guesses.

pub mod model;
mod mask;
pub mod path;
pub mod problem;
mod layers;
pub mod value;
mod report;
mod typed;
pub mod kinds;
mod check;
mod content;
mod effective;
#[cfg(test)]
mod bad_configs;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;

use sink_api::Context;
use toml::{Table, Value};

use self::check::Finding;
use self::layers::Origins;
use self::path::{Path, Step};
use self::problem::Problem;
use crate::names::SinkName;

pub use self::effective::{effective, effective_json, referenced_files, resolve_secrets};
pub use self::kinds::{Kind, Kinds, Settings};
pub use self::mask::MaskRule;
pub use self::model::Config;
pub use self::problem::Problems;

/// A config in which everything holds.
pub struct Loaded {
    pub config: Config,
    /// The settings of each sink in `config.sinks`, read by its kind.
    pub settings: BTreeMap<SinkName, Box<dyn Settings>>,
    /// What is allowed, but probably not meant.
    pub warnings: Vec<Problem>,
    origins: Origins,
}

/// Reads the config `file`, lays `env` and then `overrides` (`key=value` each) over it, types and checks it. Opens nothing else:
/// whether references to secrets lead somewhere is [`resolve_secrets`]'s to say.
///
/// # Errors
/// Everything that is wrong.
pub fn load(
    file: &std::path::Path,
    overrides: &[String],
    env: impl IntoIterator<Item = (OsString, OsString)>,
    kinds: &Kinds,
) -> Result<Loaded, Problems> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| Problems::from(vec![unreadable(&name, &error)]))?;
    parse(&name, &text, overrides, env, kinds)
}

/// [`load`] without the disk: `text` is what stands in the file `name`.
///
/// # Errors
/// Everything that is wrong.
pub fn parse(
    name: &str,
    text: &str,
    overrides: &[String],
    env: impl IntoIterator<Item = (OsString, OsString)>,
    kinds: &Kinds,
) -> Result<Loaded, Problems> {
    let mut problems = Vec::new();
    let Some(layers) = layers::layer(name, text, overrides, env, &mut problems) else { return Err(problems.into()) };
    let sources = keys_of(&layers.table, "sources");
    let reading = typed::read::<Config>(layers.table, &Path::default(), &layers.origins, |node| {
        serde_path_to_error::deserialize(node)
    });
    problems.extend(reading.problems);
    let mut dropped = reading.dropped;
    let config = reading.value.unwrap_or_default();

    let settings = read_settings(&config, kinds, &layers.origins, &mut dropped, &mut problems);
    let findings = check::check(&config, &sources);
    let say = |finding: Finding| say(finding, &dropped, &layers.origins);
    problems.extend(findings.faults.into_iter().filter_map(say));
    let warnings = findings.warnings.into_iter().filter_map(say).collect();

    match problems.is_empty() {
        true => Ok(Loaded { config, settings, warnings, origins: layers.origins }),
        false => Err(problems.into()),
    }
}

fn unreadable(name: &str, error: &std::io::Error) -> Problem {
    let problem = Problem::new(Path::default(), format!("the config file {name} cannot be read: {error}"));
    match error.kind() {
        std::io::ErrorKind::NotFound => problem.allowed(
            "name another with --config FILE, or start from the gateway.toml of the distribution, which holds every key",
        ),
        _ => problem,
    }
}

fn keys_of(table: &Table, key: &str) -> Vec<String> {
    match table.get(key) {
        Some(Value::Table(table)) => table.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

/// Lets each sink's kind read and check its settings.
fn read_settings(
    config: &Config,
    kinds: &Kinds,
    origins: &Origins,
    dropped: &mut Vec<Path>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<SinkName, Box<dyn Settings>> {
    let mut all = BTreeMap::new();
    for (name, sink) in &config.sinks {
        let at = Path::of("sinks").key(name.as_str());
        let Some(kind) = kinds.find(&sink.kind) else {
            let hint = report::hint(&sink.kind, &kinds.names());
            let problem = Problem::new(at.key("type"), format!("no kind of sink is called {:?}{hint}", sink.kind));
            let origin = origins.of(&at.key("type")).cloned();
            problems.push(problem.allowed(report::list_of(&kinds.names())).from(origin));
            continue;
        };
        let at = at.key("settings");
        if dropped.contains(&at) {
            continue;
        }
        let reading = typed::read(sink.settings.0.clone(), &at, origins, kind.read);
        problems.extend(reading.problems);
        if let Some(settings) = reading.value {
            let context = Context { name: name.as_str().to_owned(), format: sink.format };
            let raw = Value::Table(sink.settings.0.clone());
            let findings = settings.check(&context).into_iter().map(|found| Finding {
                path: found.path.split('.').filter(|key| !key.is_empty()).fold(at.clone(), |path, key| path.key(key)),
                message: report::conceal(found.message, &at, &raw),
                allowed: String::new(),
                beside: Vec::new(),
                excerpt: None,
            });
            problems.extend(findings.filter_map(|finding| say(finding, &reading.dropped, origins)));
            all.insert(name.clone(), settings);
        }
        dropped.extend(reading.dropped);
    }
    all
}

/// The finding as a problem, unless it speaks of a value that could not be read: then it is a mere consequence.
fn say(finding: Finding, dropped: &[Path], origins: &Origins) -> Option<Problem> {
    let is_item_of = |gone: &Path, list: &Path| {
        matches!(gone.0.last(), Some(Step::Index(_))) && gone.parent().is_some_and(|parent| parent == *list)
    };
    let is_lost = |path: &Path| dropped.iter().any(|gone| gone.holds(path) || is_item_of(gone, path));
    if is_lost(&finding.path) || finding.beside.iter().any(is_lost) {
        return None;
    }
    let origin = origins.of(&finding.path).cloned();
    let problem = Problem::new(finding.path, finding.message).allowed(finding.allowed).from(origin);
    Some(Problem { excerpt: finding.excerpt, ..problem })
}
