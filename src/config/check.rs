//! What must hold between the keys of a config. Pure: opens nothing, asks nobody, reports all.

mod auth;
mod redis;
mod tracing;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Component, PathBuf};

use secrecy::ExposeSecret;
use sink_api::settings::{Period, Secret, Size};
use tracing_subscriber::EnvFilter;

use self::auth::{check_auth, check_token_paths};
use self::redis::check_redis;
use self::tracing::check_tracing;
use super::content::check_content;
use super::model::{Config, DedupBackend, Ingress, JournalBackend, Sink, Source};
use super::path::Path;
use super::report::{hint, list_of, nearest};
use crate::names::{INGRESS, SourceName};
use crate::tccc::{KNOWN_ACTIONS, SPECIFIED_SEAT, known_action};

/// The sender may resend a push for that long, as far as anybody knows.
const DEDUP_WINDOW_MIN: Period = Period::from_secs(3600);
const SEGMENT_SIZE_MIN: Size = Size(64 << 10);
/// Offsets within a segment are 32 bits wide.
const SEGMENT_SIZE_MAX: Size = Size(1 << 30);
const NAME_LENGTH_MAX: usize = 64;

/// A rule that does not hold.
#[derive(Debug)]
pub struct Finding {
    pub path: Path,
    pub message: String,
    pub allowed: String,
    /// What else the rule looked at. Where one of these could not be read, the rule says nothing.
    pub beside: Vec<Path>,
    /// The place within the value, as lines to show below the message.
    pub excerpt: Option<String>,
}

/// What was found: what must be mended, and what is only odd.
#[derive(Debug, Default)]
pub struct Findings {
    pub faults: Vec<Finding>,
    pub warnings: Vec<Finding>,
}

impl Findings {
    pub fn fault(&mut self, path: Path, message: impl Display, allowed: &str) -> &mut Finding {
        self.faults.push(finding(path, message, allowed));
        self.faults.last_mut().expect("just pushed")
    }

    pub fn warn(&mut self, path: Path, message: impl Display, allowed: &str) {
        self.warnings.push(finding(path, message, allowed));
    }

    /// Every one of these counts must be at least 1.
    fn need_some(&mut self, at: &Path, counts: &[(&str, u64)]) {
        for (key, _) in counts.iter().filter(|(_, count)| *count == 0) {
            self.fault(at.key(key), "found 0", "must be at least 1");
        }
    }

    /// Every one of these times must be longer than nothing.
    fn need_time(&mut self, at: &Path, periods: &[(&str, Period)]) {
        for (key, period) in periods.iter().filter(|(_, period)| period.0.is_zero()) {
            self.fault(at.key(key), format!("found {period}"), "must be longer than 0s");
        }
    }

    /// `path`'s value must not pass that of `bound`.
    fn need_order<T: PartialOrd + Display>(&mut self, (path, value): (Path, T), (bound, most): (Path, T)) {
        if value > most {
            let message = format!("found {value}, more than {bound} = {most}");
            self.fault(path, message, "must not be more").beside.push(bound);
        }
    }
}

fn finding(path: Path, message: impl Display, allowed: &str) -> Finding {
    Finding { path, message: message.to_string(), allowed: allowed.to_owned(), beside: Vec::new(), excerpt: None }
}

/// Checks all rules. `sources` are the names that the config mentions, those included that could not be read.
pub fn check(config: &Config, sources: &[String]) -> Findings {
    let mut findings = Findings::default();
    check_ingress(&config.ingress, &mut findings);
    check_sources(config, sources, &mut findings);
    check_journal(config, &mut findings);
    check_process(config, &mut findings);
    check_tracing(&config.tracing, &mut findings);
    if config.sinks.is_empty() {
        let allowed = "pushes are accepted and kept until the journal is full; add a [sinks.NAME]";
        findings.warn(Path::of("sinks"), "no sink", allowed);
    }
    for (name, sink) in &config.sinks {
        let at = Path::of("sinks").key(name.as_str());
        check_name(&at, name.as_str(), &mut findings);
        if name.as_str() == INGRESS {
            findings.fault(at.clone(), "this name is taken", "the dead letters of the ingress are listed under it");
        }
        check_sink(&at, sink, sources, &mut findings);
    }
    check_sinks_apart(config, &mut findings);
    findings
}

fn check_ingress(ingress: &Ingress, findings: &mut Findings) {
    let at = Path::of("ingress");
    let counts = [
        ("body_size_max", ingress.body_size_max.0),
        ("connections_max", ingress.connections_max as u64),
        ("dead_letters_max", ingress.dead_letters_max),
    ];
    findings.need_some(&at, &counts);
    let periods = [
        ("handshake_timeout", ingress.handshake_timeout),
        ("header_timeout", ingress.header_timeout),
        ("body_timeout", ingress.body_timeout),
        ("idle_timeout", ingress.idle_timeout),
    ];
    findings.need_time(&at, &periods);
}

fn check_sources(config: &Config, sources: &[String], findings: &mut Findings) {
    if sources.is_empty() {
        let allowed = "at least one [sources.NAME] with its path is needed";
        findings.fault(Path::of("sources"), "no source", allowed);
    }
    let mut paths: BTreeMap<&str, &SourceName> = BTreeMap::new();
    for (name, source) in &config.sources {
        let at = Path::of("sources").key(name.as_str());
        check_name(&at, name.as_str(), findings);
        check_source(&at, source, config.ingress.listen, findings);
        if let Some(other) = paths.insert(&source.path, name) {
            let message = format!("found {:?}, which is the path of source {other} too", source.path);
            findings.fault(at.key("path"), message, "every source needs a path of its own");
        }
    }
    check_token_paths(config, findings);
}

fn check_source(at: &Path, source: &Source, listen: SocketAddr, findings: &mut Findings) {
    check_path(at.key("path"), &source.path, findings);
    check_actions(&at.key("actions"), source.actions.as_deref(), findings);
    for (index, action) in source.actions.iter().flatten().enumerate() {
        if action.eq_ignore_ascii_case(SPECIFIED_SEAT) {
            let allowed = "it is a routing query that needs an answer, not a push, and is always refused";
            findings.fault(at.key("actions").index(index), format!("found {action:?}"), allowed);
        }
    }
    check_auth(at, source, listen, findings);
}

fn check_path(at: Path, path: &str, findings: &mut Findings) {
    let is_path =
        path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte));
    if !is_path {
        // What stands after a `?` may be a secret.
        let shown = path.split('?').next().unwrap_or_default();
        let allowed = "must start with `/` and have no query, fragment, space or character outside ASCII";
        findings.fault(at, format!("found {shown:?}"), allowed);
    }
}

/// What can be said of a secret without resolving it.
pub fn check_secret(path: Path, secret: &Secret, findings: &mut Findings) {
    let is_empty = match secret {
        Secret::Inline(secret) => secret.expose_secret().is_empty(),
        Secret::Env(name) => name.is_empty(),
        Secret::File(path) => path.as_os_str().is_empty(),
    };
    if is_empty {
        findings.fault(path, "is empty", "write the secret, { env = \"NAME\" } or { file = \"PATH\" }");
    }
}

fn check_journal(config: &Config, findings: &mut Findings) {
    match config.journal.backend {
        JournalBackend::Disk => check_disk(config, findings),
        JournalBackend::Redis => {
            check_redis(&Path::of("journal.redis"), &config.journal.redis, findings);
            findings.need_order(
                (Path::of("ingress.body_size_max"), config.ingress.body_size_max),
                (Path::of("journal.size_max"), config.journal.size_max),
            );
        }
    }
    match (config.dedup.backend, config.journal.backend) {
        (DedupBackend::Journal, _) => {}
        (DedupBackend::Redis, JournalBackend::Disk) => {
            check_redis(&Path::of("dedup.redis"), &config.dedup.redis, findings);
        }
        (DedupBackend::Redis, JournalBackend::Redis) => {
            let message = "found \"redis\" with journal.backend = \"redis\"";
            let allowed = "a journal in Redis knows push ids by itself; leave the key out";
            let finding = findings.fault(Path::of("dedup.backend"), message, allowed);
            finding.beside.push(Path::of("journal.backend"));
        }
    }
    if config.dedup.window < DEDUP_WINDOW_MIN {
        let message = format!("found {}", config.dedup.window);
        let allowed = format!("must be at least {DEDUP_WINDOW_MIN}: the sender may resend for that long");
        findings.fault(Path::of("dedup.window"), message, &allowed);
    }
}

fn check_disk(config: &Config, findings: &mut Findings) {
    let disk = &config.journal.disk;
    let at = Path::of("journal.disk");
    let segment_size = at.key("segment_size");
    if !(SEGMENT_SIZE_MIN..=SEGMENT_SIZE_MAX).contains(&disk.segment_size) {
        let allowed = format!("must be from {SEGMENT_SIZE_MIN} to {SEGMENT_SIZE_MAX}");
        findings.fault(segment_size.clone(), format!("found {}", disk.segment_size), &allowed);
    }
    if config.journal.size_max.0 < disk.segment_size.0.saturating_mul(2) {
        let message = format!(
            "found {}, less than two segments of journal.disk.segment_size = {}",
            config.journal.size_max, disk.segment_size
        );
        let allowed = "space is given back a segment at a time, so there must be two at least";
        findings.fault(Path::of("journal.size_max"), message, allowed).beside.push(segment_size.clone());
    }
    findings.need_order(
        (Path::of("ingress.body_size_max"), config.ingress.body_size_max),
        (segment_size, disk.segment_size),
    );
    if disk.dir.as_os_str().is_empty() {
        findings.fault(at.key("dir"), "is empty", "must be a directory");
    }
}

fn check_process(config: &Config, findings: &mut Findings) {
    let (ingress, admin) = (config.ingress.listen, config.admin.listen);
    let is_same_host = ingress.ip() == admin.ip() || ingress.ip().is_unspecified() || admin.ip().is_unspecified();
    if ingress.port() == admin.port() && ingress.port() != 0 && is_same_host {
        let message = format!("found {admin}, the port that ingress.listen = {ingress} takes");
        let finding = findings.fault(Path::of("admin.listen"), message, "must be a port of its own");
        finding.beside.push(Path::of("ingress.listen"));
    }
    match &config.admin.token {
        Some(token) => check_secret(Path::of("admin.token"), token, findings),
        None if !admin.ip().is_loopback() => {
            let allowed = "nothing can be changed and no payload shown through it until a token is set";
            findings.warn(
                Path::of("admin.token"),
                format!("missing while admin.listen = {admin} is not loopback"),
                allowed,
            );
        }
        None => {}
    }
    findings.need_time(&Path::of("drain"), &[("deadline", config.drain.deadline)]);
    if EnvFilter::builder().parse(&config.log.filter).is_err() {
        let message = format!("found {:?}", config.log.filter);
        let allowed = "must be directives such as \"info\" or \"info,trunkline::ingress=debug\"";
        findings.fault(Path::of("log.filter"), message, allowed);
    }
}

fn check_sink(at: &Path, sink: &Sink, sources: &[String], findings: &mut Findings) {
    check_actions(&at.key("actions"), sink.actions.as_deref(), findings);
    if let Some(chosen) = &sink.sources {
        let at = at.key("sources");
        if chosen.is_empty() {
            findings.fault(at.clone(), "is empty", "name at least one, or leave the key out for all");
        }
        let known: Vec<&str> = sources.iter().map(String::as_str).collect();
        for (index, name) in chosen.iter().enumerate().filter(|(_, name)| !known.contains(&name.as_str())) {
            let message = format!("found {:?}, which is no source{}", name.as_str(), hint(name.as_str(), &known));
            findings.fault(at.index(index), message, &list_of(&known));
        }
    }
    check_content(at, sink, findings);
    let counts = [("concurrency", sink.concurrency as u64), ("dead_letters_max", sink.dead_letters_max)];
    findings.need_some(at, &counts);
    let (batch, retry) = (at.key("batch"), at.key("retry"));
    findings.need_some(&batch, &[("events_max", sink.batch.events_max as u64), ("bytes_max", sink.batch.bytes_max.0)]);
    findings.need_some(
        &at.key("window"),
        &[("events_max", sink.window.events_max as u64), ("bytes_max", sink.window.bytes_max.0)],
    );
    findings.need_some(&retry, &[("attempts_max", u64::from(sink.retry.attempts_max))]);
    findings.need_time(&retry, &[("delay_min", sink.retry.delay_min)]);
    findings.need_order((retry.key("delay_min"), sink.retry.delay_min), (retry.key("delay_max"), sink.retry.delay_max));
}

/// Lists of actions are open, since new kinds appear unannounced; what is nearly a known one is probably meant to be it.
fn check_actions(at: &Path, actions: Option<&[String]>, findings: &mut Findings) {
    let Some(actions) = actions else { return };
    if actions.is_empty() {
        findings.fault(at.clone(), "is empty", "name at least one, or leave the key out for all");
    }
    for (index, action) in actions.iter().enumerate() {
        if action.is_empty() {
            findings.fault(at.index(index), "is empty", "must be the name of an action");
        } else if known_action(action).is_none()
            && let Some(near) = nearest(action, &KNOWN_ACTIONS)
        {
            let message = format!("{action:?} is no known action, did you mean {near:?}?");
            findings.warn(at.index(index), message, &list_of(&KNOWN_ACTIONS));
        }
    }
}

fn check_name(at: &Path, name: &str, findings: &mut Findings) {
    let is_fit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    if name.is_empty() || name.len() > NAME_LENGTH_MAX || !name.bytes().all(is_fit) {
        let allowed = format!("must be 1 to {NAME_LENGTH_MAX} of the characters a-z, 0-9, _ and -");
        findings.fault(at.clone(), "this name cannot be used", &allowed);
    }
}

/// Two sinks that write one file would cut each other's lines.
fn check_sinks_apart(config: &Config, findings: &mut Findings) {
    let mut taken: BTreeMap<(&str, PathBuf), &str> = BTreeMap::new();
    for (name, sink) in &config.sinks {
        let Some(path) = sink.settings.0.get("path").and_then(toml::Value::as_str).filter(|path| *path != "-") else {
            continue;
        };
        let place = PathBuf::from(path).components().filter(|part| *part != Component::CurDir).collect();
        if let Some(other) = taken.insert((&sink.kind, place), name.as_str()) {
            let at = Path::of("sinks").key(name.as_str()).key("settings").key("path");
            let message = format!("found {path:?}, which sink {other} writes too");
            findings.fault(at, message, "every sink needs a path of its own");
        }
    }
}
