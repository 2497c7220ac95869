//! What must hold between the keys that say where Redis is.

use secrecy::ExposeSecret;
use sink_api::settings::Secret;

use super::{Findings, check_secret};
use crate::config::model::Redis;
use crate::config::path::Path;
use crate::journal::redis::{Durability, Mode};

const PREFIX_LENGTH_MAX: usize = 64;
const SHARDS_MAX: u16 = 256;
const SCHEMES: [&str; 2] = ["redis://", "rediss://"];

/// Checks the table at `at`.
pub fn check_redis(at: &Path, redis: &Redis, findings: &mut Findings) {
    check_place(at, redis, findings);
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
    if redis.prefix.is_empty() || redis.prefix.len() > PREFIX_LENGTH_MAX || !redis.prefix.bytes().all(is_fit) {
        let allowed = format!("must be 1 to {PREFIX_LENGTH_MAX} of the characters A-Z, a-z, 0-9, _, ., : and -");
        findings.fault(at.key("prefix"), format!("found {:?}", redis.prefix), &allowed);
    }
    if !(1..=SHARDS_MAX).contains(&redis.shards) {
        let allowed = format!("must be from 1 to {SHARDS_MAX}");
        findings.fault(at.key("shards"), format!("found {}", redis.shards), &allowed);
    }
    if redis.durability == Durability::Replicated && redis.replicas == 0 {
        let allowed = "durability = \"replicated\" needs at least one replica that confirms";
        findings.fault(at.key("replicas"), "found 0", allowed).beside.push(at.key("durability"));
    }
    let periods = [
        ("connect_timeout", redis.connect_timeout),
        ("response_timeout", redis.response_timeout),
        ("replica_timeout", redis.replica_timeout),
    ];
    findings.need_time(at, &periods);
    if let Some(password) = &redis.password {
        check_secret(at.key("password"), password, findings);
    }
    if let Some(tls) = &redis.tls
        && tls.cert_file.is_some() != tls.key_file.is_some()
    {
        let allowed = "a certificate to show needs both cert_file and key_file";
        findings.fault(at.key("tls"), "one of cert_file and key_file is missing", allowed);
    }
}

fn check_place(at: &Path, redis: &Redis, findings: &mut Findings) {
    if redis.url.is_some() && !redis.urls.is_empty() {
        let allowed = "url is for one server, urls for the nodes of a cluster and for sentinels";
        findings.fault(at.key("urls"), "both url and urls are set", allowed).beside.push(at.key("url"));
    }
    match redis.mode {
        Mode::Standalone if redis.urls.len() > 1 => {
            let message = format!("found {} URLs with mode = \"standalone\"", redis.urls.len());
            let allowed = "one server has one; set mode to \"cluster\" or \"sentinel\" for more";
            findings.fault(at.key("urls"), message, allowed).beside.push(at.key("mode"));
        }
        Mode::Cluster | Mode::Sentinel if redis.url.is_none() && redis.urls.is_empty() => {
            let allowed = "name some nodes of the cluster, or the sentinels";
            findings.fault(at.key("urls"), "is missing", allowed).beside.push(at.key("mode"));
        }
        _ => {}
    }
    match (redis.mode, redis.master.as_deref().unwrap_or_default()) {
        (Mode::Sentinel, "") => {
            let allowed = "mode = \"sentinel\" needs the name that the sentinels know the master by";
            findings.fault(at.key("master"), "is missing", allowed).beside.push(at.key("mode"));
        }
        (Mode::Standalone | Mode::Cluster, name) if !name.is_empty() => {
            let message = format!("found {name:?} without mode = \"sentinel\"");
            findings
                .fault(at.key("master"), message, "only sentinels know masters by name")
                .beside
                .push(at.key("mode"));
        }
        _ => {}
    }
    let all = redis.url.iter().map(|url| (at.key("url"), url));
    for (path, url) in all.chain(redis.urls.iter().enumerate().map(|(n, url)| (at.key("urls").index(n), url))) {
        check_url(path, url, findings);
    }
}

/// A URL may hold a password, so nothing of it is shown.
fn check_url(path: Path, url: &Secret, findings: &mut Findings) {
    check_secret(path.clone(), url, findings);
    if let Secret::Inline(text) = url {
        let text = text.expose_secret();
        if !text.is_empty() && !SCHEMES.iter().any(|scheme| text.starts_with(scheme)) {
            findings.fault(path, "is no URL of Redis", "must begin with redis://, or rediss:// for TLS");
        }
    }
}
