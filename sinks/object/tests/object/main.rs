//! The kind `object` against real stores, read back by others.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod contract;
mod columns;
mod readers;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;
use sink_api::{Context, Format, Sink, SinkKind};
use sink_object::Object;
use test_servers::process::installed;
use test_servers::s3::{ACCESS_KEY_ID, S3, SECRET_ACCESS_KEY};

const BUCKET: &str = "archive";

fn sink(toml: &str) -> Arc<dyn Sink> {
    let settings = toml::from_str(toml).unwrap();
    let context = Context { name: "archive".to_owned(), format: Format::CloudEvents };
    assert_eq!(Object::check(&settings, &context), [], "{toml}");
    Object::build(settings, context).unwrap()
}

fn on_disk(root: &Path, more: &str) -> String {
    format!("provider = 'disk'\nroot = '{}'\n{more}", root.display())
}

fn on_s3(server: &S3, more: &str) -> String {
    format!(
        "provider = 's3'\nbucket = '{BUCKET}'\nendpoint = '{}'\nregion = 'us-east-1'\npath_style = true\naccess_key_id = '{ACCESS_KEY_ID}'\nsecret_access_key = '{SECRET_ACCESS_KEY}'\n{more}",
        server.endpoint()
    )
}

/// The files of an archive below `root`, hidden ones apart, by name.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            let is_hidden = path.file_name().unwrap().as_encoded_bytes().starts_with(b".");
            match path.is_dir() {
                _ if is_hidden => {}
                true => dirs.push(path),
                false => files.push(path),
            }
        }
    }
    files.sort();
    files
}

/// The events of an archive as DuckDB reads them, each with its `file`.
fn read_by_duckdb(root: &Path) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/object/read.py");
    let output = Command::new(installed("python/bin/python")).arg(script).arg(root).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
