//! The marks in Redis: each call is one script, is given up after [`TIMEOUT`], and is not even begun while Redis is away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::IntGauge;
use redis::{Cmd, Value, cmd};

use super::gate::Gate;
use super::keys::{self, Keys, Seen};
use crate::journal::Push;
use crate::journal::codec::key_of;
use crate::journal::redis::connect::{Link, Node, Servers};
use crate::names::Offset;

/// What one command may take. Longer, and the push is better accepted with what this replica knows.
pub(super) const TIMEOUT: Duration = Duration::from_millis(200);

/// A claim that nobody ended is gone after that: the replica that made it is not accepting that push any more.
pub(super) const CLAIM_TTL: Duration = Duration::from_secs(60);

/// Between two looks whether Redis takes commands.
const PROBE_EVERY: Duration = Duration::from_millis(500);

/// KEYS claim, seen before, seen, seen after; ARGV id, replica, ms received, window in ms, claim's ttl in ms, whether to take over.
/// Answers what was confirmed; 1 where the id is claimed now; 0 where another replica has claimed it.
const CLAIM: &str = "
for i = 2, 4 do
  local seen = redis.call('HGET', KEYS[i], ARGV[1])
  if seen and math.abs(struct.unpack('>i8', seen, 5) - tonumber(ARGV[3])) < tonumber(ARGV[4]) then
    return seen
  end
end
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[2] and ARGV[6] ~= '1' then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[5])
return 1
";

/// KEYS claim, seen; ARGV id, replica, what is confirmed, seen's ttl in ms. Who confirmed first stays, and a claim of another replica.
const CONFIRM: &str = "
redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[3])
if redis.call('PTTL', KEYS[2]) < 0 then
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
if redis.call('GET', KEYS[1]) == ARGV[2] then
  redis.call('DEL', KEYS[1])
end
return 1
";

/// KEYS claim; ARGV replica.
const GIVE_UP: &str = "
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
return 1
";

/// Where the marks are and how long they last.
pub struct Options {
    pub servers: Servers,
    /// What every key begins with.
    pub prefix: String,
    /// How long a push id is remembered.
    pub window: Duration,
}

/// A push id on its way.
pub(super) struct Mark {
    keys: Keys,
    id: [u8; 16],
    body_crc: u32,
    received_ms: i64,
}

/// What is known of an id before the push is appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// It is this replica's to accept.
    Ours,
    /// Another replica is accepting it.
    Held,
    /// A replica has synced it.
    Confirmed { offset: Offset, same_body: bool },
    /// Redis does not answer.
    Unknown,
}

/// The marks; clones share everything.
#[derive(Clone)]
pub(super) struct Marks(Arc<Inner>);

struct Inner {
    options: Options,
    /// Names this process, and no other one before or beside it.
    replica: String,
    /// One to each master that was needed so far.
    links: Mutex<HashMap<Node, Link>>,
    gate: Gate,
    claim: Script,
    confirm: Script,
    give_up: Script,
}

struct Script {
    text: &'static str,
    digest: String,
}

impl Script {
    fn new(text: &'static str) -> Self {
        Self { text, digest: redis::Script::new(text).get_hash().to_owned() }
    }
}

/// A call of a script on the keys of one slot.
struct Call<'a> {
    script: &'a Script,
    slot: u32,
    keys: Vec<&'a str>,
    args: Vec<Vec<u8>>,
}

impl Marks {
    pub(super) async fn connect(options: Options, degraded: IntGauge) -> Self {
        let marks = Self(Arc::new(Inner {
            options,
            replica: format!("{:016x}", fastrand::u64(..)),
            links: Mutex::default(),
            gate: Gate::new(degraded),
            claim: Script::new(CLAIM),
            confirm: Script::new(CONFIRM),
            give_up: Script::new(GIVE_UP),
        }));
        marks.probe().await;
        marks
    }

    pub(super) fn is_degraded(&self) -> bool {
        self.0.gate.is_shut()
    }

    /// Looks for ever whether Redis takes commands, and connects anew where it did not.
    pub(super) async fn watch(self) {
        loop {
            tokio::time::sleep(PROBE_EVERY).await;
            self.probe().await;
        }
    }

    pub(super) fn of(&self, push: &Push) -> Mark {
        let options = &self.0.options;
        let (id, received_ms) = (key_of(&push.source, &push.id), push.received_at.as_millisecond());
        let keys = Keys::new(&options.prefix, &id, received_ms, millis(options.window));
        Mark { keys, id, body_crc: crc32c::crc32c(&push.body), received_ms }
    }

    pub(super) async fn claim(&self, mark: &Mark, take_over: bool) -> Claim {
        let [before, seen, after] = &mark.keys.seen;
        let call = Call {
            script: &self.0.claim,
            slot: mark.keys.slot,
            keys: vec![&mark.keys.claim, before, seen, after],
            args: vec![
                mark.id.to_vec(),
                self.0.replica.clone().into_bytes(),
                decimal(mark.received_ms),
                decimal(millis(self.0.options.window)),
                decimal(millis(CLAIM_TTL)),
                decimal(i64::from(take_over)),
            ],
        };
        match self.call(&call).await {
            Some(Value::Int(1)) => Claim::Ours,
            Some(Value::Int(_)) => Claim::Held,
            Some(Value::BulkString(seen)) => Seen::decode(&seen).map_or(Claim::Unknown, |seen| Claim::Confirmed {
                offset: Offset(seen.offset),
                same_body: seen.body_crc == mark.body_crc,
            }),
            _ => Claim::Unknown,
        }
    }

    /// The push is synced here, at `offset`. Where Redis does not answer the claim runs out by itself.
    pub(super) async fn confirm(&self, mark: &Mark, offset: Offset) {
        let seen = Seen { body_crc: mark.body_crc, received_ms: mark.received_ms, offset: offset.0 };
        self.call(&Call {
            script: &self.0.confirm,
            slot: mark.keys.slot,
            keys: vec![&mark.keys.claim, &mark.keys.seen[1]],
            args: vec![
                mark.id.to_vec(),
                self.0.replica.clone().into_bytes(),
                seen.encode().to_vec(),
                decimal(millis(self.0.options.window).saturating_mul(2)),
            ],
        })
        .await;
    }

    /// The push is not accepted here.
    pub(super) async fn give_up(&self, mark: &Mark) {
        self.call(&Call {
            script: &self.0.give_up,
            slot: mark.keys.slot,
            keys: vec![&mark.keys.claim],
            args: vec![self.0.replica.clone().into_bytes()],
        })
        .await;
    }

    /// The script's answer; nothing while Redis is away.
    async fn call(&self, call: &Call<'_>) -> Option<Value> {
        if self.0.gate.is_shut() {
            return None;
        }
        let called = async {
            let (node, mut link) = self.link(call.slot).await?;
            let said = link.ask(&call.by_digest()).await;
            let said = match said {
                Err(error) if error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::NoScript) => {
                    link.ask(&call.by_text()).await
                }
                said => said,
            };
            said.map_err(|error| self.lost(&node, error.to_string()))
        };
        match tokio::time::timeout(TIMEOUT, called).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(cause)) => {
                self.0.gate.shut(call.slot, &cause);
                None
            }
            Err(_) => {
                self.0.gate.shut(call.slot, &"it took too long");
                None
            }
        }
    }

    /// A connection to the master of `slot`, with its address.
    async fn link(&self, slot: u32) -> Result<(Node, Link), String> {
        let servers = &self.0.options.servers;
        let node = servers.home(&keys::tag(slot)).await.map_err(|error| error.to_string())?;
        let known = self.links().get(&node).cloned();
        if let Some(link) = known {
            return Ok((node, link));
        }
        let link = servers.connect(&node, Duration::ZERO).await.map_err(|error| error.to_string())?;
        self.links().insert(node.clone(), link.clone());
        Ok((node, link))
    }

    /// A connection failed: the next one is new, and goes to whoever is the master then.
    fn lost(&self, node: &Node, cause: String) -> String {
        self.links().remove(node);
        self.0.options.servers.forget();
        cause
    }

    fn links(&self) -> std::sync::MutexGuard<'_, HashMap<Node, Link>> {
        self.0.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes where a command failed last, over a new connection if there was a failure.
    async fn probe(&self) {
        let slot = self.0.gate.slot();
        if self.0.gate.is_shut() {
            self.links().clear();
            self.0.options.servers.forget();
        }
        let (key, ttl) = (keys::probe(&self.0.options.prefix, slot), millis(CLAIM_TTL));
        let probed = async {
            let (node, mut link) = self.link(slot).await?;
            let mut set = cmd("SET");
            set.arg(key).arg(&self.0.replica).arg("PX").arg(ttl);
            match tokio::time::timeout(TIMEOUT, link.ask(&set)).await {
                Ok(said) => said.map_err(|error| self.lost(&node, error.to_string())),
                Err(_) => Err(self.lost(&node, "it took too long".to_owned())),
            }
        };
        match probed.await {
            Ok(_) => self.0.gate.open(),
            Err(cause) => self.0.gate.shut(slot, &cause),
        }
    }
}

impl Call<'_> {
    fn by_digest(&self) -> Cmd {
        self.command("EVALSHA", &self.script.digest)
    }

    fn by_text(&self) -> Cmd {
        self.command("EVAL", self.script.text)
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = cmd(name);
        command.arg(script).arg(self.keys.len()).arg(&self.keys[..]);
        self.args.iter().for_each(|arg| {
            command.arg(&arg[..]);
        });
        command
    }
}

fn decimal(number: i64) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
