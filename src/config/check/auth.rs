//! What must hold of a source's credentials.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use sink_api::settings::Period;

use super::{Findings, check_path, check_secret};
use crate::config::model::{Algorithm, Auth, Config, Jwt, OAuth2, Source};
use crate::config::path::Path;

/// A token that ends sooner is fetched more often than it is used; one that lives longer outlives what it was given for.
const TOKEN_TTL_MIN: Period = Period::from_secs(60);
const TOKEN_TTL_MAX: Period = Period::from_secs(24 * 3600);
/// The one in use and the one that follows it.
const SECRETS_MAX: usize = 2;

pub fn check_auth(at: &Path, source: &Source, listen: SocketAddr, findings: &mut Findings) {
    match &source.auth {
        Auth::None if !listen.ip().is_loopback() && !source.allow_unauthenticated => {
            let message = format!("found \"none\" while ingress.listen = {listen} is not loopback");
            let allowed = "set up auth, or write allow_unauthenticated = true beside it";
            let finding = findings.fault(at.key("auth"), message, allowed);
            finding.beside = vec![Path::of("ingress.listen"), at.key("allow_unauthenticated")];
        }
        Auth::None => {}
        Auth::Basic { username, password } => {
            let at = at.key("auth");
            if username.is_empty() || username.contains(':') {
                let message = if username.is_empty() { "is empty" } else { "contains `:`" };
                findings.fault(
                    at.key("username"),
                    message,
                    "must be at least one character, none of them `:` (RFC 7617)",
                );
            }
            check_secret(at.key("password"), password, findings);
        }
        Auth::OAuth2(oauth2) => check_oauth2(&at.key("auth"), oauth2, findings),
        Auth::Jwt(jwt) => check_jwt(&at.key("auth"), jwt, findings),
    }
}

fn check_oauth2(at: &Path, oauth2: &OAuth2, findings: &mut Findings) {
    check_path(at.key("token_path"), &oauth2.token_path, findings);
    if oauth2.client_id.is_empty() || !oauth2.client_id.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        let allowed = "must be at least one character, all of them printable ASCII (RFC 6749)";
        findings.fault(at.key("client_id"), format!("found {:?}", oauth2.client_id), allowed);
    }
    let secrets = at.key("client_secret");
    match &oauth2.client_secret.0[..] {
        [secret] => check_secret(secrets, secret, findings),
        list if (1..=SECRETS_MAX).contains(&list.len()) => {
            for (index, secret) in list.iter().enumerate() {
                check_secret(secrets.index(index), secret, findings);
            }
        }
        list => {
            let message = format!("found {} secrets", list.len());
            findings.fault(secrets, message, "must be one, or during a rotation two: the new one first");
        }
    }
    if !(TOKEN_TTL_MIN..=TOKEN_TTL_MAX).contains(&oauth2.token_ttl) {
        let allowed = format!("must be from {TOKEN_TTL_MIN} to {TOKEN_TTL_MAX}");
        findings.fault(at.key("token_ttl"), format!("found {}", oauth2.token_ttl), &allowed);
    }
    if let Some(key) = &oauth2.signing_key {
        check_secret(at.key("signing_key"), key, findings);
    }
}

fn check_jwt(at: &Path, jwt: &Jwt, findings: &mut Findings) {
    for (key, value) in [("issuer", &jwt.issuer), ("audience", &jwt.audience)] {
        if value.is_empty() {
            findings.fault(at.key(key), "is empty", "must be what the provider writes into its tokens");
        }
    }
    match (&jwt.jwks_file, &jwt.jwks_url) {
        (Some(file), None) if file.as_os_str().is_empty() => {
            findings.fault(at.key("jwks_file"), "is empty", "must be a file that holds a JWK Set");
        }
        (Some(_), None) => {}
        (None, Some(url)) => check_jwks_url(at.key("jwks_url"), url, findings),
        (found, _) => {
            let message = if found.is_some() { "set beside jwks_file" } else { "missing" };
            let allowed = "exactly one of jwks_file and jwks_url says where the provider's keys are";
            let finding = findings.fault(at.key("jwks_url"), message, allowed);
            finding.beside.push(at.key("jwks_file"));
        }
    }
    let at = at.key("algorithms");
    if jwt.algorithms.is_empty() {
        findings.fault(at.clone(), "is empty", "name at least one, such as \"RS256\"");
    }
    for (index, algorithm) in jwt.algorithms.iter().enumerate() {
        if matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) {
            let allowed = "its key is shared, so whoever can check a token could make one; \
                           take one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA";
            findings.fault(at.index(index), format!("found \"{algorithm:?}\""), allowed);
        }
    }
}

/// Shows nothing of the URL, which may hold a secret.
fn check_jwks_url(at: Path, url: &str, findings: &mut Findings) {
    let Some(url) = url.parse::<reqwest::Url>().ok().filter(|url| matches!(url.scheme(), "http" | "https")) else {
        findings.fault(at, "is no URL that can be fetched", "must start with https://");
        return;
    };
    if !url.username().is_empty() || url.password().is_some() {
        findings.fault(at, "holds credentials", "public keys need none");
        return;
    }
    let host = url.host_str().unwrap_or_default();
    let is_near = host == "localhost" || host.trim_matches(['[', ']']).parse().is_ok_and(is_loopback);
    if url.scheme() == "http" && !is_near {
        let allowed = "whoever stands between could put keys of his own there; https:// keeps him out";
        findings.warn(at, "the keys are fetched without TLS", allowed);
    }
}

fn is_loopback(address: std::net::IpAddr) -> bool {
    address.is_loopback()
}

/// No token is fetched where pushes go, and every source has a token path of its own, since a token is for one source.
pub fn check_token_paths(config: &Config, findings: &mut Findings) {
    let mut taken: BTreeMap<&str, String> = BTreeMap::new();
    for (name, source) in &config.sources {
        taken.insert(&source.path, format!("the path of source {name}"));
    }
    for (name, source) in &config.sources {
        let Auth::OAuth2(oauth2) = &source.auth else { continue };
        let taken_by = taken.insert(&oauth2.token_path, format!("the token path of source {name}"));
        if let Some(other) = taken_by {
            let at = Path::of("sources").key(name.as_str()).key("auth").key("token_path");
            let message = format!("found {:?}, which is {other} too", oauth2.token_path);
            findings.fault(at, message, "every source needs a token path of its own");
        }
    }
}
