//! The two servers that are compared, each a process of its own: the gateway, and a bare hyper echo.

use std::convert::Infallible;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

/// Linux counts CPU time of a process in hundredths of a second (`proc_pid_stat(5)`, USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server; killed when dropped.
pub struct Server {
    pub addr: SocketAddr,
    process: Child,
}

impl Server {
    /// This program again, as the echo.
    pub fn echo() -> Result<Self> {
        let mut process =
            Command::new(std::env::current_exe()?).arg("echo").stdout(Stdio::piped()).spawn().context("echo")?;
        let stdout = process.stdout.take().context("the echo's standard output is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        Ok(Self { addr: line.trim().parse()?, process })
    }

    /// The gateway with its journal in `dir`; with one file sink where `sink` says so.
    pub fn gateway(dir: &Path, sink: bool) -> Result<Self> {
        let (addr, admin) = (free_addr()?, free_addr()?);
        let config = dir.join("gateway.toml");
        fs::write(&config, gateway_config(dir, addr, admin, sink))?;
        let process = Command::new(env!("CARGO_BIN_EXE_trunkline"))
            .args(["run", "-c"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("gateway.log"))?)
            .spawn()
            .context("gateway")?;
        let mut server = Self { addr, process };
        let deadline = Instant::now() + START_TIMEOUT;
        while !is_ready(admin) {
            let ended = server.process.try_wait()?.is_some();
            if ended || Instant::now() > deadline {
                bail!("the gateway did not get ready: {}", fs::read_to_string(dir.join("gateway.log"))?);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// User and system time so far.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // The second field, the name, is in parentheses and may hold spaces: utime and stime are the 12th and 13th after it.
        let (_, fields) = stat.rsplit_once(')').context("no name in /proc/…/stat")?;
        let ticks: Vec<f64> = fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
        Ok(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
    }

    /// Resident memory, in MiB.
    pub fn rss_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        if self.process.kill().is_ok() {
            self.process.wait().ok();
        }
    }
}

fn gateway_config(dir: &Path, addr: SocketAddr, admin: SocketAddr, sink: bool) -> String {
    let (journal, events) = (dir.join("journal"), dir.join("events.ndjson"));
    let mut config = format!(
        "[ingress]\nlisten = \"{addr}\"\n\n[sources.main]\npath = \"/push\"\n\n[journal]\ndisk = {{ dir = {journal:?} }}\n\n\
         [admin]\nlisten = \"{admin}\"\n\n[log]\nfilter = \"warn\"\n"
    );
    if sink {
        config += &format!("\n[sinks.events]\ntype = \"file\"\n[sinks.events.settings]\npath = {events:?}\n");
    }
    config
}

/// Free a moment ago; nobody else takes it in a run like this.
fn free_addr() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn is_ready(admin: SocketAddr) -> bool {
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(admin)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply)?;
        Ok(reply)
    };
    ask().is_ok_and(|reply| reply.starts_with(b"HTTP/1.1 200"))
}

/// Reads each body whole and gives the reply of an acknowledgement. Prints its address first. Runs until it is killed.
pub async fn serve_echo() -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(acknowledge)));
    }
}

async fn acknowledge(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    // A body that breaks off takes its connection with it.
    let _body = request.into_body().collect().await;
    let mut response = Response::new(Full::new(Bytes::from_static(br#"{"ErrCode":0,"ErrMsg":"ok"}"#)));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    Ok(response)
}
