//! Connections to Redis: one server, a cluster, or the master that sentinels point to.
//!
//! What it promises: a connection leads to a server that said it is the master, and knows that server's [`Identity`], which is another
//! one after every restart and every failover. Replies are waited for as long as the config says and no longer. Connections are
//! not shared unless their owner shares them, and never mended: whoever sees one fail drops it and asks for another, after
//! [`Servers::forget`] where the failure says that the master may be elsewhere.
//!
//! What it refuses: to read from replicas, and to log or show a URL, a user name or a password.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline,
    RedisError, TlsCertificates, Value, cmd,
};
use secrecy::ExposeSecret;
use sink_api::settings::TlsFiles;

use super::options::{Mode, Place};

/// Slots of a cluster.
const SLOTS: u16 = 16384;

/// No connection could be made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    #[error("a URL of Redis cannot be read: {0}")]
    Url(String),
    #[error("the file {file} for TLS with Redis cannot be read: {cause}")]
    TlsFile { file: String, cause: String },
    #[error("Redis at {node} is not reachable: {cause}")]
    Unreachable { node: String, cause: String },
    #[error("no sentinel knows where the master {master:?} is ({cause})")]
    NoMaster { master: String, cause: String },
    #[error("no node of the Redis cluster says who has the slots ({cause})")]
    NoSlots { cause: String },
    #[error("the Redis cluster has nobody for slot {slot}")]
    NoNode { slot: u16 },
    #[error("Redis at {node} is no master")]
    NotMaster { node: String },
    #[error("Redis at {node} does not answer INFO, which its user needs to be allowed: {cause}")]
    NoInfo { node: String, cause: String },
}

/// A server that holds data.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    pub host: String,
    pub port: u16,
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Tells one life of a server's data from the next: the process and its history of replication. Changes with every restart and with
/// every promotion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity(pub String);

/// A connection to a master.
#[derive(Clone)]
pub struct Link {
    pub node: Node,
    pub identity: Identity,
    connection: MultiplexedConnection,
}

impl Link {
    /// Sends `pipeline` and gives every reply; an error of the server is a [`Value::ServerError`] among them.
    ///
    /// # Errors
    /// The connection failed or the replies did not come in time: whether the commands ran is not known.
    pub async fn send(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        self.connection.send_packed_commands(pipeline, 0, pipeline.len()).await
    }

    /// Sends one command.
    ///
    /// # Errors
    /// As [`Self::send`], or the server's error.
    pub async fn ask(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        self.connection.send_packed_command(command).await?.extract_error()
    }

    /// Asks the server who it is now. The identity changes under a connection that outlives a failover.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn identify(&mut self) -> Result<(), ConnectError> {
        let mut info = String::new();
        for section in ["server", "replication"] {
            let said = self.ask(cmd("INFO").arg(section)).await.and_then(|value| Ok(redis::from_redis_value(value)?));
            let said: String = said.map_err(|error| match error.is_io_error() {
                true => ConnectError::Unreachable { node: self.node.to_string(), cause: say(&error) },
                false => ConnectError::NoInfo { node: self.node.to_string(), cause: say(&error) },
            })?;
            info.push_str(&said);
        }
        if info_field(&info, "role") != Some("master") {
            return Err(ConnectError::NotMaster { node: self.node.to_string() });
        }
        let part = |name| info_field(&info, name).unwrap_or_default();
        self.identity = Identity(format!("{}-{}", part("run_id"), part("master_replid")));
        Ok(())
    }
}

/// A field of what `INFO` says.
pub fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// An error in words that hold no secret: what the server said, or how the connection failed.
pub fn say(error: &RedisError) -> String {
    error.to_string()
}

/// Which server has what.
#[derive(Debug)]
enum Layout {
    One(Node),
    /// First slot, last slot, master.
    Slots(Vec<(u16, u16, Node)>),
}

/// The servers of the config.
pub struct Servers {
    place: Place,
    seeds: Vec<ConnectionInfo>,
    certificates: Option<TlsCertificates>,
    layout: Mutex<Option<Arc<Layout>>>,
    /// The seed that answered last, which is asked first: one that is dead costs its time once.
    answering: AtomicUsize,
}

impl Servers {
    /// Reads the URLs and the files for TLS. Connects to nothing yet.
    ///
    /// # Errors
    /// [`ConnectError::Url`], [`ConnectError::TlsFile`]
    pub fn new(place: Place) -> Result<Self, ConnectError> {
        let parse = |url: &secrecy::SecretString| {
            // The parser's own message could quote the URL.
            let info = url.expose_secret().into_connection_info().map_err(|error| error.category().to_owned());
            info.map_err(ConnectError::Url)
        };
        let seeds = place.urls.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        if seeds.is_empty() {
            return Err(ConnectError::Url("there is none".to_owned()));
        }
        let certificates = read_certificates(&place.tls)?;
        Ok(Self { place, seeds, certificates, layout: Mutex::new(None), answering: AtomicUsize::new(0) })
    }

    pub fn mode(&self) -> Mode {
        self.place.mode
    }

    pub fn response_timeout(&self) -> Duration {
        self.place.response_timeout
    }

    /// The master that has the keys with the hash tag `tag`. Asks the sentinels or the cluster where that is not known.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn home(&self, tag: &str) -> Result<Node, ConnectError> {
        match &*self.layout().await? {
            Layout::One(node) => Ok(node.clone()),
            Layout::Slots(slots) => {
                let slot = slot_of(tag);
                let found = slots.iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
                found.map(|(.., node)| node.clone()).ok_or(ConnectError::NoNode { slot })
            }
        }
    }

    /// All masters.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn masters(&self) -> Result<Vec<Node>, ConnectError> {
        Ok(match &*self.layout().await? {
            Layout::One(node) => vec![node.clone()],
            Layout::Slots(slots) => {
                let mut nodes: Vec<Node> = slots.iter().map(|(.., node)| node.clone()).collect();
                nodes.sort_unstable();
                nodes.dedup();
                nodes
            }
        })
    }

    /// The master may be elsewhere: the next look asks again.
    pub fn forget(&self) {
        *self.layout.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A connection of its own to `node`. `patience` is added to the time that a reply may take, for commands that block.
    ///
    /// # Errors
    /// See [`ConnectError`]; [`ConnectError::NotMaster`] also forgets where the master was.
    pub async fn connect(&self, node: &Node, patience: Duration) -> Result<Link, ConnectError> {
        let base = self.seeds[0].clone();
        let info = match self.place.mode {
            // The credentials of a sentinel's URL are the sentinel's.
            Mode::Sentinel => base.set_redis_settings(redis::RedisConnectionInfo::default()),
            Mode::Standalone | Mode::Cluster => base,
        };
        let info = self.with_credentials(with_address(info, node));
        let connection = self.dial(info, node, self.place.response_timeout + patience).await?;
        let mut link = Link { node: node.clone(), identity: Identity(String::new()), connection };
        let identified = link.identify().await;
        if matches!(identified, Err(ConnectError::NotMaster { .. })) {
            self.forget();
        }
        identified.map(|()| link)
    }

    fn with_credentials(&self, info: ConnectionInfo) -> ConnectionInfo {
        let mut settings = info.redis_settings().clone();
        if let Some(username) = &self.place.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &self.place.password {
            settings = settings.set_password(password.expose_secret());
        }
        info.set_redis_settings(settings)
    }

    async fn dial(
        &self,
        info: ConnectionInfo,
        node: &Node,
        response_timeout: Duration,
    ) -> Result<MultiplexedConnection, ConnectError> {
        let unreachable = |cause: String| ConnectError::Unreachable { node: node.to_string(), cause };
        let settings = info.redis_settings().clone().set_skip_set_lib_name();
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true)).set_redis_settings(settings);
        let client = match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        };
        let client = client.map_err(|error| unreachable(say(&error)))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.place.connect_timeout))
            .set_response_timeout(Some(response_timeout));
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        match tokio::time::timeout(self.place.connect_timeout, connecting).await {
            Ok(connected) => connected.map_err(|error| unreachable(say(&error))),
            Err(_) => Err(unreachable(format!("no answer within {:?}", self.place.connect_timeout))),
        }
    }

    async fn layout(&self) -> Result<Arc<Layout>, ConnectError> {
        let known = self.layout.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(layout) = known {
            return Ok(layout);
        }
        let found = Arc::new(match self.place.mode {
            Mode::Standalone => Layout::One(node_of(&self.seeds[0])),
            Mode::Sentinel => Layout::One(self.master().await?),
            Mode::Cluster => Layout::Slots(self.slots().await?),
        });
        *self.layout.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&found));
        Ok(found)
    }

    /// Where the sentinels say that the master is: the first one that answers.
    async fn master(&self) -> Result<Node, ConnectError> {
        let mut cause = "no sentinel answered".to_owned();
        for (at, seed) in self.seeds_in_turn() {
            let mut ask = cmd("SENTINEL");
            ask.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.place.master);
            match self.ask_seed(seed, &ask).await.map(redis::from_redis_value::<Option<(String, u16)>>) {
                Ok(Ok(Some((host, port)))) => {
                    self.answering.store(at, Ordering::Relaxed);
                    return Ok(Node { host, port });
                }
                Ok(Ok(None)) => cause = "the name is unknown".to_owned(),
                Ok(Err(error)) => cause = error.to_string(),
                Err(error) => cause = error,
            }
        }
        Err(ConnectError::NoMaster { master: self.place.master.clone(), cause })
    }

    async fn slots(&self) -> Result<Vec<(u16, u16, Node)>, ConnectError> {
        let mut cause = "no node answered".to_owned();
        for (at, seed) in self.seeds_in_turn() {
            let mut ask = cmd("CLUSTER");
            ask.arg("SLOTS");
            let (node, credentials) = (node_of(seed), self.with_credentials(seed.clone()));
            match self.ask_seed(&credentials, &ask).await {
                Ok(value) => match read_slots(value, &node) {
                    Some(slots) if !slots.is_empty() => {
                        self.answering.store(at, Ordering::Relaxed);
                        return Ok(slots);
                    }
                    _ => cause = format!("{node} knows no slots"),
                },
                Err(error) => cause = error,
            }
        }
        Err(ConnectError::NoSlots { cause })
    }

    fn seeds_in_turn(&self) -> impl Iterator<Item = (usize, &ConnectionInfo)> {
        let first = self.answering.load(Ordering::Relaxed);
        self.seeds.iter().enumerate().cycle().skip(first).take(self.seeds.len())
    }

    async fn ask_seed(&self, seed: &ConnectionInfo, command: &Cmd) -> Result<Value, String> {
        let dialled = self.dial(seed.clone(), &node_of(seed), self.place.response_timeout).await;
        let mut connection = dialled.map_err(|error| error.to_string())?;
        let said = connection.send_packed_command(command).await.and_then(Value::extract_error);
        said.map_err(|error| say(&error))
    }
}

fn read_certificates(files: &TlsFiles) -> Result<Option<TlsCertificates>, ConnectError> {
    let read = |file: &std::path::PathBuf| {
        let failed = |error: std::io::Error| ConnectError::TlsFile {
            file: file.display().to_string(),
            cause: error.to_string(),
        };
        std::fs::read(file).map_err(failed)
    };
    let root_cert = files.ca_file.as_ref().map(read).transpose()?;
    let client_tls = match (&files.cert_file, &files.key_file) {
        (Some(cert), Some(key)) => Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? }),
        _ => None,
    };
    Ok((root_cert.is_some() || client_tls.is_some()).then_some(TlsCertificates { client_tls, root_cert }))
}

fn node_of(info: &ConnectionInfo) -> Node {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Node { host: host.clone(), port: *port }
        }
        other => Node { host: other.to_string(), port: 0 },
    }
}

/// `info` with the address of `node`, and TLS as it was.
fn with_address(info: ConnectionInfo, node: &Node) -> ConnectionInfo {
    let addr = match info.addr().clone() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host: node.host.clone(), port: node.port, insecure, tls_params }
        }
        _ => ConnectionAddr::Tcp(node.host.clone(), node.port),
    };
    info.set_addr(addr)
}

/// The masters in a reply to `CLUSTER SLOTS`. A node that does not know its own address is where it was `asked`.
fn read_slots(value: Value, asked: &Node) -> Option<Vec<(u16, u16, Node)>> {
    let Value::Array(ranges) = value else { return None };
    let mut slots = Vec::new();
    for range in ranges {
        let Value::Array(parts) = range else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = parts.as_slice() else { return None };
        let host = match master.first()? {
            Value::BulkString(host) if !host.is_empty() && host != b"?" => String::from_utf8(host.clone()).ok()?,
            _ => asked.host.clone(),
        };
        let Value::Int(port) = master.get(1)? else { return None };
        let node = Node { host, port: u16::try_from(*port).ok()? };
        slots.push((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, node));
    }
    Some(slots)
}

/// The slot of the keys with the hash tag `tag`: CRC16/XMODEM of it (Redis Cluster specification, "Key distribution model").
fn slot_of(tag: &str) -> u16 {
    let mut crc = 0_u16;
    for byte in tag.bytes() {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
        }
    }
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot_of("123456789"), 0x31c3);
        assert_eq!(slot_of("foo"), 12182);
    }

    #[test]
    fn fields_of_info_are_found() {
        let info = "# Server\r\nrun_id:ab\r\nrole_x:no\r\nrole:master\r\n";
        assert_eq!(info_field(info, "role"), Some("master"));
        assert_eq!(info_field(info, "rol"), None);
    }

    #[test]
    fn no_error_shows_the_url() {
        let place = Place::new(Mode::Standalone, vec!["redis//user:HUNTER2@host".to_owned().into()]);
        let error = Servers::new(place).err().unwrap();
        assert!(!format!("{error} {error:?}").contains("HUNTER2"));
    }
}
