//! An S3 server: versitygw, which checks signatures, checksums and the sizes of parts, over files in a temporary folder.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{Process, free_port, installed, wait_until};

/// The only credentials it takes.
pub const ACCESS_KEY_ID: &str = "test-access-key";
pub const SECRET_ACCESS_KEY: &str = "test-secret-key-0123456789";
pub const REGION: &str = "us-east-1";

/// With virtual-host style, buckets are `<bucket>.<this>`; a test resolves the name itself.
pub const DOMAIN: &str = "s3.test";

const PATIENCE: Duration = Duration::from_secs(30);

/// A running server. Its objects are files, so that the keys `a` and `a/b` exclude each other.
#[derive(Debug)]
pub struct S3 {
    process: Process,
    port: u16,
    virtual_hosts: bool,
    dir: TempDir,
}

impl S3 {
    /// Starts it with these buckets, addressed by path.
    ///
    /// # Panics
    /// When it is not installed, or does not start.
    pub fn start(buckets: &[&str]) -> Self {
        Self::start_as(buckets, false)
    }

    /// As [`S3::start`], with buckets as part of the host name.
    ///
    /// # Panics
    /// When it is not installed, or does not start.
    pub fn start_with_virtual_hosts(buckets: &[&str]) -> Self {
        Self::start_as(buckets, true)
    }

    fn start_as(buckets: &[&str], virtual_hosts: bool) -> Self {
        let dir = tempfile::tempdir().expect("a folder for the server");
        for bucket in buckets {
            std::fs::create_dir_all(dir.path().join("data").join(bucket)).expect("a folder for the bucket");
        }
        std::fs::create_dir_all(dir.path().join("data")).expect("a folder for the buckets");
        let port = free_port();
        Self { process: run(&dir, port, virtual_hosts), port, virtual_hosts, dir }
    }

    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The endpoint as settings name it, for path style.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// The folder that holds the objects of `bucket` as files.
    pub fn bucket_dir(&self, bucket: &str) -> PathBuf {
        self.dir.path().join("data").join(bucket)
    }

    /// Ends it as `kill -9` does; its objects stay.
    pub fn stop(&mut self) {
        self.process.kill();
    }

    /// Starts it again, on the same port and objects.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&mut self) {
        self.process = run(&self.dir, self.port, self.virtual_hosts);
    }
}

fn run(dir: &TempDir, port: u16, virtual_hosts: bool) -> Process {
    let address = format!("127.0.0.1:{port}");
    let log = dir.path().join("log");
    let mut command = Command::new(installed("bin/versitygw"));
    command.env("ROOT_ACCESS_KEY", ACCESS_KEY_ID).env("ROOT_SECRET_KEY", SECRET_ACCESS_KEY);
    command.args(["--port", &address, "--region", REGION, "--keep-alive"]);
    if virtual_hosts {
        command.args(["--virtual-domain", DOMAIN]);
    }
    command.arg("posix").arg(dir.path().join("data"));
    let mut process = Process::spawn(&command, &log).expect("the S3 server starts");
    wait_until("the S3 server answers", PATIENCE, &log, || {
        assert!(process.ended().expect("it can be asked").is_none(), "the S3 server ended; see {}", log.display());
        TcpStream::connect(&address).is_ok()
    });
    process
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn it_refuses_who_does_not_sign() {
        let server = S3::start(&["archive"]);
        let mut stream = TcpStream::connect(server.addr()).unwrap();
        stream.write_all(b"GET /archive HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        assert!(reply.starts_with("HTTP/1.1 403"), "{reply}");
    }
}
