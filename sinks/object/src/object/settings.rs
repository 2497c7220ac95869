//! The table `[sinks.<name>.settings]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sink_api::settings::{Period, Secret};
use sink_api::{Context, Format, Problem};

use super::key::{KEY_DEFAULT, Template};
use crate::store::{Encryption, Provider, StoreSettings, timeout_default};

/// The keys of [`StoreSettings`], which means the same by them, and those of the archive itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub provider: Provider,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    #[serde(default)]
    pub path_style: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    #[serde(default = "timeout_default")]
    pub timeout: Period,
    /// The template of an object's key, without its extension.
    #[serde(default = "key_default")]
    pub key: String,
    #[serde(default)]
    pub file_format: FileFormat,
    #[serde(default)]
    pub compression: Compression,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    /// An event a line, as JSON.
    #[default]
    Ndjson,
    /// A column per attribute and field.
    Parquet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    #[default]
    Zstd,
    Gzip,
    None,
}

fn key_default() -> String {
    KEY_DEFAULT.to_owned()
}

impl Settings {
    pub(super) fn store(&self) -> StoreSettings {
        StoreSettings {
            provider: self.provider,
            bucket: self.bucket.clone(),
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            path_style: self.path_style,
            access_key_id: self.access_key_id.clone(),
            secret_access_key: self.secret_access_key.clone(),
            session_token: self.session_token.clone(),
            encryption: self.encryption.clone(),
            root: self.root.clone(),
            timeout: self.timeout,
        }
    }

    pub(super) fn problems(&self, context: &Context) -> Vec<Problem> {
        let mut problems = self.store().problems();
        let mut found = |path: &str, message: String| problems.push(Problem { path: path.to_owned(), message });
        let template = Template::parse(&self.key);
        // The text is not quoted: what stands under a name that ends with `key` is taken for a secret, and not shown.
        if let Err(wrong) = &template {
            found("key", wrong.to_string());
        }
        if self.file_format == FileFormat::Parquet {
            if template.is_ok_and(|template| !template.tells_actions_apart()) {
                found("key", "lacks {action}, but the columns of a Parquet file are those of one action".to_owned());
            }
            if self.compression == Compression::Gzip {
                found(
                    "compression",
                    "\"gzip\" is for NDJSON; within Parquet there are \"zstd\" and \"none\"".to_owned(),
                );
            }
            if context.format != Format::CloudEvents {
                let why = "Parquet holds attributes and data as columns; leave the sink's `format` at \"cloudevents\", or write NDJSON";
                found("file_format", why.to_owned());
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths_of_problems(toml: &str, format: Format) -> Vec<String> {
        let settings: Settings = toml::from_str(toml).unwrap();
        let context = Context { name: "archive".to_owned(), format };
        settings.problems(&context).into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn good_settings_have_no_problems() {
        let parquet =
            "provider = 'cos'\nbucket = 'archive-1250000000'\nregion = 'ap-guangzhou'\nfile_format = 'parquet'";
        for toml in ["provider = 'disk'\nroot = 'a'", parquet] {
            assert_eq!(paths_of_problems(toml, Format::CloudEvents), Vec::<String>::new(), "{toml}");
        }
    }

    #[test]
    fn problems_of_the_store_and_of_the_archive_are_told_at_once() {
        let toml = "provider = 's3'\nkey = '{shard}-{first}-{last}'\nfile_format = 'parquet'\ncompression = 'gzip'";
        assert_eq!(paths_of_problems(toml, Format::Raw), ["bucket", "key", "compression", "file_format"]);
        assert_eq!(paths_of_problems("provider = 'disk'\nroot = 'a'\nkey = 'x'", Format::Raw), ["key"]);
        assert!(toml::from_str::<Settings>("provider = 'disk'\nroot = 'a'\nkeys = 'x'").is_err());
    }
}
