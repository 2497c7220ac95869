//! Apache Kafka in KRaft mode, one node or three, and an independent client that reads back.
//!
//! Node 1 is broker and controller, the others are brokers, so that they can be stopped while the cluster keeps its mind. Every node
//! listens three times: in plain, with TLS where clients show a certificate, and with SASL.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::process::{Process, free_port, installed, wait_until};

/// On a machine that does something else besides.
const START_PATIENCE: Duration = Duration::from_secs(90);

const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// Who may log in, by PLAIN and by SCRAM.
pub const USER: &str = "gateway";
pub const PASSWORD: &str = "for-tests";

/// Running nodes.
pub struct Kafka {
    nodes: Vec<Node>,
    dir: tempfile::TempDir,
}

struct Node {
    number: usize,
    dir: PathBuf,
    ports: Ports,
    process: Mutex<Option<Process>>,
}

#[derive(Clone, Copy)]
struct Ports {
    plain: u16,
    tls: u16,
    sasl: u16,
    controller: u16,
}

/// PEM files for the listener with TLS.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// Signed the brokers' certificates, for `127.0.0.1`, and the client's.
    pub ca: PathBuf,
    pub client: PathBuf,
    pub client_key: PathBuf,
    brokers: PathBuf,
}

impl Kafka {
    /// Starts `count` nodes, and waits until they take connections.
    ///
    /// # Panics
    /// When Kafka is not installed, or does not start.
    pub fn start(count: usize) -> Self {
        installed("kafka/kafka-server-4.1.1.jar");
        let dir = tempfile::tempdir().expect("a folder");
        make_certificates(dir.path());
        let nodes: Vec<Node> = (1..=count)
            .map(|number| {
                let ports = Ports { plain: free_port(), tls: free_port(), sasl: free_port(), controller: free_port() };
                Node { number, dir: dir.path().join(number.to_string()), ports, process: Mutex::default() }
            })
            .collect();
        let kafka = Self { nodes, dir };
        let formats: Vec<Child> = kafka.nodes.iter().map(|node| kafka.format(node)).collect();
        for mut format in formats {
            let status = format.wait().expect("a child of ours");
            assert!(status.success(), "formatting a node's folder: {status}");
        }
        for node in &kafka.nodes {
            node.run();
        }
        for node in &kafka.nodes {
            node.wait_until_started(0);
        }
        kafka
    }

    /// The brokers' plain addresses.
    pub fn brokers(&self) -> String {
        self.addresses(|ports| ports.plain)
    }

    pub fn tls_brokers(&self) -> String {
        self.addresses(|ports| ports.tls)
    }

    pub fn sasl_brokers(&self) -> String {
        self.addresses(|ports| ports.sasl)
    }

    pub fn certificates(&self) -> Certificates {
        Certificates::in_dir(self.dir.path())
    }

    /// Every port that clients connect to.
    pub fn client_ports(&self) -> Vec<u16> {
        self.nodes.iter().flat_map(|node| [node.ports.plain, node.ports.tls, node.ports.sasl]).collect()
    }

    /// Makes a topic; settings as `name=value`. Returns once every partition has a leader.
    pub fn create_topic(&self, topic: &str, partitions: usize, replication: usize, settings: &[&str]) {
        let (partitions, replication) = (partitions.to_string(), replication.to_string());
        let mut arguments = vec!["create", topic, &partitions, &replication];
        arguments.extend(settings);
        self.ask(&arguments);
    }

    pub fn delete_topic(&self, topic: &str) {
        self.ask(&["delete", topic]);
    }

    /// The node that leads each partition.
    pub fn leaders(&self, topic: &str) -> Vec<usize> {
        let answer = self.ask(&["leaders", topic]);
        answer.split_whitespace().map(|node| node.parse().expect("partitions have leaders")).collect()
    }

    pub fn setting(&self, topic: &str, name: &str) -> String {
        self.ask(&["settings", topic, name]).trim().to_owned()
    }

    /// Takes over a transactional id, as another producer with it would.
    pub fn fence(&self, transactional_id: &str) {
        self.ask(&["fence", transactional_id]);
    }

    /// An independent client that reads `topics`, as a consumer of committed records where asked for.
    pub fn reader(&self, topics: &[&str], is_committed: bool) -> Reader {
        let mut command = self.client("read");
        if is_committed {
            command.arg("--committed");
        }
        command.args(topics).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python starts");
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Reader { conversation: Mutex::new((stdin, BufReader::new(stdout))), child }
    }

    /// Ends the node at once, as a crash would.
    pub fn kill(&self, node: usize) {
        if let Some(mut process) = self.node(node).process().take() {
            process.kill();
        }
    }

    /// Ends the node as an operator would, which moves its leaders away.
    pub fn stop(&self, node: usize) {
        let node = self.node(node);
        let Some(mut process) = node.process().take() else { return };
        process.signal("TERM");
        wait_until("a node stops", STOP_PATIENCE, &node.log(), || {
            process.ended().expect("a child of ours can be asked").is_some()
        });
    }

    /// Starts a node that was stopped or killed, on the same ports.
    pub fn restart(&self, node: usize) {
        let node = self.node(node);
        let starts = node.starts();
        node.run();
        node.wait_until_started(starts);
    }

    /// Stops its threads where they are; connections stay, and nobody answers.
    pub fn freeze(&self, node: usize) {
        self.signal(node, "STOP");
    }

    pub fn thaw(&self, node: usize) {
        self.signal(node, "CONT");
    }

    fn signal(&self, node: usize, name: &str) {
        self.node(node).process().as_ref().expect("it runs").signal(name);
    }

    fn node(&self, number: usize) -> &Node {
        &self.nodes[number - 1]
    }

    fn addresses(&self, port: impl Fn(&Ports) -> u16) -> String {
        let addresses: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", port(&node.ports))).collect();
        addresses.join(",")
    }

    fn client(&self, command: &str) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka/client.py");
        let mut client = Command::new(installed("python/bin/python"));
        client.arg(script).arg(self.brokers()).arg(command);
        client
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let mut command = self.client(arguments[0]);
        let output = command.args(&arguments[1..]).output().expect("python starts");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn format(&self, node: &Node) -> Child {
        std::fs::create_dir_all(&node.dir).expect("a folder");
        std::fs::write(node.config(), self.properties(node)).expect("a file");
        let scram = |mechanism: &str| format!("{mechanism}=[name={USER},password={PASSWORD}]");
        let mut format = java(128, "kafka.tools.StorageTool");
        format
            .args(["format", "--ignore-formatted", "-t", "4L6g3nShT-eMCtK--X86sw", "-c"])
            .arg(node.config())
            .args(["--add-scram", &scram("SCRAM-SHA-256"), "--add-scram", &scram("SCRAM-SHA-512")])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        format.spawn().expect("java starts")
    }

    fn properties(&self, node: &Node) -> String {
        let Ports { plain, tls, sasl, controller } = node.ports;
        let is_controller = node.number == 1;
        let roles = if is_controller { "broker,controller" } else { "broker" };
        let own = if is_controller { format!(",CONTROLLER://127.0.0.1:{controller}") } else { String::new() };
        let voter = self.nodes[0].ports.controller;
        let replicas = self.nodes.len().min(3);
        let certificates = self.certificates();
        let login = |module: &str, more: &str| {
            format!("org.apache.kafka.common.security.{module} required {more};").replace('\n', " ")
        };
        let plain_login = login(
            "plain.PlainLoginModule",
            &format!("username=\"{USER}\" password=\"{PASSWORD}\" user_{USER}=\"{PASSWORD}\""),
        );
        let scram_login = login("scram.ScramLoginModule", "");
        let token_login = login("oauthbearer.OAuthBearerLoginModule", "unsecuredLoginStringClaim_sub=\"broker\"");
        format!(
            "process.roles={roles}\nnode.id={number}\ncontroller.quorum.voters=1@127.0.0.1:{voter}\n\
             listeners=PLAIN://127.0.0.1:{plain},TLS://127.0.0.1:{tls},SASL://127.0.0.1:{sasl}{own}\n\
             advertised.listeners=PLAIN://127.0.0.1:{plain},TLS://127.0.0.1:{tls},SASL://127.0.0.1:{sasl}\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAIN\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAIN:PLAINTEXT,TLS:SSL,SASL:SASL_PLAINTEXT\n\
             listener.name.tls.ssl.keystore.type=PEM\nlistener.name.tls.ssl.keystore.location={brokers}\n\
             listener.name.tls.ssl.truststore.type=PEM\nlistener.name.tls.ssl.truststore.location={ca}\n\
             listener.name.tls.ssl.client.auth=required\n\
             listener.name.sasl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER\n\
             listener.name.sasl.plain.sasl.jaas.config={plain_login}\n\
             listener.name.sasl.scram-sha-256.sasl.jaas.config={scram_login}\n\
             listener.name.sasl.scram-sha-512.sasl.jaas.config={scram_login}\n\
             listener.name.sasl.oauthbearer.sasl.jaas.config={token_login}\n\
             log.dirs={dir}/data\nauto.create.topics.enable=false\nnum.partitions=1\n\
             offsets.topic.num.partitions=1\noffsets.topic.replication.factor={replicas}\n\
             transaction.state.log.num.partitions=2\ntransaction.state.log.replication.factor={replicas}\n\
             transaction.state.log.min.isr=1\nshare.coordinator.state.topic.replication.factor={replicas}\n\
             share.coordinator.state.topic.min.isr=1\ngroup.initial.rebalance.delay.ms=0\n\
             broker.session.timeout.ms=4000\nbroker.heartbeat.interval.ms=500\nlog.cleaner.dedupe.buffer.size=4194304\n",
            number = node.number,
            brokers = certificates.brokers.display(),
            ca = certificates.ca.display(),
            dir = node.dir.display(),
        )
    }
}

impl Node {
    fn config(&self) -> PathBuf {
        self.dir.join("server.properties")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().expect("no panic while locked")
    }

    fn run(&self) {
        let log_config = self.dir.join("log4j2.xml");
        std::fs::write(&log_config, LOG4J2).expect("a file");
        let mut command = java(384, "kafka.Kafka");
        command.arg(self.config()).env("LOG4J_CONFIGURATION_FILE", log_config);
        *self.process() = Some(Process::spawn(&command, &self.log()).expect("java starts"));
    }

    /// How often it has started so far.
    fn starts(&self) -> usize {
        std::fs::read_to_string(self.log()).unwrap_or_default().matches("Kafka Server started").count()
    }

    fn wait_until_started(&self, starts_before: usize) {
        wait_until("Kafka starts", START_PATIENCE, &self.log(), || self.starts() > starts_before);
    }
}

const LOG4J2: &str = r#"<Configuration><Appenders><Console name="out"><PatternLayout pattern="%d %p %m (%c)%n"/></Console></Appenders>
<Loggers><Root level="INFO"><AppenderRef ref="out"/></Root></Loggers></Configuration>"#;

/// A class of Kafka's, with a heap of so many MiB and what makes a JVM start quickly.
pub fn java(heap_mib: usize, class: &str) -> Command {
    let mut command = Command::new("java");
    command
        .arg(format!("-Xmx{heap_mib}m"))
        .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp"])
        .arg(installed("kafka").join("*"))
        .arg(class);
    command
}

impl Certificates {
    fn in_dir(dir: &Path) -> Self {
        Self {
            ca: dir.join("ca.pem"),
            client: dir.join("client.pem"),
            client_key: dir.join("client.key"),
            brokers: dir.join("brokers.pem"),
        }
    }
}

fn make_certificates(dir: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    let files = Certificates::in_dir(dir);
    let write = |path: &Path, text: String| std::fs::write(path, text).expect("a file");
    let key = || KeyPair::generate().expect("a key");
    let params = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        CertificateParams::new(names).expect("names of certificates")
    };
    let mut authority = params(&[]);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "authority for tests");
    let ca = CertifiedIssuer::self_signed(authority, key()).expect("a CA");
    write(&files.ca, ca.pem());
    let (broker_key, client_key) = (key(), key());
    let broker = params(&["127.0.0.1", "localhost"]).signed_by(&broker_key, &ca).expect("a certificate");
    write(&files.brokers, broker_key.serialize_pem() + &broker.pem() + &ca.pem());
    let client = params(&["gateway"]).signed_by(&client_key, &ca).expect("a certificate");
    write(&files.client, client.pem());
    write(&files.client_key, client_key.serialize_pem());
}

/// A running client that reads.
pub struct Reader {
    conversation: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    child: Child,
}

impl Reader {
    /// What has come since the last call, one JSON object a line: `topic`, `partition`, `offset`, `key`, `headers`, and `value` in
    /// base64.
    ///
    /// # Panics
    /// When the client cannot read.
    pub fn read_new(&self) -> Vec<String> {
        let mut conversation = self.conversation.lock().expect("no panic while locked");
        let (question, answer) = &mut *conversation;
        writeln!(question, "more").and_then(|()| question.flush()).expect("the reader listens");
        let mut lines = Vec::new();
        for line in answer.lines() {
            let line = line.expect("UTF-8");
            if line == "{}" {
                return lines;
            }
            lines.push(line);
        }
        panic!("the reader ended; its complaint is above");
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Both fail only where it is gone already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
