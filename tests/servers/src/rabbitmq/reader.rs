//! Reads queues with `pika`, the Python client that many consumers use.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::process::installed;

/// A Python process that empties queues when asked.
#[derive(Debug)]
pub struct Reader {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Reader {
    pub(super) fn start(url: &str, log: &Path) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rabbitmq/reader.py");
        let log = OpenOptions::new().create(true).append(true).open(log).expect("the broker's folder can be written");
        let mut child = Command::new(installed("python/bin/python"))
            .arg(script)
            .arg(url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("python starts");
        let orders = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, orders, answers }
    }

    /// Takes all that `queue` holds, in its order; nothing where there is no such queue. Each message is `{id, exchange, routing_key, content_type, delivery_mode, type,
    /// headers, body}`, the body as text.
    ///
    /// # Panics
    /// When the broker cannot be read from.
    pub fn drain(&mut self, queue: &str) -> Vec<Value> {
        writeln!(self.orders, "{queue}").expect("the reader runs");
        let mut messages = Vec::new();
        loop {
            let mut line = String::new();
            self.answers.read_line(&mut line).expect("the reader runs");
            match serde_json::from_str(&line) {
                Ok(Value::Null) => return messages,
                Ok(message) => messages.push(message),
                Err(_) => panic!("the reader ended: {line:?}"),
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
