//! Where objects go, as it is written in a config: the table `store` of a `recordings` sink, and the same keys in an `object` sink.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use sink_api::Problem;
use sink_api::settings::{Period, Secret};

/// Where objects go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    pub provider: Provider,
    /// The bucket, which exists already; for `cos` with its app id, `<name>-<appid>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// `http(s)://host[:port]`, without the bucket. For `s3` by default what the environment says in `AWS_ENDPOINT_URL`; else the
    /// provider's own in the region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The bucket's region. For `s3` by default what the environment says in `AWS_REGION` or `AWS_DEFAULT_REGION`, else `us-east-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The bucket is the first part of the path rather than of the host name; `s3` only.
    #[serde(default)]
    pub path_style: bool,
    /// Static credentials. Without them the environment is asked: for `s3` variables, shared files, web identity, container and
    /// instance roles; for `cos` variables and web identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<Secret>,
    /// Belongs to temporary static credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<Secret>,
    /// What the store encrypts with. Its own default where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// The directory that objects lie below; `disk` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// Of one request, with its body.
    #[serde(default = "timeout_default")]
    pub timeout: Period,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Amazon S3, or whatever speaks like it.
    S3,
    /// Tencent Cloud Object Storage, by its own protocol.
    Cos,
    /// A directory.
    Disk,
}

/// Encryption by the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Encryption {
    /// With keys that the store keeps.
    Managed {},
    /// With a key of the provider's key management; its default key without `key_id`.
    Kms {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key_id: Option<String>,
    },
    /// With this key, 32 bytes in Base64, which the store forgets: without it nothing can be read back.
    Customer { key: Secret },
}

pub(crate) fn timeout_default() -> Period {
    Period::from_secs(30)
}

impl StoreSettings {
    /// All that is wrong, with paths below the table itself.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Found(Vec::new());
        match self.provider {
            Provider::Disk => self.disk_problems(&mut found),
            Provider::S3 | Provider::Cos => self.bucket_problems(&mut found),
        }
        if self.timeout.0.is_zero() {
            found.add("timeout", "is zero; write how long one request may take, such as \"30s\"");
        }
        found.0
    }

    fn disk_problems(&self, found: &mut Found) {
        match &self.root {
            None => found.add("root", "is missing; write the directory that objects go to"),
            Some(root) if root.as_os_str().is_empty() => found.add("root", "is empty; write a directory"),
            Some(_) => {}
        }
        let foreign = [
            ("bucket", self.bucket.is_some()),
            ("endpoint", self.endpoint.is_some()),
            ("region", self.region.is_some()),
            ("path_style", self.path_style),
            ("access_key_id", self.access_key_id.is_some()),
            ("secret_access_key", self.secret_access_key.is_some()),
            ("session_token", self.session_token.is_some()),
            ("encryption", self.encryption.is_some()),
        ];
        for (key, _) in foreign.iter().filter(|(_, is_set)| *is_set) {
            found.add(key, "means nothing to provider \"disk\"; leave it out");
        }
    }

    fn bucket_problems(&self, found: &mut Found) {
        if self.root.is_some() {
            found.add("root", "is for provider \"disk\" only; put a prefix into `key` instead");
        }
        match &self.bucket {
            None => found.add("bucket", "is missing; write the name of a bucket that exists"),
            Some(bucket) => self.judge_bucket(bucket, found),
        }
        if let Some(endpoint) = &self.endpoint {
            self.judge_endpoint(endpoint, found);
        }
        if self.provider == Provider::Cos {
            if self.endpoint.is_none() && self.region.is_none() {
                found
                    .add("region", "is missing; write the bucket's region, such as \"ap-guangzhou\", or an `endpoint`");
            }
            if self.path_style {
                found.add("path_style", "is not known to COS, where the bucket is part of the host; leave it out");
            }
        }
        self.judge_credentials(found);
        self.judge_encryption(found);
    }

    fn judge_bucket(&self, bucket: &str, found: &mut Found) {
        let is_sound = (3..=63).contains(&bucket.len())
            && bucket.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte));
        if !is_sound {
            let rule = "a bucket's name has 3 to 63 characters of a-z, 0-9, '-' and '.'";
            found.add("bucket", format!("{bucket:?} is no name of a bucket: {rule}"));
        } else if self.provider == Provider::S3 && !self.path_style && bucket.contains('.') {
            let why = "has a dot, which cannot stand in a host name under one certificate; set path_style = true";
            found.add("bucket", format!("{bucket:?} {why}"));
        } else if self.provider == Provider::Cos && !ends_with_app_id(bucket) {
            found.add(
                "bucket",
                format!("{bucket:?} lacks the app id; COS calls it \"<name>-<appid>\", as in \"archive-1250000000\""),
            );
        }
    }

    fn judge_endpoint(&self, endpoint: &str, found: &mut Found) {
        // The address itself is not shown: people put credentials where none belong.
        let Some(uri) = endpoint.parse::<http::Uri>().ok().filter(|uri| uri.host().is_some()) else {
            return found.add("endpoint", "is no address; write \"https://host\" or \"http://host:port\"");
        };
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            found.add("endpoint", "does not begin with http:// or https://");
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            found.add("endpoint", "holds credentials; write them as access_key_id and secret_access_key");
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            found.add(
                "endpoint",
                "has a path or a query; write scheme, host and port alone, and the bucket as `bucket`",
            );
        }
        let is_address =
            uri.host().is_some_and(|host| host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok());
        if is_address && self.provider == Provider::Cos {
            found.add("endpoint", "is an IP address, but COS puts the bucket in front of a host name; write a name");
        } else if is_address && !self.path_style {
            found.add(
                "endpoint",
                "is an IP address, so that the bucket cannot stand in front of it; set path_style = true",
            );
        }
    }

    fn judge_credentials(&self, found: &mut Found) {
        match (&self.access_key_id, &self.secret_access_key) {
            (Some(_), None) => found.add("secret_access_key", "is missing beside access_key_id; set both or neither"),
            (None, Some(_)) => found.add("access_key_id", "is missing beside secret_access_key; set both or neither"),
            (None, None) if self.session_token.is_some() => {
                found.add("session_token", "belongs to access_key_id and secret_access_key; set all three or none");
            }
            _ => {}
        }
    }

    fn judge_encryption(&self, found: &mut Found) {
        let Some(Encryption::Customer { key }) = &self.encryption else { return };
        if self.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://")) {
            found.add("encryption.type", "\"customer\" would send the key in the clear; use an https endpoint");
        }
        if let Secret::Inline(text) = key
            && customer_key(text.expose_secret()).is_none()
        {
            found.add("encryption.key", "is not 32 bytes in Base64; make one with `openssl rand -base64 32`");
        }
    }
}

/// The 32 bytes of a customer's key.
pub(super) fn customer_key(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.trim()).ok().filter(|key| key.len() == 32)
}

fn ends_with_app_id(bucket: &str) -> bool {
    bucket
        .rsplit_once('-')
        .is_some_and(|(name, id)| !name.is_empty() && id.len() >= 8 && id.bytes().all(|byte| byte.is_ascii_digit()))
}

struct Found(Vec<Problem>);

impl Found {
    fn add(&mut self, path: &str, message: impl Into<String>) {
        self.0.push(Problem { path: path.to_owned(), message: message.into() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths_of_problems(toml: &str) -> Vec<String> {
        let settings: StoreSettings = toml::from_str(toml).unwrap();
        settings.problems().into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn good_settings_have_no_problems() {
        let good = [
            "provider = 's3'\nbucket = 'archive'",
            "provider = 's3'\nbucket = 'a.b.c'\npath_style = true\nendpoint = 'http://127.0.0.1:9000/'",
            "provider = 's3'\nbucket = 'archive'\naccess_key_id = 'AK'\nsecret_access_key = { env = 'SK' }\nencryption = { type = 'kms', key_id = 'k' }",
            "provider = 'cos'\nbucket = 'archive-1250000000'\nregion = 'ap-guangzhou'",
            "provider = 'disk'\nroot = 'data/archive'",
        ];
        for toml in good {
            assert_eq!(paths_of_problems(toml), Vec::<String>::new(), "{toml}");
        }
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let toml = "provider = 's3'\nbucket = 'A'\nendpoint = 'ftp://u:p@host/x?y'\naccess_key_id = 'a'\nroot = 'x'\ntimeout = '0s'";
        let expected = ["root", "bucket", "endpoint", "endpoint", "endpoint", "secret_access_key", "timeout"];
        assert_eq!(paths_of_problems(toml), expected);
        assert_eq!(
            paths_of_problems("provider = 'cos'\nbucket = 'archive'\npath_style = true"),
            ["bucket", "region", "path_style"]
        );
        assert_eq!(
            paths_of_problems("provider = 'cos'\nbucket = 'a-12500000'\nendpoint = 'http://127.0.0.1'"),
            ["endpoint"]
        );
        assert_eq!(paths_of_problems("provider = 's3'\nbucket = 'abc'\nendpoint = 'http://[::1]:9000'"), ["endpoint"]);
        assert_eq!(
            paths_of_problems("provider = 'disk'\nbucket = 'abc'\nsession_token = 'x'"),
            ["root", "bucket", "session_token"]
        );
        let short_key = "provider = 's3'\nbucket = 'abc'\nencryption = { type = 'customer', key = 'c2hvcnQ=' }";
        assert_eq!(paths_of_problems(short_key), ["encryption.key"]);
        assert!(toml::from_str::<StoreSettings>("provider = 's3'\nbuket = 'x'").is_err());
    }

    #[test]
    fn no_problem_shows_a_secret() {
        let toml = "provider = 's3'\nbucket = 'abc'\nendpoint = 'http://id:canary-1@h'\nencryption = { type = 'customer', key = 'canary-2' }";
        let settings: StoreSettings = toml::from_str(toml).unwrap();
        let shown = format!("{:?} {}", settings.problems(), serde_json::to_string(&settings.encryption).unwrap());
        assert!(!shown.contains("canary"), "{shown}");
    }
}
