//! A fake of Tencent COS (`cos.py`): one bucket, whose requests are checked by the vendor's own SDK. Nothing real can be had.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{Process, free_port, installed, wait_until};

/// The only bucket, with its app id.
pub const BUCKET: &str = "archive-1250000000";
pub const SECRET_ID: &str = "test-secret-id";
pub const SECRET_KEY: &str = "test-secret-key-0123456789";

/// The bucket's host is `<BUCKET>.<this>`; a test resolves the name itself.
pub const DOMAIN: &str = "cos.test";

const PATIENCE: Duration = Duration::from_secs(30);

/// A running fake. Its objects are gone with it.
#[derive(Debug)]
pub struct Cos {
    port: u16,
    _process: Process,
    _dir: TempDir,
}

impl Cos {
    /// # Panics
    /// When Python or the SDK is not installed, or it does not start.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder for the log");
        let log = dir.path().join("log");
        let port = free_port();
        let mut command = Command::new(installed("python/bin/python"));
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("cos.py"));
        command.args([&port.to_string(), BUCKET, SECRET_ID, SECRET_KEY]);
        let mut process = Process::spawn(&command, &log).expect("Python starts");
        wait_until("the fake of COS answers", PATIENCE, &log, || {
            assert!(process.ended().expect("it can be asked").is_none(), "it ended; see {}", log.display());
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self { port, _process: process, _dir: dir }
    }

    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The endpoint as settings name it.
    pub fn endpoint(&self) -> String {
        format!("http://{DOMAIN}:{}", self.port)
    }
}
