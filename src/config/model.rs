//! The config as it is written: one struct per table, every default in one place.
//!
//! These structs say which keys there are and of which type. What must hold between keys is [`super::check`]'s to say.

mod auth;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sink_api::Format;
use sink_api::settings::{Period, Secret, Size, TlsFiles};

use super::mask::MaskRule;
use crate::journal::Start;
use crate::journal::redis::{Durability, Mode};
use crate::names::{SinkName, SourceName};

pub use self::auth::{Algorithm, Auth, Jwt, OAuth2, Secrets};

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub ingress: Ingress,
    pub sources: BTreeMap<SourceName, Source>,
    pub journal: Journal,
    pub dedup: Dedup,
    pub admin: Admin,
    pub drain: Drain,
    pub log: Log,
    pub tracing: Tracing,
    pub sinks: BTreeMap<SinkName, Sink>,
}

/// The listener that pushes come to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ingress {
    pub listen: SocketAddr,
    /// Largest body of a push.
    pub body_size_max: Size,
    /// Connections served at the same time; more wait in the listener's backlog.
    pub connections_max: usize,
    /// Time for the TLS handshake.
    pub handshake_timeout: Period,
    /// Time for a request's whole header, counted from the first byte, or from the start of a connection.
    pub header_timeout: Period,
    /// Time for a request's whole body.
    pub body_timeout: Period,
    /// How long a kept connection may stay without a request.
    pub idle_timeout: Period,
    /// Also speak HTTP/2.
    pub http2: bool,
    /// How many refused pushes are kept; beyond, the oldest makes room.
    pub dead_letters_max: u64,
    pub tls: Option<Tls>,
    /// Peers whose `Forwarded` or `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
}

impl Default for Ingress {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            body_size_max: Size(1 << 20),
            connections_max: 10_000,
            handshake_timeout: Period::from_secs(5),
            header_timeout: Period::from_secs(10),
            body_timeout: Period::from_secs(10),
            idle_timeout: Period::from_secs(60),
            http2: false,
            dead_letters_max: 10_000,
            tls: None,
            trusted_proxies: Vec::new(),
        }
    }
}

/// Server certificates, PEM. Read again when the files change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// Where given, a client must show a certificate that one of these CAs signed.
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
}

/// An address that pushes come to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub path: String,
    /// The actions taken, compared without case; all but `specifiedSeat` where absent.
    #[serde(default)]
    pub actions: Option<Vec<String>>,
    #[serde(default)]
    pub auth: Auth,
    /// Needed beside `auth.type = "none"` when the ingress listens on more than loopback.
    #[serde(default)]
    pub allow_unauthenticated: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Journal {
    pub backend: JournalBackend,
    /// Bound on the entries' bytes; at it new pushes are refused.
    pub size_max: Size,
    pub disk: Disk,
    pub redis: Redis,
}

impl Default for Journal {
    fn default() -> Self {
        Self { backend: JournalBackend::Disk, size_max: Size(10 << 30), disk: Disk::default(), redis: Redis::default() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JournalBackend {
    #[default]
    Disk,
    Redis,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Disk {
    pub dir: PathBuf,
    /// Bytes of one segment file; space is given back a segment at a time.
    pub segment_size: Size,
    /// Free space of the file system below which new pushes are refused.
    pub reserve: Size,
}

impl Default for Disk {
    fn default() -> Self {
        Self { dir: PathBuf::from("data/journal"), segment_size: Size(64 << 20), reserve: Size(64 << 20) }
    }
}

/// Where Redis is and what is asked of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Redis {
    pub mode: Mode,
    /// `redis://` or `rediss://` (TLS). [`Redis::URL`] where neither this nor `urls` is set.
    pub url: Option<Secret>,
    /// Some nodes of a cluster, or the sentinels.
    pub urls: Vec<Secret>,
    /// How the sentinels call the master.
    pub master: Option<String>,
    /// Of the servers that hold data, where the URLs do not say it.
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub tls: Option<TlsFiles>,
    /// What every key begins with.
    pub prefix: String,
    /// How many parts the journal has; fixed once it was made.
    pub shards: u16,
    pub durability: Durability,
    /// How many replicas must have a push before it is acknowledged, with `replicated` and `strict`.
    pub replicas: u32,
    pub connect_timeout: Period,
    /// Time for one reply.
    pub response_timeout: Period,
    /// Time for the replicas to confirm a push.
    pub replica_timeout: Period,
    /// Start although the server promises less than `durability` needs.
    pub allow_weaker: bool,
}

impl Redis {
    /// Where Redis is looked for unless the config says otherwise.
    pub const URL: &str = "redis://127.0.0.1:6379";
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            url: None,
            urls: Vec::new(),
            master: None,
            username: None,
            password: None,
            tls: None,
            prefix: "trunkline".to_owned(),
            shards: 8,
            durability: Durability::default(),
            replicas: 1,
            connect_timeout: Period::from_secs(1),
            response_timeout: Period::from_secs(1),
            replica_timeout: Period::from_millis(500),
            allow_weaker: false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dedup {
    /// How long a push id is remembered.
    pub window: Period,
    pub backend: DedupBackend,
    /// Where `backend = "redis"` keeps push ids.
    pub redis: Redis,
}

impl Default for Dedup {
    fn default() -> Self {
        Self { window: Period::from_secs(24 * 3600), backend: DedupBackend::default(), redis: Redis::default() }
    }
}

/// Where push ids are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DedupBackend {
    /// Where the pushes are.
    #[default]
    Journal,
    /// To all replicas that have a disk journal each.
    Redis,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    pub listen: SocketAddr,
    /// Bearer token for what changes something or shows a payload.
    pub token: Option<Secret>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9090)), token: None }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// How long readiness is off while pushes are still taken.
    pub announce: Period,
    /// How long, after that, what is in hand may take.
    pub deadline: Period,
}

impl Default for Drain {
    fn default() -> Self {
        Self { announce: Period::from_secs(5), deadline: Period::from_secs(25) }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Directives of tracing's EnvFilter, such as `info,trunkline::ingress=debug`.
    pub filter: String,
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Auto }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    #[default]
    Auto,
    Text,
    Json,
}

/// Where spans go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tracing {
    /// Base URL of a collector that takes OTLP over HTTP; `/v1/traces` is appended. Off without it.
    pub endpoint: Option<String>,
    /// Share of the traces begun here that are sent, 0 to 1. A sender's own decision holds for its traces.
    pub sample_ratio: f64,
    /// Header fields of every request to the collector.
    pub headers: BTreeMap<String, Secret>,
    /// Time for one request.
    pub timeout: Period,
    /// Spans that wait to be sent; more are dropped.
    pub queue_max: usize,
}

impl Default for Tracing {
    fn default() -> Self {
        Self {
            endpoint: None,
            sample_ratio: 1.0,
            headers: BTreeMap::new(),
            timeout: Period::from_secs(10),
            queue_max: 2048,
        }
    }
}

/// A destination and how events are brought to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sink {
    #[serde(rename = "type")]
    pub kind: String,
    /// Which actions, compared without case; all where absent.
    #[serde(default)]
    pub actions: Option<Vec<String>>,
    /// Pushes of which sources; all where absent.
    #[serde(default)]
    pub sources: Option<Vec<SourceName>>,
    /// A CEL expression over the event; all where absent.
    #[serde(default)]
    pub when: Option<String>,
    /// What is made unreadable, by path below `data`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mask: BTreeMap<String, MaskRule>,
    #[serde(default)]
    pub format: Format,
    #[serde(default)]
    pub start: Start,
    #[serde(default)]
    pub batch: BatchLimits,
    #[serde(default)]
    pub retry: Retry,
    /// Batches in flight at the same time.
    #[serde(default = "Sink::default_concurrency")]
    pub concurrency: usize,
    /// What is read ahead and not settled yet, batches in flight and waiting retries included. At least one batch.
    #[serde(default)]
    pub window: Window,
    /// How many dead letters are kept; at it the sink pauses.
    #[serde(default = "Sink::default_dead_letters_max")]
    pub dead_letters_max: u64,
    /// What this kind of sink needs.
    #[serde(default, skip_serializing)]
    pub settings: RawSettings,
}

impl Sink {
    fn default_concurrency() -> usize {
        4
    }

    fn default_dead_letters_max() -> u64 {
        100_000
    }
}

/// Settings of a sink as they are written, for its kind to read and for noticing that they changed. They may hold secrets, so they
/// are not shown.
#[derive(Clone, PartialEq, Default, Deserialize)]
#[serde(transparent)]
pub struct RawSettings(pub toml::Table);

impl fmt::Debug for RawSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// When a batch is full enough to go out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchLimits {
    pub events_max: usize,
    /// Of the bodies as received. A single larger event still goes out.
    pub bytes_max: Size,
    /// How long the first event of a batch waits for more.
    pub linger: Period,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { events_max: 500, bytes_max: Size(1 << 20), linger: Period::from_millis(50) }
    }
}

/// When an event that failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Before the second attempt; doubles from there, with jitter.
    pub delay_min: Period,
    /// Bound of the delay, and of the time between probes of a sink that is away.
    pub delay_max: Period,
    /// Attempts before an event becomes a dead letter.
    pub attempts_max: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self { delay_min: Period::from_millis(200), delay_max: Period::from_secs(60), attempts_max: 10 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Window {
    pub events_max: usize,
    pub bytes_max: Size,
}

impl Default for Window {
    fn default() -> Self {
        Self { events_max: 4_000, bytes_max: Size(4 << 20) }
    }
}
