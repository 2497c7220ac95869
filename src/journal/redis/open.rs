//! Opening: connect, look at what the servers promise, make or read the shards, and lay out the tasks.

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use redis::{Pipeline, cmd};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::calls::Calls;
use super::connect::Servers;
use super::faults::{Fault, numbers, text_of};
use super::keys::{FORMAT, Keys};
use super::lanes::Lane;
use super::leases::Leases;
use super::options::{Durability, Mode, OpenError, Options};
use super::policy::Promise;
use super::queue::Queue;
use super::scripts::Scripts;
use super::shared::{Group, Letters, Shard, Shared};
use super::{Task, upkeep};
use crate::metrics::JournalMetrics;

/// For how long a server that is loading its data, or is just being replaced, is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn open(options: Options, metrics: JournalMetrics) -> Result<(Arc<Shared>, Vec<Task>), OpenError> {
    let servers = Arc::new(Servers::new(options.place.clone())?);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let short = try_servers(&servers, &options).await;
        match short {
            Ok(short) if short.is_empty() => break,
            Ok(short) if options.allow_weaker => {
                short.iter().for_each(|what| tracing::warn!(what, "redis promises less than the config asks for"));
                break;
            }
            Ok(short) => return Err(OpenError::Weaker(short)),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    let shared = Arc::new(shared(options, servers, metrics));
    loop {
        match begin(&shared).await {
            Ok(()) => break,
            Err(OpenError::Refused(_)) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(error),
        }
    }
    let tasks = tasks(&shared);
    Ok((shared, tasks))
}

/// Reaches every master and says what it promises less than `options` ask for. Changes nothing.
///
/// # Errors
/// See [`OpenError`].
pub async fn try_servers(servers: &Servers, options: &Options) -> Result<Vec<String>, OpenError> {
    let mut short = Vec::new();
    for node in servers.masters().await? {
        let mut link = servers.connect(&node, Duration::ZERO).await.inspect_err(|_| servers.forget())?;
        let promise = Promise::of(&mut link).await.map_err(OpenError::Refused)?;
        tracing::debug!(%node, %promise, "redis");
        short.extend(promise.shortfalls(options).into_iter().map(|what| format!("{node}: {what}")));
    }
    Ok(short)
}

fn shared(options: Options, servers: Arc<Servers>, metrics: JournalMetrics) -> Shared {
    // One lane makes the largest groups, which is best where each costs a sync; WAIT and WAITAOF leave lanes idle in between.
    let shards = options.shards;
    let groups: Vec<Vec<u16>> = match servers.mode() {
        Mode::Standalone | Mode::Sentinel => vec![(0..shards).collect()],
        Mode::Cluster => (0..shards).map(|shard| vec![shard]).collect(),
    };
    let groups: Vec<Group> = groups.into_iter().map(|shards| Group { shards, queue: Arc::new(Queue::new()) }).collect();
    let lanes = groups.len() * lanes_per_group(&options);
    Shared {
        id: OnceLock::new(),
        keys: Keys::new(&options.prefix),
        scripts: Scripts::new(),
        reads: Calls::new(Arc::clone(&servers)),
        writes: Calls::new(Arc::clone(&servers)),
        groups,
        shards: (0..shards).map(|_| Shard::default()).collect(),
        sinks: Mutex::default(),
        leases: Leases::new(owner()),
        letters: Letters::default(),
        metrics,
        troubles: Mutex::default(),
        is_memory_short: AtomicBool::new(false),
        in_flight: AtomicUsize::new(0),
        flight_began: Notify::new(),
        lanes_left: watch::Sender::new(lanes),
        closed: CancellationToken::new(),
        options,
        servers,
    }
}

fn lanes_per_group(options: &Options) -> usize {
    match (options.place.mode, options.durability) {
        (Mode::Cluster, Durability::Strict) => 2,
        (Mode::Cluster, _) | (_, Durability::Fsync) => 1,
        (_, Durability::Relaxed) => 2,
        (_, Durability::Replicated | Durability::Strict) => 4,
    }
}

/// The machine's name, the process and a number that tells it from an earlier one.
fn owner() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}:{}:{:08x}", host.trim(), std::process::id(), fastrand::u32(..))
}

async fn begin(shared: &Shared) -> Result<(), OpenError> {
    let refused = |fault: Fault| OpenError::Refused(fault.cause());
    let wanted = shared.options.shards;
    let mut ask = cmd("HMGET");
    ask.arg(shared.keys.of(0, "meta")).arg("shards").arg("format");
    let said = shared.writes.one(0, ask).await.and_then(|said| numbers(&said)).map_err(refused)?;
    let [found, format] = said[..] else { return Err(OpenError::Refused("no shards and format".to_owned())) };
    if format > FORMAT {
        return Err(OpenError::NewerVersion { found: format });
    }
    let found = u16::try_from(found).unwrap_or(u16::MAX);
    if found != 0 && found != wanted {
        return Err(OpenError::Shards { found, wanted });
    }
    for shard in shared.all_shards() {
        let mut link = shared.writes.link(shard).await.map_err(refused)?;
        shared.adopt(&mut link, &[shard]).await.map_err(refused)?;
    }
    drop(shared.id.set(id(shared).await.map_err(refused)?));
    upkeep::learn_sinks(shared).await.map_err(refused)?;
    upkeep::measure(shared).await.map_err(refused)?;
    upkeep::count_letters(shared).await.map_err(refused)
}

/// The journal's id, from a random word that each shard keeps: so it is another one where any of them was lost.
async fn id(shared: &Shared) -> Result<String, Fault> {
    let mut id = digest::Context::new(&digest::SHA256);
    for shard in shared.all_shards() {
        let meta = shared.keys.of(shard, "meta");
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("HSETNX").arg(&meta).arg("id").arg(format!("{:016x}", fastrand::u64(..)));
        pipeline.cmd("HGET").arg(&meta).arg("id");
        let said = shared.writes.all(shard, &pipeline).await?;
        let word = said.get(1).and_then(text_of).ok_or_else(|| Fault::Unknown { cause: "no id".to_owned() })?;
        id.update(word.as_bytes());
    }
    Ok(id.finish().as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect())
}

fn tasks(shared: &Arc<Shared>) -> Vec<Task> {
    let mut tasks: Vec<Task> = vec![("journal upkeep".to_owned(), Box::pin(upkeep::care(Arc::clone(shared))))];
    if shared.options.durability == Durability::Strict && shared.options.replicas > 0 {
        tasks.push(("journal poke".to_owned(), Box::pin(upkeep::poke(Arc::clone(shared)))));
    }
    for (number, group) in shared.groups.iter().enumerate() {
        let watch = upkeep::watch(Arc::clone(shared), group.shards.clone());
        tasks.push((format!("journal watch {number}"), Box::pin(watch)));
        for lane in 0..lanes_per_group(&shared.options) {
            let lane_of = Lane::new(Arc::clone(shared), number, lane);
            tasks.push((format!("journal lane {number}.{lane}"), Box::pin(lane_of.run())));
        }
    }
    tasks
}
