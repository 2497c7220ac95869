//! RabbitMQ: one private node per value, on free ports of loopback, with an `epmd` of its own, so that nothing of the machine's
//! own RabbitMQ or Erlang is met.

mod reader;

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

pub use self::reader::Reader;
use crate::process::{Process, free_port, installed, wait_until};

const START_PATIENCE: Duration = Duration::from_secs(120);

/// What the node writes when it takes connections.
const STARTED: &str = "Server startup complete";

/// A running broker with the user `guest`, who may do everything.
#[derive(Debug)]
pub struct RabbitMq {
    dir: TempDir,
    ports: Ports,
    node: Option<Process>,
    _epmd: Process,
}

#[derive(Debug)]
struct Ports {
    amqp: u16,
    amqps: u16,
    distribution: u16,
    epmd: u16,
}

/// PEM files of a TLS listener, which asks every client for a certificate of the same CA.
#[derive(Debug, Clone, Copy)]
pub struct Tls<'a> {
    pub ca_file: &'a Path,
    pub cert_file: &'a Path,
    pub key_file: &'a Path,
}

impl RabbitMq {
    /// Starts a node and waits until it takes connections.
    ///
    /// # Panics
    /// When it is not installed, or does not start.
    pub fn start() -> Self {
        Self::start_with("", None)
    }

    /// As [`RabbitMq::start`], with further lines of `rabbitmq.conf`, and with a TLS listener where `tls` says so.
    ///
    /// # Panics
    /// When it is not installed, or does not start.
    pub fn start_with(config: &str, tls: Option<Tls<'_>>) -> Self {
        let dir = tempfile::tempdir().expect("a folder for the broker");
        let ports = Ports { amqp: free_port(), amqps: free_port(), distribution: free_port(), epmd: free_port() };
        std::fs::write(dir.path().join("rabbitmq.conf"), ports.config(config, tls)).expect("the folder can be written");
        let mut epmd = Command::new(installed("rabbitmq/usr/lib/erlang/bin/epmd"));
        epmd.args(["-address", "127.0.0.1", "-port", &ports.epmd.to_string()]);
        let epmd = Process::spawn(&epmd, &dir.path().join("epmd.log")).expect("epmd starts");
        let mut broker = Self { dir, ports, node: None, _epmd: epmd };
        broker.start_node();
        broker
    }

    /// `amqp://…` of the default virtual host.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.ports.amqp)
    }

    /// The same through TLS, for brokers that have it. The host is `localhost`.
    pub fn tls_url(&self) -> String {
        format!("amqps://guest:guest@localhost:{}/%2f", self.ports.amqps)
    }

    pub fn port(&self) -> u16 {
        self.ports.amqp
    }

    /// Runs `rabbitmqctl` and gives what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn ctl(&self, args: &[&str]) -> String {
        let output = self.command("rabbitmqctl").arg("--quiet").args(args).output().expect("rabbitmqctl starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "rabbitmqctl {args:?}: {said}{complaint}");
        said
    }

    /// Stops the broker but not its node: connections are closed, the port too.
    pub fn stop_app(&self) {
        self.ctl(&["stop_app"]);
    }

    /// Ends what [`RabbitMq::stop_app`] began.
    pub fn start_app(&self) {
        self.ctl(&["start_app"]);
    }

    pub fn close_all_connections(&self) {
        self.ctl(&["close_all_connections", "closed by the test"]);
    }

    /// Raises the memory alarm: who publishes is blocked.
    pub fn block(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "0.0000001"]);
    }

    pub fn unblock(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "0.4"]);
    }

    /// A durable quorum queue, bound to `exchange`, a durable topic exchange, for all keys.
    pub fn declare(&self, exchange: &str, queue: &str) {
        let script = format!(
            "X = rabbit_misc:r(<<\"/\">>, exchange, <<\"{exchange}\">>), \
             Q = rabbit_misc:r(<<\"/\">>, queue, <<\"{queue}\">>), \
             rabbit_exchange:declare(X, topic, true, false, false, [], <<\"test\">>), \
             rabbit_amqqueue:declare(Q, true, false, [{{<<\"x-queue-type\">>, longstr, <<\"quorum\">>}}], none, <<\"test\">>), \
             rabbit_binding:add({{binding, X, <<\"#\">>, Q, []}}, <<\"test\">>)."
        );
        self.ctl(&["eval", &script]);
    }

    /// Who is connected, a line each.
    pub fn connections(&self) -> Vec<String> {
        self.ctl(&["list_connections", "pid", "state"]).lines().skip(1).map(str::to_owned).collect()
    }

    /// Stops the node in its tracks, as a machine that hangs: connections stay, nobody answers.
    pub fn hang(&self) {
        self.node().signal("STOP");
    }

    /// Ends what [`RabbitMq::hang`] began.
    pub fn go_on(&self) {
        self.node().signal("CONT");
    }

    /// Ends the node at once, as `kill -9` does.
    pub fn kill(&mut self) {
        self.node = None;
    }

    /// Starts the node again, with what it had on disk.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_node(&mut self) {
        let log = self.dir.path().join("node.log");
        let starts = || std::fs::read_to_string(&log).unwrap_or_default().matches(STARTED).count();
        let before = starts();
        let mut node = self.command("rabbitmq-server");
        // In this mode the script becomes the node, so that it is the node that is killed.
        node.env("RABBITMQ_ALLOW_INPUT", "1").env("RABBITMQ_SERVER_START_ARGS", "-noinput");
        let mut node = Process::spawn(&node, &log).expect("the broker starts");
        wait_until("the broker has started", START_PATIENCE, &log, || {
            let ended = node.ended().expect("the system can say");
            assert!(ended.is_none(), "the broker ended with {ended:?}; see {}", log.display());
            starts() > before && TcpStream::connect(("127.0.0.1", self.ports.amqp)).is_ok()
        });
        self.node = Some(node);
    }

    /// Reads queues with a client that is not ours.
    ///
    /// # Panics
    /// When Python or its package `pika` is not installed.
    pub fn reader(&self) -> Reader {
        Reader::start(&self.url(), &self.dir.path().join("reader.log"))
    }

    fn node(&self) -> &Process {
        self.node.as_ref().expect("the node runs")
    }

    /// A program of the package, told where its node is.
    fn command(&self, program: &str) -> Command {
        let root = installed("rabbitmq/usr/lib");
        let path = std::env::var("PATH").unwrap_or_default();
        let at = |name: &str| -> PathBuf { self.dir.path().join(name) };
        let mut command = Command::new(installed(&format!("rabbitmq/usr/lib/rabbitmq/bin/{program}")));
        command
            .env("ERL_ROOTDIR", root.join("erlang"))
            .env("PATH", format!("{}:{path}", root.join("erlang/bin").display()))
            .env("HOME", self.dir.path())
            .env("LANG", "C.UTF-8")
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", self.ports.epmd.to_string())
            .env("RABBITMQ_NODENAME", "rabbit@localhost")
            .env("RABBITMQ_DIST_PORT", self.ports.distribution.to_string())
            .env("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf"))
            .env("RABBITMQ_CONF_ENV_FILE", at("none"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", at("plugins"))
            .env("RABBITMQ_FEATURE_FLAGS_FILE", at("feature_flags"))
            .env("RABBITMQ_MNESIA_BASE", at("mnesia"))
            .env("RABBITMQ_LOG_BASE", at("log"))
            .env("RABBITMQ_LOGS", "-");
        command
    }
}

impl Ports {
    fn config(&self, more: &str, tls: Option<Tls<'_>>) -> String {
        let mut config = format!("listeners.tcp.1 = 127.0.0.1:{}\nloopback_users = none\n{more}\n", self.amqp);
        if let Some(tls) = tls {
            let file = |path: &Path| path.display().to_string();
            config.push_str(&format!(
                "listeners.ssl.1 = 127.0.0.1:{}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
                 ssl_options.keyfile = {}\nssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n",
                self.amqps,
                file(tls.ca_file),
                file(tls.cert_file),
                file(tls.key_file)
            ));
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_starts_is_killed_and_starts_again_with_what_it_had() {
        let mut broker = RabbitMq::start();
        broker.declare("events", "all");
        let queues = broker.ctl(&["list_queues", "name", "type"]);
        assert!(queues.contains("all\tquorum"), "{queues}");
        assert!(broker.reader().drain("all").is_empty());
        broker.kill();
        assert!(TcpStream::connect(("127.0.0.1", broker.port())).is_err());
        broker.start_node();
        assert_eq!(broker.ctl(&["list_queues", "name", "type"]), queues);
    }
}
