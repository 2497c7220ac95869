//! Accepting: a lane takes a batch of what waits, and brings it to Redis in one script call on a connection of its own, with the WAIT
//! that makes it durable behind it.
//!
//! A batch whose fate is unknown is sent again: the script says of what was written that it is a duplicate, and a duplicate with our
//! own time, behind what was known before, is ours. What stays unknown is answered so. A lane that failed says so in the journal's
//! health and, while nothing comes, tries by itself whether Redis is back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use redis::{Pipeline, Value, cmd};

use super::codec::{entry_meta, entry_size};
use super::connect::Link;
use super::faults::{Fault, array_of, check, number_of, numbers, odd};
use super::keys::Keys;
use super::options::Durability;
use super::queue::{Answer, Queue, Request};
use super::scripts::{Arg, Source};
use super::shared::{Group, Shared, first};
use crate::crash::crash_point;
use crate::journal::{AcceptError, Accepted};
use crate::names::Offset;

/// For how long a batch is tried again, so that a short absence of Redis costs no push one of its sender's attempts.
const PATIENCE: Duration = Duration::from_secs(2);
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Between two attempts of a lane that failed and has nothing to write.
const PROBE_INTERVAL: Duration = Duration::from_millis(300);
/// A server whose life is another one again after this many looks is given up for now.
const ADOPTIONS_MAX: usize = 3;
/// No bound; a number that Lua holds exactly.
const ROOM_MAX: u64 = 1 << 53;

pub(super) struct Lane {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    /// The shards whose pushes come here; they live on one server.
    shards: Vec<u16>,
    name: String,
    link: Option<Link>,
    is_down: bool,
}

/// What the script said of a batch, and how durable it is.
struct Written {
    outcomes: Vec<Outcome>,
    confirmed: Result<(), String>,
}

#[derive(Clone, Copy)]
struct Outcome {
    kind: u64,
    offset: u64,
    at: u64,
}

impl Lane {
    pub(super) fn new(shared: Arc<Shared>, group: usize, number: usize) -> Self {
        let Group { queue, shards } = &shared.groups[group];
        let (queue, shards) = (Arc::clone(queue), shards.clone());
        Self { name: format!("lane {group}.{number}"), queue, shards, shared, link: None, is_down: false }
    }

    /// Until the queue is closed and empty.
    pub(super) async fn run(mut self) {
        loop {
            let taken = match self.is_down {
                false => self.queue.take().await,
                true => match tokio::time::timeout(PROBE_INTERVAL, self.queue.take()).await {
                    Ok(taken) => taken,
                    Err(_) => {
                        self.probe().await;
                        continue;
                    }
                },
            };
            let Some(batch) = taken else { break };
            self.shared.in_flight.fetch_add(1, Ordering::AcqRel);
            self.shared.flight_began.notify_waiters();
            self.write(batch).await;
            self.shared.in_flight.fetch_sub(1, Ordering::AcqRel);
        }
        self.shared.lanes_left.send_modify(|left| *left -= 1);
    }

    async fn write(&mut self, batch: Vec<Request>) {
        let patience = if self.is_down { Duration::ZERO } else { PATIENCE };
        let deadline = Instant::now() + patience;
        let mut may_be_written = false;
        let seen = self.shared.shards.iter().map(|shard| shard.seen.load(Ordering::Acquire)).collect();
        loop {
            let begun = Instant::now();
            let attempt = self.attempt(&batch).await;
            self.shared.metrics.sync_seconds.observe(begun.elapsed().as_secs_f64());
            match attempt {
                Ok(written) => return self.answer(batch, &written, may_be_written.then_some(seen)),
                Err(fault) => {
                    may_be_written |= matches!(fault, Fault::Unknown { .. });
                    self.link = None;
                    self.shared.servers.forget();
                    if Instant::now() >= deadline || self.shared.is_closed() {
                        self.shared.count("write");
                        let cause = fault.cause();
                        self.fail(cause.clone());
                        for request in batch {
                            let cause = cause.clone();
                            let error = match may_be_written {
                                true => AcceptError::Unknown { cause },
                                false => AcceptError::Unavailable { cause },
                            };
                            drop(request.answer.send(Err(error)));
                        }
                        return;
                    }
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    /// `seen`: the greatest offsets known before a first attempt whose fate is unknown. What stands behind them may be its work.
    fn answer(&mut self, batch: Vec<Request>, written: &Written, seen: Option<Vec<u64>>) {
        match &written.confirmed {
            Ok(()) => {
                self.is_down = false;
                self.shared.is_well(&self.name);
            }
            Err(cause) => {
                self.shared.count("sync");
                self.fail(cause.clone());
            }
        }
        let mut claimed = BTreeSet::new();
        for (request, outcome) in batch.into_iter().zip(&written.outcomes) {
            // Of two with one id in the batch the first is new.
            let is_first = outcome.kind != FULL && claimed.insert((request.shard, outcome.offset));
            let is_own = is_first
                && outcome.kind == DUPLICATE
                && outcome.at == received_ms(&request)
                && seen.as_ref().is_some_and(|seen| outcome.offset > seen[usize::from(request.shard)]);
            let answer = self.answer_of(&request, *outcome, &written.confirmed, is_own);
            // Nobody waits any more where the caller went away.
            drop(request.answer.send(answer));
        }
    }

    fn answer_of(&self, request: &Request, outcome: Outcome, confirmed: &Result<(), String>, is_own: bool) -> Answer {
        let offset = Offset(outcome.offset);
        if outcome.kind == FULL {
            let used = self.shared.bytes();
            return Err(AcceptError::Full { used, limit: self.shared.options.size_max });
        }
        if let Err(cause) = confirmed {
            return Err(AcceptError::Unknown { cause: cause.clone() });
        }
        if outcome.kind == NEW || is_own {
            self.shared.advance(request.shard, outcome.offset);
            return Ok(Accepted::New { offset });
        }
        Ok(Accepted::Duplicate { offset, same_body: outcome.kind == DUPLICATE })
    }

    fn fail(&mut self, cause: String) {
        self.is_down = true;
        self.shared.has_trouble(&self.name, cause);
    }

    /// One go at writing the batch.
    async fn attempt(&mut self, batch: &[Request]) -> Result<Written, Fault> {
        crash_point("journal.before_write");
        let shared = Arc::clone(&self.shared);
        let shards = self.shards.clone();
        let link = self.link().await?;
        let mut is_memory_out = false;
        for _ in 0..ADOPTIONS_MAX {
            let call = Call::new(&shared, &link.identity.0, batch, is_memory_out);
            let script = if is_memory_out { &shared.scripts.accept_without_memory } else { &shared.scripts.accept };
            let (said, confirmed) = match call.send(&shared, link, script).await {
                Err(Fault::NoMemory) if !is_memory_out => {
                    shared.count("full");
                    is_memory_out = true;
                    continue;
                }
                other => other?,
            };
            crash_point("journal.after_sync");
            if let Some(outcomes) = call.outcomes(said, batch.len())? {
                return Ok(Written { outcomes, confirmed });
            }
            link.identify().await?;
            shared.adopt(link, &shards).await?;
        }
        Err(Fault::Refused { cause: "Redis goes from one life to the next".to_owned(), moved: true })
    }

    /// The lane's connection, to a server whose life the shards know.
    async fn link(&mut self) -> Result<&mut Link, Fault> {
        if self.link.is_none() {
            let shared = &self.shared;
            let node = shared.servers.home(&Keys::tag(self.shards[0])).await?;
            let mut link = shared.servers.connect(&node, shared.options.replica_timeout).await?;
            shared.adopt(&mut link, &self.shards).await?;
            self.link = Some(link);
        }
        Ok(self.link.as_mut().expect("just made"))
    }

    /// Whether a write would go through now.
    async fn probe(&mut self) {
        let probed = self.try_probe().await;
        match probed {
            Ok(()) => {
                self.is_down = false;
                self.shared.is_well(&self.name);
            }
            Err(cause) => {
                self.link = None;
                self.shared.servers.forget();
                self.shared.has_trouble(&self.name, cause);
            }
        }
    }

    async fn try_probe(&mut self) -> Result<(), String> {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("HINCRBY").arg(self.shared.keys.of(self.shards[0], "meta")).arg("probes").arg(1);
        add_wait(&mut pipeline, &self.shared);
        let shared = Arc::clone(&self.shared);
        let link = self.link().await.map_err(|fault| fault.cause())?;
        let values = link.send(&pipeline).await.map_err(|error| Fault::from(error).cause())?;
        let confirmed = confirmed(&shared, values.get(1));
        first(values).map_err(|fault| fault.cause())?;
        confirmed
    }
}

const NEW: u64 = 0;
const DUPLICATE: u64 = 1;
const FULL: u64 = 3;

fn received_ms(request: &Request) -> u64 {
    u64::try_from(request.push.received_at.as_millisecond()).unwrap_or(0)
}

/// A batch as the script takes it: pushes by shard.
struct Call {
    keys: Vec<String>,
    args: Vec<Arg>,
    /// Per shard the places of its pushes in the batch.
    places: Vec<Vec<usize>>,
}

impl Call {
    fn new(shared: &Shared, life: &str, batch: &[Request], is_memory_out: bool) -> Self {
        let mut by_shard: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for (place, request) in batch.iter().enumerate() {
            by_shard.entry(request.shard).or_default().push(place);
        }
        let window = u64::try_from(shared.options.dedup_window.as_millis()).unwrap_or(u64::MAX).max(1);
        // A bucket is needed for the window that it covers and the one after; the rest is for clocks that differ.
        let mut args: Vec<Arg> = vec![window.into(), (window * 9 / 4).into(), (by_shard.len() as u64).into()];
        let mut keys = Vec::new();
        for (shard, places) in &by_shard {
            let room = if is_memory_out { 0 } else { shared.room(*shard) };
            keys.extend([shared.keys.of(*shard, "log"), shared.keys.of(*shard, "meta")]);
            args.extend([life.into(), (places.len() as u64).into()]);
            for request in places.iter().map(|place| &batch[*place]) {
                keys.extend(shared.keys.marks(*shard, &request.key, received_ms(request), window));
                let meta = entry_meta(&request.push, request.body_crc);
                let size = entry_size(&meta, &request.push.body) as u64;
                let room = if request.is_derived { ROOM_MAX } else { room };
                let body = if room == 0 { bytes::Bytes::new() } else { request.push.body.clone() };
                args.extend([
                    request.key.to_vec().into(),
                    received_ms(request).into(),
                    u64::from(request.body_crc).into(),
                    size.into(),
                    room.into(),
                    meta.into(),
                    Arg::Bytes(body),
                ]);
            }
        }
        Self { keys, args, places: by_shard.into_values().collect() }
    }

    async fn send(
        &self,
        shared: &Shared,
        link: &mut Link,
        script: &Source,
    ) -> Result<(Value, Result<(), String>), Fault> {
        for is_taught in [false, true] {
            let mut pipeline = Pipeline::with_capacity(2);
            pipeline.add_command(match is_taught {
                false => script.call(&self.keys, &self.args),
                true => script.teach(&self.keys, &self.args),
            });
            add_wait(&mut pipeline, shared);
            let values = link.send(&pipeline).await?;
            let confirmed = confirmed(shared, values.get(1));
            match first(values) {
                Err(Fault::NoScript) => {}
                said => return Ok((said?, confirmed)),
            }
        }
        Err(Fault::NoScript)
    }

    /// The outcomes in the order of the batch; `None` where the life is another one, and nothing, or not all, was done.
    fn outcomes(&self, said: Value, count: usize) -> Result<Option<Vec<Outcome>>, Fault> {
        let mut outcomes = vec![Outcome { kind: NEW, offset: 0, at: 0 }; count];
        let groups = array_of(said)?;
        for (group, places) in groups.iter().zip(&self.places) {
            let numbers = numbers(group)?;
            match numbers.split_first() {
                Some((0, said)) if said.len() == places.len() * 3 => {
                    for (place, said) in places.iter().zip(said.chunks_exact(3)) {
                        outcomes[*place] = Outcome { kind: said[0], offset: said[1], at: said[2] };
                    }
                }
                Some((1, _)) => return Ok(None),
                _ => return Err(odd(group)),
            }
        }
        Ok((groups.len() == self.places.len()).then_some(outcomes))
    }
}

/// The command that waits until what this connection wrote is as durable as the policy says.
fn add_wait(pipeline: &mut Pipeline, shared: &Shared) {
    let timeout = u64::try_from(shared.options.replica_timeout.as_millis()).unwrap_or(u64::MAX).max(1);
    let mut wait = match shared.options.durability {
        Durability::Fsync | Durability::Relaxed => return,
        Durability::Replicated => cmd("WAIT"),
        Durability::Strict => {
            let mut wait = cmd("WAITAOF");
            wait.arg(1);
            wait
        }
    };
    wait.arg(shared.options.replicas).arg(timeout);
    pipeline.add_command(wait);
}

/// What the waiting came to.
fn confirmed(shared: &Shared, said: Option<&Value>) -> Result<(), String> {
    let wanted = u64::from(shared.options.replicas);
    let short = |got: u64| Err(format!("{got} of {wanted} replicas confirmed in time"));
    match (shared.options.durability, said) {
        (Durability::Fsync | Durability::Relaxed, _) => Ok(()),
        (Durability::Replicated, Some(said)) => match number_of(said) {
            Some(got) if got >= wanted => Ok(()),
            Some(got) => short(got),
            None => Err(check(said.clone()).err().unwrap_or_else(|| odd(said)).cause()),
        },
        (Durability::Strict, Some(said)) => match numbers(said).as_deref() {
            Ok([local, got]) if *local >= 1 && *got >= wanted => Ok(()),
            Ok([0, _]) => Err("the master did not confirm its own sync in time".to_owned()),
            Ok([_, got]) => short(*got),
            _ => Err(check(said.clone()).err().unwrap_or_else(|| odd(said)).cause()),
        },
        (_, None) => Err("Redis did not answer WAIT".to_owned()),
    }
}
