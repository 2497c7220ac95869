//! The layers of the config: the file, over it environment variables, over these `--set key=value`.
//!
//! A variable `TRUNKLINE__INGRESS__LISTEN` sets `ingress.listen`: names are lowered and split at `__`, so a key with dashes or
//! capitals can be set by `--set` alone. Values of both stay the text they are, until the typed reading asks for something else
//! than text; the file is typed from the start. Where each value came from is kept beside the values.

use std::collections::BTreeMap;
use std::ffi::OsString;

use config::{Source, ValueKind};
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::path::{Path, Step};
use super::problem::{Origin, Problem};

const ENV_PREFIX: &str = "TRUNKLINE__";
/// `config` takes the names at the top for expressions; below this one every name is taken as it is.
const ROOT: &str = "root";
/// Of one broken file; beyond, the errors are mostly each other's consequences.
const SYNTAX_ERRORS_MAX: usize = 5;

/// The config after layering, before it is typed.
#[derive(Debug, Default)]
pub struct Layered {
    pub table: Table,
    pub origins: Origins,
}

/// Where values came from.
#[derive(Debug, Default)]
pub struct Origins(BTreeMap<Path, Origin>);

impl Origins {
    /// The origin of the value at `path`, or of the nearest that holds it.
    pub fn of(&self, path: &Path) -> Option<&Origin> {
        let mut here = Some(path.clone());
        while let Some(path) = here {
            if let Some(origin) = self.0.get(&path) {
                return Some(origin);
            }
            here = path.parent();
        }
        None
    }

    /// `origin` replaces all that stood at `path`.
    fn replace(&mut self, path: Path, origin: Origin) {
        self.0.retain(|other, _| !path.holds(other));
        self.0.insert(path, origin);
    }
}

/// One value set from outside the file.
struct Text {
    path: Path,
    value: String,
    origin: Origin,
}

/// Layers `overrides` over `env` over the file's `text`. `None` where the file is not TOML; mistakes in the upper layers are
/// added to `problems` and left out.
pub fn layer(
    file: &str,
    text: &str,
    overrides: &[String],
    env: impl IntoIterator<Item = (OsString, OsString)>,
    problems: &mut Vec<Problem>,
) -> Option<Layered> {
    let mut texts = env_texts(env, problems);
    texts.extend(override_texts(overrides, problems));
    texts.retain(|text| !text.path.0.is_empty());
    refuse_overlaps(&texts, problems);
    refuse_references(&texts, problems);
    let (table, mut origins) = parse_file(file, text, problems)?;

    let mut builder = config::Config::builder().add_source(Layer::new(to_config(Value::Table(table))));
    for text in texts {
        builder = builder.add_source(Layer::new(nest(&text.path, text.value)));
        origins.replace(text.path, text.origin);
    }
    let merged = builder.build().expect("layers in memory cannot fail to be collected");
    let mut top = merged.cache.into_table().unwrap_or_default();
    let table = match top.remove(ROOT).map(from_config) {
        Some(Value::Table(table)) => table,
        _ => Table::new(),
    };
    Some(Layered { table, origins })
}

/// A source of `config` that has its values in memory.
#[derive(Debug, Clone)]
struct Layer(config::Map<String, config::Value>);

impl Layer {
    fn new(tree: config::Value) -> Self {
        Self(config::Map::from([(ROOT.to_owned(), tree)]))
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<config::Map<String, config::Value>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

fn env_texts(env: impl IntoIterator<Item = (OsString, OsString)>, problems: &mut Vec<Problem>) -> Vec<Text> {
    let mut texts = Vec::new();
    for (name, value) in env {
        let Some(name) = name.to_str() else { continue };
        let is_ours = name.get(..ENV_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(ENV_PREFIX));
        if !is_ours {
            continue;
        }
        let origin = Origin::Env(name.to_owned());
        let keys = name[ENV_PREFIX.len()..].to_ascii_lowercase();
        let path = Path(keys.split("__").map(|key| Step::Key(key.to_owned())).collect());
        if path.0.contains(&Step::Key(String::new())) {
            let problem = Problem::new(Path::default(), format!("the variable {name} names no key"));
            problems.push(problem.allowed("write TRUNKLINE__TABLE__KEY"));
            continue;
        }
        match value.into_string() {
            Ok(value) => texts.push(Text { path, value, origin }),
            Err(_) => problems.push(Problem::new(path, "the value is not UTF-8").from(Some(origin))),
        }
    }
    texts.sort_by(|a, b| a.path.cmp(&b.path));
    texts
}

fn override_texts(overrides: &[String], problems: &mut Vec<Problem>) -> Vec<Text> {
    let mut texts = Vec::new();
    for (place, argument) in overrides.iter().enumerate() {
        match split_override(argument) {
            Some((path, value)) => texts.push(Text { path, value, origin: Origin::Set }),
            // The argument is not quoted: without a key it cannot be known whether it is a secret.
            None => problems.push(
                Problem::new(Path::default(), format!("--set number {} is not key=value", place + 1))
                    .allowed("write a dotted key, `=` and a value, such as --set ingress.listen=127.0.0.1:0"),
            ),
        }
    }
    texts
}

/// Splits `key=value` at the first `=` that leaves a TOML key before it, so that a quoted key can hold one.
fn split_override(argument: &str) -> Option<(Path, String)> {
    argument.match_indices('=').find_map(|(at, _)| {
        let path = parse_key(&argument[..at])?;
        Some((path, argument[at + 1..].to_owned()))
    })
}

/// The steps of a TOML key such as `sinks."my sink".type`.
fn parse_key(key: &str) -> Option<Path> {
    if key.contains(['\n', '\r']) {
        return None;
    }
    let table: Table = toml::from_str(&format!("{key} = true")).ok()?;
    let mut steps = Vec::new();
    let mut value = Value::Table(table);
    while let Value::Table(table) = value {
        let (key, inner) = table.into_iter().next()?;
        steps.push(Step::Key(key));
        value = inner;
    }
    Some(Path(steps))
}

/// A key and one below it cannot both be text: the one would silently undo the other.
fn refuse_overlaps(texts: &[Text], problems: &mut Vec<Problem>) {
    for inner in texts {
        if let Some(outer) = texts.iter().find(|outer| outer.path != inner.path && outer.path.holds(&inner.path)) {
            let message = format!("set together with {}, which holds it (from {})", outer.path, outer.origin);
            let problem = Problem::new(inner.path.clone(), message).allowed("set the one or the other");
            problems.push(problem.from(Some(inner.origin.clone())));
        }
    }
}

/// A secret given as text is taken as it is, so `{ env = "NAME" }` would be the secret itself: surely not what is meant.
fn refuse_references(texts: &[Text], problems: &mut Vec<Problem>) {
    for text in texts.iter().filter(|text| text.path.is_sensitive()) {
        let table = toml::from_str::<Table>(&format!("value = {}", text.value)).ok();
        let reference = table.as_ref().and_then(|table| table.get("value")).and_then(Value::as_table);
        if let Some(key) = reference.and_then(|table| ["env", "file"].into_iter().find(|key| table.contains_key(*key)))
        {
            let problem = Problem::new(text.path.clone(), "found a reference to a secret, written as text");
            let allowed = format!("set {}.{key} instead", text.path);
            problems.push(problem.allowed(allowed).from(Some(text.origin.clone())));
        }
    }
}

fn parse_file(file: &str, text: &str, problems: &mut Vec<Problem>) -> Option<(Table, Origins)> {
    let (spanned, errors) = DeTable::parse_recoverable(text);
    let mut errors: Vec<toml::de::Error> = errors;
    let table = toml::from_str::<Table>(text).map_err(|error| {
        if errors.is_empty() {
            errors.push(error);
        }
    });
    problems.extend(errors.iter().take(SYNTAX_ERRORS_MAX).map(|error| syntax_problem(file, text, error)));
    let table = table.ok()?;
    let mut origins = Origins::default();
    let lines = Lines::new(text);
    note_origins(spanned.get_ref(), &Path::default(), &mut |path, offset| {
        origins.0.insert(path, Origin::File { name: file.to_owned(), line: lines.at(offset).0 });
    });
    Some((table, origins))
}

fn note_origins(table: &DeTable<'_>, at: &Path, note: &mut impl FnMut(Path, usize)) {
    for (key, value) in table.iter() {
        let path = at.key(key.get_ref());
        note(path.clone(), key.span().start);
        note_inner_origins(value.get_ref(), &path, note);
    }
}

fn note_inner_origins(value: &DeValue<'_>, at: &Path, note: &mut impl FnMut(Path, usize)) {
    match value {
        DeValue::Table(table) => note_origins(table, at, note),
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let path = at.index(index);
                note(path.clone(), item.span().start);
                note_inner_origins(item.get_ref(), &path, note);
            }
        }
        _ => {}
    }
}

fn syntax_problem(file: &str, text: &str, error: &toml::de::Error) -> Problem {
    let offset = error.span().map_or(text.len(), |span| span.start);
    let (line, column) = Lines::new(text).at(offset);
    let written = text.lines().nth(line - 1).unwrap_or_default();
    let shown = mask_line(written);
    let value = written.split_once('=').map_or("", |(_, value)| value.trim());
    let is_bare = !value.is_empty() && !value.contains(['"', '\'']) && !value.starts_with(['[', '{']);
    let allowed = match is_bare && !error.message().contains("duplicate") {
        true => "text stands in double quotes",
        false => "",
    };
    let message = format!("not TOML at column {column}: {}", error.message().replace('\n', ", "));
    Problem {
        excerpt: Some(format!("    {shown}\n    {:>column$}", "^")),
        ..Problem::new(Path::default(), message)
            .allowed(allowed)
            .from(Some(Origin::File { name: file.to_owned(), line }))
    }
}

/// The line with its key, and with a `*` for every letter and digit of the rest, which may be a secret.
fn mask_line(line: &str) -> String {
    let is_header = line.trim_start().starts_with('[') && line.trim_end().ends_with(']');
    let key = line.split_once('=').map_or("", |(key, _)| key);
    let is_key = key.trim().bytes().all(|byte| byte.is_ascii_lowercase() || b"_-.0123456789".contains(&byte));
    let kept = match is_header && !line.contains(['=', '"', '\'', ',', '#']) {
        true => line.len(),
        // A line of a text over several lines can end in `=` by chance.
        false if is_key && !line.trim_end().ends_with('=') => key.len(),
        false => 0,
    };
    let masked = line[kept..].chars().map(|letter| if letter.is_alphanumeric() { '*' } else { letter });
    line[..kept].chars().chain(masked).collect()
}

/// Finds line and column, both from 1, of a byte offset.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    fn at(&self, offset: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts[line - 1];
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count());
        (line, column + 1)
    }
}

/// `value` as the only one of a tree, at `path`.
fn nest(path: &Path, value: String) -> config::Value {
    path.0.iter().rev().fold(config::Value::new(None, value), |inner, step| match step {
        Step::Key(key) => config::Value::new(None, config::Map::from([(key.clone(), inner)])),
        Step::Index(_) => inner,
    })
}

fn to_config(value: Value) -> config::Value {
    let kind = match value {
        Value::String(text) => ValueKind::String(text),
        Value::Integer(number) => ValueKind::I64(number),
        Value::Float(number) => ValueKind::Float(number),
        Value::Boolean(flag) => ValueKind::Boolean(flag),
        Value::Datetime(time) => ValueKind::String(time.to_string()),
        Value::Array(items) => ValueKind::Array(items.into_iter().map(to_config).collect()),
        Value::Table(table) => {
            ValueKind::Table(table.into_iter().map(|(key, value)| (key, to_config(value))).collect())
        }
    };
    config::Value::new(None, kind)
}

/// Back again: what [`to_config`] and [`nest`] make is all that there is.
fn from_config(value: config::Value) -> Value {
    match value.kind {
        ValueKind::Boolean(flag) => Value::Boolean(flag),
        ValueKind::I64(number) => Value::Integer(number),
        ValueKind::Float(number) => Value::Float(number),
        ValueKind::String(text) => Value::String(text),
        ValueKind::Array(items) => Value::Array(items.into_iter().map(from_config).collect()),
        ValueKind::Table(table) => {
            Value::Table(table.into_iter().map(|(key, value)| (key, from_config(value))).collect())
        }
        ValueKind::Nil | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => Value::Table(Table::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_override_is_split_at_the_first_equals_sign_after_its_key() {
        let split = |argument: &str| split_override(argument).map(|(path, value)| (path.to_string(), value));
        assert_eq!(split("a.b=c=d"), Some(("a.b".to_owned(), "c=d".to_owned())));
        assert_eq!(split(r#"sinks."a=b".type=file"#), Some((r#"sinks."a=b".type"#.to_owned(), "file".to_owned())));
        assert_eq!(split("sinks.my-sink.type="), Some(("sinks.my-sink.type".to_owned(), String::new())));
        for argument in ["", "a", "=b", "a..b=c", "a b=c", "a\nb=c", "a #=b"] {
            assert_eq!(split(argument), None, "{argument:?}");
        }
    }

    #[test]
    fn a_line_is_shown_without_its_value() {
        for (line, shown) in [
            ("listen = 127.0.0.1", "listen = ***.*.*.*"),
            ("[sinks.events", "[*****.******"),
            ("[sinks.events] ]", "[sinks.events] ]"),
            ("password hunter2", "******** *******"),
            ("cGFzcw==", "******=="),
            ("  \"hunter2\", password = \"hunter2\"", "  \"*******\", ******** = \"*******\""),
            ("# token = hunter2", "# ***** = *******"),
        ] {
            assert_eq!(mask_line(line), shown);
        }
    }
}
