//! Where the config comes from, and how it is read together with the files that it refers to.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;

use crate::config::model::{self, Config};
use crate::config::path;
use crate::config::problem::Problem;
use crate::config::{self, Loaded, Problems};
use crate::names::SinkName;
use crate::sinks;

/// What stands in a file; nothing where it cannot be read.
pub(super) type Digest = Option<[u8; 32]>;

/// Everything that the config is made of, the environment apart.
#[derive(Debug, Clone)]
pub struct ConfigOrigin {
    pub file: PathBuf,
    /// `key=value` each.
    pub overrides: Vec<String>,
}

/// A good config, and the state of the files that it was read from.
pub struct Reading {
    pub(super) loaded: Loaded,
    /// The whole config in effect, masked.
    pub(super) effective: Value,
    pub(super) files: Files,
}

/// The config's file and those that it refers to, with what stood in them.
#[derive(Clone)]
pub(super) struct Files {
    config: (PathBuf, Digest),
    referenced: Vec<(path::Path, PathBuf, Digest)>,
}

/// By what a sink is known to have changed: its table, and the files that the table refers to.
#[derive(Clone, PartialEq)]
pub(super) struct Fingerprint {
    pub(super) settings: model::Sink,
    files: Vec<Digest>,
}

impl ConfigOrigin {
    /// Reads and checks the config; tries every reference in it. Reads files.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn read(&self) -> Result<Reading, Problems> {
        let name = self.file.display().to_string();
        let (env, kinds) = (std::env::vars_os(), sinks::kinds());
        // The digest is of the very text that is taken, so that no later change is overlooked.
        let (loaded, config_digest) = match std::fs::read_to_string(&self.file) {
            Ok(text) => (config::parse(&name, &text, &self.overrides, env, &kinds)?, Some(sha256(text.as_bytes()))),
            Err(_) => (config::load(&self.file, &self.overrides, env, &kinds)?, None),
        };
        let shown =
            |error: toml::ser::Error| Problems::from(vec![Problem::new(path::Path::of("sinks"), error.to_string())]);
        let referenced = config::referenced_files(&loaded).map_err(shown)?;
        let referenced = referenced.into_iter().map(|(at, file)| (at, file.clone(), digest_of(&file))).collect();
        config::resolve_secrets(&loaded)?;
        let effective = config::effective_json(&loaded).map_err(shown)?;
        Ok(Reading { loaded, effective, files: Files { config: (self.file.clone(), config_digest), referenced } })
    }
}

impl Reading {
    pub fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// What is allowed, but probably not meant.
    pub fn warnings(&self) -> &[Problem] {
        &self.loaded.warnings
    }

    pub(super) fn fingerprint(&self, sink: &SinkName) -> Fingerprint {
        let at = path::Path::of("sinks").key(sink.as_str());
        let files = self.files.referenced.iter().filter(|(path, ..)| at.holds(path)).map(|(.., digest)| *digest);
        Fingerprint { settings: self.loaded.config.sinks[sink].clone(), files: files.collect() }
    }
}

impl Files {
    /// What stood in the files.
    pub(super) fn seen(&self) -> Vec<Digest> {
        std::iter::once(self.config.1).chain(self.referenced.iter().map(|(.., digest)| *digest)).collect()
    }

    /// What stands in them now. Blocks while it reads them.
    pub(super) fn look(&self) -> Vec<Digest> {
        let referenced = self.referenced.iter().map(|(_, file, _)| file);
        std::iter::once(&self.config.0).chain(referenced).map(|file| digest_of(file)).collect()
    }
}

fn digest_of(file: &Path) -> Digest {
    std::fs::read(file).ok().map(|bytes| sha256(&bytes))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}
