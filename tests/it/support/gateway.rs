//! Starts the real program in a folder of its own and watches what it logs.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;

use super::eventually;

/// The program, to be given arguments; another build of it where `TRUNKLINE_TEST_PROGRAM` names one.
pub fn trunkline() -> Command {
    let program = std::env::var_os("TRUNKLINE_TEST_PROGRAM");
    let mut command = Command::new(program.unwrap_or_else(|| env!("CARGO_BIN_EXE_trunkline").into()));
    command.env_remove("TRUNKLINE_ADMIN_TOKEN");
    command
}

/// A running gateway. Dropping it kills it, and fails the test when it logged an ERROR that was not expected.
pub struct Gateway {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    pub ingress: SocketAddr,
    pub admin: SocketAddr,
    expect_errors: bool,
}

pub struct GatewayBuilder {
    dir: PathBuf,
    config: String,
    env: Vec<(String, String)>,
    expect_errors: bool,
    sinks: String,
    admin_listen: &'static str,
    announce: &'static str,
    program: Option<PathBuf>,
}

impl GatewayBuilder {
    /// A gateway whose files are in `dir`, with a source `main` at `/push` and a file sink `events`.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            config: String::new(),
            env: Vec::new(),
            expect_errors: false,
            sinks: file_sink("events", &dir.join("events.ndjson")),
            admin_listen: "127.0.0.1:0",
            announce: "0s",
            program: None,
        }
    }

    /// Further lines of the config; they stand before everything else.
    pub fn config(mut self, toml: &str) -> Self {
        self.config.push_str(toml);
        self.config.push('\n');
        self
    }

    /// These sinks in place of the usual one.
    pub fn sinks(mut self, toml: &str) -> Self {
        self.sinks = toml.to_owned();
        self
    }

    /// In place of loopback.
    pub fn admin_listen(mut self, address: &'static str) -> Self {
        self.admin_listen = address;
        self
    }

    /// How long it serves on after it turned unready, in place of not at all.
    pub fn announce(mut self, period: &'static str) -> Self {
        self.announce = period;
        self
    }

    /// Another build of the program.
    pub fn program(mut self, program: Option<&Path>) -> Self {
        self.program = program.map(Path::to_owned);
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// ERROR lines are part of the test.
    pub fn expect_errors(mut self) -> Self {
        self.expect_errors = true;
        self
    }

    /// The config as text.
    pub fn text(&self) -> String {
        format!("{}\n[sources.main]\npath = \"/push\"\n{}", self.config, self.sinks)
    }

    /// Writes the config, which a gateway that runs in the folder may read again.
    pub fn write(&self) {
        std::fs::write(self.dir.join("gateway.toml"), self.text()).expect("the test's folder can be written");
    }

    fn command(&self) -> Command {
        let config = self.dir.join("gateway.toml");
        self.write();
        let mut command = self.program.as_ref().map_or_else(trunkline, Command::new);
        command
            .arg("--config")
            .arg(&config)
            .args(["--set", "ingress.listen=127.0.0.1:0", "--set", &format!("admin.listen={}", self.admin_listen)])
            .args(["--set", &format!("drain.announce={}", self.announce)])
            .arg("--set")
            .arg(format!("journal.disk.dir={}", self.dir.join("journal").display()))
            .envs(self.env.iter().cloned())
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts it and waits until it listens.
    pub async fn start(self) -> Gateway {
        match self.try_start().await {
            Ok(gateway) => gateway,
            Err((status, lines)) => panic!("the gateway ended with {status}: {lines:#?}"),
        }
    }

    /// Starts it and waits until it listens, or has ended: then its status and what it printed.
    pub async fn try_start(self) -> Result<Gateway, (ExitStatus, Vec<String>)> {
        let mut child = self.command().spawn().expect("the program starts");
        let lines = Arc::new(Mutex::new(Vec::new()));
        collect_lines(child.stderr.take().expect("piped"), Arc::clone(&lines));
        collect_lines(child.stdout.take().expect("piped"), Arc::clone(&lines));
        let seen = || lines.lock().expect("no panic while locked").clone();
        let (ingress, admin) = eventually("the gateway says where it listens, or ends", async || {
            if let Some(status) = child.try_wait().expect("the child can be waited for") {
                return Some(Err((status, seen())));
            }
            seen().iter().find_map(|line| addresses_in(line)).map(Ok)
        })
        .await?;
        Ok(Gateway { child, lines, ingress, admin, expect_errors: self.expect_errors })
    }

    /// Runs it to its end, for starts that are meant to fail.
    pub fn output(self) -> std::process::Output {
        self.command().output().expect("the program starts")
    }
}

fn addresses_in(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["message"] == "gateway started").then_some(())?;
    Some((line["ingress"].as_str()?.parse().ok()?, line["admin"].as_str()?.parse().ok()?))
}

fn collect_lines(pipe: impl std::io::Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            lines.lock().expect("no panic while locked").push(line);
        }
    });
}

/// The table of a file sink with quick batches.
pub fn file_sink(name: &str, path: &Path) -> String {
    format!(
        "[sinks.{name}]\ntype = \"file\"\nstart = \"oldest\"\nbatch.linger = \"5ms\"\nretry = {{ delay_min = \"50ms\", delay_max = \"1s\" }}\nsettings.path = {:?}\n",
        path.display().to_string()
    )
}

impl Gateway {
    /// The push address of the source `main`.
    pub fn url(&self) -> String {
        format!("http://{}/push", self.ingress)
    }

    /// Everything that it printed so far, stdout and stderr.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no panic while locked").clone()
    }

    pub async fn status(&self) -> Value {
        self.get("/api/v1/status").await.1
    }

    /// Status code and body of a path of the admin listener; the body as a string where it is not JSON.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        let url = format!("http://{}{path}", self.admin);
        let response = reqwest::get(url).await.expect("the admin listener answers");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Status code, header fields and body of a call to the admin listener.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: &str,
    ) -> (u16, reqwest::header::HeaderMap, Value) {
        let method = method.parse().expect("a method");
        let mut request = reqwest::Client::new().request(method, format!("http://{}{path}", self.admin));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.body(body.to_owned()).send().await.expect("the admin listener answers");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("a body");
        (status, headers, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// `POST /api/v1/reload`.
    pub async fn reload(&self) -> (u16, Value) {
        let (status, _, answer) = self.call("POST", "/api/v1/reload", None, "").await;
        (status, answer)
    }

    /// The most memory that it had so far, in KiB.
    pub fn memory_max_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says it");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        self.signal(rustix::process::Signal::HUP);
    }

    /// SIGSTOP: it stands still until [`Self::resume`], its connections stay open.
    pub fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
        self.check_log();
    }

    /// SIGTERM, unless it has ended.
    pub fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ended = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the gateway ends", async || child.try_wait().expect("the child can be waited for")).await
    }

    /// SIGTERM, and a clean end.
    pub async fn stop(mut self) {
        self.terminate();
        let status = self.ended().await;
        assert!(status.success(), "a drained gateway exits with 0, not {status}: {:#?}", self.lines());
        self.check_log();
    }

    fn check_log(&self) {
        if self.expect_errors || std::thread::panicking() {
            return;
        }
        let lines = self.lines();
        let errors: Vec<_> = lines.iter().filter(|line| line.contains("\"level\":\"ERROR\"")).collect();
        assert!(errors.is_empty(), "the gateway logged errors: {errors:#?}");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().expect("it can be killed");
            self.child.wait().expect("it ends");
            self.check_log();
        }
        if std::thread::panicking() {
            eprintln!("the gateway's last lines: {:#?}", self.lines().iter().rev().take(20).collect::<Vec<_>>());
        }
    }
}

/// A folder for one test.
pub fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder for the test")
}
