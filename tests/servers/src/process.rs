//! Child processes that end with their owner, and with this process however it ends.

use std::fs::OpenOptions;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// A port of loopback that was free a moment ago.
///
/// # Panics
/// When the machine has no free port.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// Where `install` puts programs: `target/servers` of the workspace.
pub fn servers_dir() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("this crate lies in tests/servers");
    workspace.join("target/servers")
}

/// The program at `path` below [`servers_dir`].
///
/// # Panics
/// When it is not there, with the command that brings it.
pub fn installed(path: &str) -> PathBuf {
    let program = servers_dir().join(path);
    assert!(program.exists(), "{} is missing: run tests/servers/install", program.display());
    program
}

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within `patience`, with the last lines of `log`.
pub fn wait_until(what: &str, patience: Duration, log: &Path, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !condition() {
        if Instant::now() > deadline {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let tail: Vec<&str> = text.lines().rev().take(20).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            panic!("this did not happen within {patience:?}: {what}; {} ends with\n{}", log.display(), tail.join("\n"));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `command`, whose output is appended to the file `log`. It is killed with this process, even where this process is
    /// killed itself.
    ///
    /// # Errors
    /// When the program cannot be started, or `log` not be written.
    pub fn spawn(command: &Command, log: &Path) -> io::Result<Self> {
        // The kernel sends the signal when the thread that started the child ends, so a thread that never ends starts them all.
        let (answer, answered) = mpsc::channel();
        let mut tied = tied_to_parent(command);
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        tied.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log);
        starter().send((tied, answer)).expect("the starting thread never ends");
        let child = answered.recv().expect("the starting thread answers")?;
        Ok(Self { child })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, if it has ended by itself.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Ends it at once, as `kill -9` does, and waits until it is gone.
    pub fn kill(&mut self) {
        // Both fail only where it is gone already.
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Sends it a signal by name, such as `TERM` or `STOP`.
    ///
    /// # Panics
    /// When `kill` cannot be run.
    pub fn signal(&self, name: &str) {
        let id = self.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().expect("kill is there");
        assert!(status.success(), "kill -s {name} {id}: {status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

type Order = (Command, mpsc::Sender<io::Result<Child>>);

fn starter() -> mpsc::Sender<Order> {
    static STARTER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let start = || {
        let (orders, received) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in received {
                answer.send(command.spawn()).ok();
            }
        });
        orders
    };
    STARTER.get_or_init(start).clone()
}

/// `command` under `setpriv`, which asks the kernel to kill it with the thread that starts it, and then becomes it.
fn tied_to_parent(command: &Command) -> Command {
    let mut tied = Command::new("setpriv");
    tied.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => tied.env(name, value),
            None => tied.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        tied.current_dir(dir);
    }
    tied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_gone_with_its_value() {
        let mut command = Command::new("sleep");
        command.arg("1000");
        let dir = tempfile::tempdir().unwrap();
        let process = Process::spawn(&command, &dir.path().join("log")).unwrap();
        let proc = PathBuf::from(format!("/proc/{}", process.id()));
        assert!(proc.exists());
        drop(process);
        assert!(!proc.exists());
    }

    #[test]
    fn a_process_outlives_the_thread_that_asked_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let asked = thread::spawn(move || {
            let mut command = Command::new("sleep");
            command.arg("1000");
            Process::spawn(&command, &log).unwrap()
        });
        let mut process = asked.join().unwrap();
        assert!(process.ended().unwrap().is_none());
    }
}
