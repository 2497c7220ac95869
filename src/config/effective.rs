//! The config as it takes effect, and the references in it that must lead somewhere.

use std::fs::File;
use std::path::PathBuf;

use secrecy::ExposeSecret;
use sink_api::settings::Secret;
use toml::{Table, Value};

use super::model::{Auth, Jwt};
use super::path::Path;
use super::problem::{Problem, Problems};
use super::{Config, Loaded};

/// The whole config as TOML: defaults filled in, secrets masked, references to secrets as they are.
///
/// # Errors
/// A sink kind's settings have no form in TOML.
pub fn effective(loaded: &Loaded) -> Result<String, toml::ser::Error> {
    toml::to_string(&effective_table(loaded)?)
}

/// Tries every reference in the config: secrets in the environment and in files, and the files of TLS and of keys. Reads
/// files; what those of TLS and of keys hold is the ingress's to judge.
///
/// # Errors
/// All that lead nowhere.
pub fn resolve_secrets(loaded: &Loaded) -> Result<(), Problems> {
    let mut problems = Vec::new();
    match effective_table(loaded) {
        Ok(table) => try_references(&Value::Table(table), &Path::default(), &mut problems),
        Err(error) => problems.push(Problem::new(Path::of("sinks"), error.to_string())),
    }
    try_files(&loaded.config, &mut problems);
    for problem in &mut problems {
        problem.origin = loaded.origins.of(&problem.path).cloned();
    }
    if problems.is_empty() { Ok(()) } else { Err(Problems::from(problems)) }
}

/// [`effective`] as JSON.
///
/// # Errors
/// As [`effective`].
pub fn effective_json(loaded: &Loaded) -> Result<serde_json::Value, toml::ser::Error> {
    let table = effective_table(loaded)?;
    Ok(serde_json::to_value(table).expect("tables have string keys"))
}

/// The files that the config refers to, and where: secrets, and what keys that end in `_file` name. Those of `ingress.tls` are left
/// out, since the listener looks at them itself. Opens nothing.
///
/// # Errors
/// As [`effective`].
pub fn referenced_files(loaded: &Loaded) -> Result<Vec<(Path, PathBuf)>, toml::ser::Error> {
    let mut files = Vec::new();
    find_files(&Value::Table(effective_table(loaded)?), &Path::default(), &mut files);
    files.retain(|(path, _)| !Path::of("ingress.tls").holds(path));
    Ok(files)
}

fn find_files(value: &Value, at: &Path, files: &mut Vec<(Path, PathBuf)>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let is_secret = key == "file" && table.len() == 1 && at.is_sensitive();
                match value {
                    Value::String(file) if is_secret || key.ends_with("_file") => {
                        files.push((at.key(key), PathBuf::from(file)));
                    }
                    value => find_files(value, &at.key(key), files),
                }
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| find_files(item, &at.index(index), files));
        }
        _ => {}
    }
}

fn effective_table(loaded: &Loaded) -> Result<Table, toml::ser::Error> {
    let mut table = Table::try_from(&loaded.config)?;
    for (name, settings) in &loaded.settings {
        let sink = table.get_mut("sinks").and_then(|sinks| sinks.get_mut(name.as_str()));
        if let Some(Value::Table(sink)) = sink {
            sink.insert("settings".to_owned(), Value::Table(settings.effective()?));
        }
    }
    for value in table.iter_mut().map(|(_, value)| value) {
        mask_credentials(value);
    }
    Ok(table)
}

/// `amqp://user:password@host` becomes `amqp://***@host`, wherever it stands.
fn mask_credentials(value: &mut Value) {
    match value {
        Value::String(text) => {
            let Some((scheme, rest)) = text.split_once("://") else { return };
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            if let Some((_, host)) = authority.rsplit_once('@') {
                *text = format!("{scheme}://***@{host}{}", &rest[authority.len()..]);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask_credentials),
        Value::Table(table) => table.iter_mut().for_each(|(_, value)| mask_credentials(value)),
        _ => {}
    }
}

/// A reference is what [`Secret`] shows as one, at a place that by its name holds a secret.
fn try_references(value: &Value, at: &Path, problems: &mut Vec<Problem>) {
    match value {
        Value::Table(table) => {
            let reference = table.iter().next().filter(|_| table.len() == 1 && at.is_sensitive());
            let secret = reference.and_then(|(key, target)| match (key.as_str(), target.as_str()?) {
                ("env", name) => Some(Secret::Env(name.to_owned())),
                ("file", path) => Some(Secret::File(PathBuf::from(path))),
                _ => None,
            });
            match secret.map(|secret| secret.resolve()) {
                Some(Ok(text)) if text.expose_secret().is_empty() => {
                    problems.push(Problem::new(at.clone(), "the secret that it refers to is empty"));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => problems.push(Problem::new(at.clone(), error.to_string())),
                None => table.iter().for_each(|(key, value)| try_references(value, &at.key(key), problems)),
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| try_references(item, &at.index(index), problems));
        }
        _ => {}
    }
}

fn try_files(config: &Config, problems: &mut Vec<Problem>) {
    let mut files = Vec::new();
    if let Some(tls) = &config.ingress.tls {
        let at = Path::of("ingress.tls");
        files.extend([(at.key("cert_file"), &tls.cert_file), (at.key("key_file"), &tls.key_file)]);
        files.extend(tls.client_ca_file.as_ref().map(|file| (at.key("client_ca_file"), file)));
    }
    for (name, source) in &config.sources {
        if let Auth::Jwt(Jwt { jwks_file: Some(file), .. }) = &source.auth {
            files.push((Path::of("sources").key(name.as_str()).key("auth").key("jwks_file"), file));
        }
    }
    for (at, file) in files {
        if let Err(error) = File::open(file) {
            problems.push(Problem::new(at, format!("{} cannot be read: {error}", file.display())));
        }
    }
}
