//! What goes on beside the calls: leases are renewed, what lies in Redis is measured and trimmed, and new entries are noticed.
//!
//! Each is a future for the composition root to run, and ends when the journal is closed. None of them fails: what does not work is
//! tried again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::future::join_all;
use redis::{Pipeline, Value, cmd};

use super::connect::{Link, Node, info_field};
use super::faults::{Fault, array_of, number_of, odd, text_of};
use super::keys::Keys;
use super::leases::LEASE;
use super::shared::{Shared, first, lock};
use crate::journal::Fence;
use crate::names::{INGRESS, SinkName};

const MEASURE_INTERVAL: Duration = Duration::from_millis(250);
/// Renewing, counting dead letters, trimming.
const CARE_INTERVAL: Duration = Duration::from_secs(1);
/// How long one wait for new entries lasts.
const WATCH_PATIENCE: Duration = Duration::from_secs(1);
/// Before looking again after a failure, and before asking for what came together.
const WATCH_PAUSE: Duration = Duration::from_millis(200);
const WATCH_BREATH: Duration = Duration::from_millis(1);
/// Entries given back per shard and second, at most.
const TRIM_MAX: u64 = 20_000;
/// How long a gateway is counted that does not say that it is there.
const PRESENCE: Duration = Duration::from_secs(4);
/// New pushes are refused from here on, in percent of `maxmemory`: the rest is for checkpoints, dead letters and marks.
const MEMORY_PERCENT_MAX: u64 = 85;

const CARE: &str = "upkeep";
const MEMORY: &str = "memory";
const SIZE: &str = "size";

/// Measures, renews and trims.
pub(super) async fn care(shared: Arc<Shared>) {
    let mut cared_at: Option<Instant> = None;
    while !shared.is_closed() {
        match measure(&shared).await {
            Ok(()) => shared.is_well(CARE),
            Err(fault) => shared.has_trouble(CARE, fault.cause()),
        }
        if cared_at.is_none_or(|at| at.elapsed() >= CARE_INTERVAL) {
            cared_at = Some(Instant::now());
            renew(&shared).await;
            if let Err(fault) = count_and_trim(&shared).await {
                tracing::debug!(cause = fault.cause(), "redis was not cared for; tried again");
            }
        }
        tokio::select! {
            () = shared.closed.cancelled() => {}
            () = tokio::time::sleep(MEASURE_INTERVAL) => {}
        }
    }
}

/// Brings what is known of the shards up to date, and lets them know the server's life where they do not. One that cannot be asked
/// holds up no other.
pub(super) async fn measure(shared: &Shared) -> Result<(), Fault> {
    let mut nodes = BTreeSet::new();
    let mut is_memory_short = false;
    let mut failed = Ok(());
    for shard in shared.all_shards() {
        match measure_shard(shared, shard, &mut nodes).await {
            Ok(is_short) => is_memory_short |= is_short,
            Err(fault) => failed = Err(fault),
        }
    }
    shared.is_memory_short.store(is_memory_short, Ordering::Relaxed);
    tell(shared, is_memory_short);
    failed
}

/// Says whether the shard's server has little memory left, if it is not among `nodes` yet.
async fn measure_shard(shared: &Shared, shard: u16, nodes: &mut BTreeSet<Node>) -> Result<bool, Fault> {
    let mut pipeline = Pipeline::with_capacity(2);
    let meta = shared.keys.of(shard, "meta");
    pipeline.cmd("HMGET").arg(meta).arg(&["life", "seq", "last", "bytes", "base", "letters"]);
    pipeline.cmd("XLEN").arg(shared.keys.of(shard, "log"));
    let said = shared.writes.all(shard, &pipeline).await?;
    let mut link = shared.writes.link(shard).await?;
    let [meta, entries] = said.as_slice() else { return Err(odd(&Value::Array(said))) };
    let fields = array_of(meta.clone())?;
    let [life, seq, last, bytes, base, letters] = fields.as_slice() else { return Err(odd(meta)) };
    if text_of(life).as_ref() != Some(&link.identity.0) {
        // The shared connection knows the identity of when it was made.
        shared.writes.drop_link(&link);
        link.identify().await?;
        shared.adopt(&mut link, &[shard]).await?;
        return Ok(false);
    }
    let number = |value| number_of(value).unwrap_or(0);
    let state = shared.shard(shard);
    state.seen.fetch_max(number(seq), Ordering::AcqRel);
    shared.advance(shard, number(last));
    let used = number(bytes).saturating_sub(number(base)) + number(letters);
    state.bytes.store(used, Ordering::Relaxed);
    state.entries.store(number(entries), Ordering::Relaxed);
    match nodes.insert(link.node.clone()) {
        true => is_nearly_full(&mut link).await,
        false => Ok(false),
    }
}

async fn is_nearly_full(link: &mut Link) -> Result<bool, Fault> {
    let info = text_of(&link.ask(cmd("INFO").arg("memory")).await?).unwrap_or_default();
    let of = |name| info_field(&info, name).and_then(|bytes| bytes.parse::<u64>().ok()).unwrap_or(0);
    let (used, limit) = (of("used_memory"), of("maxmemory"));
    Ok(limit > 0 && used >= limit / 100 * MEMORY_PERCENT_MAX)
}

/// Gauges, and whether there is room.
fn tell(shared: &Shared, is_memory_short: bool) {
    let (bytes, entries) = (shared.bytes(), shared.entries());
    shared.metrics.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    shared.metrics.entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
    match is_memory_short {
        true => shared.has_trouble(MEMORY, format!("more than {MEMORY_PERCENT_MAX} % of maxmemory are in use")),
        false => shared.is_well(MEMORY),
    }
    match bytes >= shared.options.size_max {
        true => shared.has_trouble(SIZE, format!("the journal is full: {bytes} bytes are in use")),
        false => shared.is_well(SIZE),
    }
}

/// All at once, so that they share a sync of the server.
async fn renew(shared: &Shared) {
    let fences = shared.leases.fences();
    join_all(fences.iter().map(|fence| renew_one(shared, fence))).await;
    let expired = shared.leases.lose_expired();
    if expired > 0 {
        tracing::warn!(leases = expired, "leases could not be renewed in time");
    }
}

async fn renew_one(shared: &Shared, fence: &Fence) {
    let sink = fence.sink.as_str();
    let keys = [shared.keys.of(fence.shard, "state"), shared.keys.of_sink(fence.shard, "lease", sink)];
    let args =
        [sink.into(), shared.leases.owner.as_str().into(), fence.epoch.into(), (LEASE.as_millis() as u64).into()];
    let asked_at = Instant::now();
    match shared.writes.script(fence.shard, &shared.scripts.renew, &keys, &args).await {
        Ok(Value::Int(1)) => shared.leases.renewed(fence, asked_at),
        Ok(_) => {
            if shared.leases.lost(fence) {
                tracing::warn!(sink, shard = fence.shard, "the lease was taken over");
            }
        }
        // It may be renewed the next time, or ends by itself.
        Err(_) => {}
    }
}

/// One shard that cannot be trimmed holds up no other.
async fn count_and_trim(shared: &Shared) -> Result<(), Fault> {
    let present = be_present(shared).await;
    shared.leases.hand_over(shared.options.shards);
    let mut failed = present.and(count_letters(shared).await);
    for shard in shared.all_shards() {
        let keys = ["low", "meta", "log"].map(|name| shared.keys.of(shard, name));
        let args = [TRIM_MAX.into(), shared.room(shard).saturating_mul(9).saturating_div(10).into()];
        let trimmed = shared.writes.script(shard, &shared.scripts.trim, &keys, &args).await;
        failed = failed.and(trimmed.map(drop));
    }
    failed
}

async fn be_present(shared: &Shared) -> Result<(), Fault> {
    let patience = if shared.leases.shares_work() { PRESENCE.as_millis() as u64 } else { 0 };
    let args = [shared.leases.owner.as_str().into(), patience.into()];
    let said = shared.writes.script(0, &shared.scripts.present, &[shared.keys.of(0, "here")], &args).await?;
    shared.leases.present.store(number_of(&said).unwrap_or(1).max(1), Ordering::Relaxed);
    Ok(())
}

/// Says that this gateway shares no work any more.
pub(super) async fn leave(shared: &Shared) -> Result<(), Fault> {
    let args = [shared.leases.owner.as_str().into(), 0.into()];
    shared.writes.script(0, &shared.scripts.present, &[shared.keys.of(0, "here")], &args).await?;
    Ok(())
}

/// Also learns which sinks others registered.
pub(super) async fn count_letters(shared: &Shared) -> Result<(), Fault> {
    let changes = shared.letters.changes();
    let sinks = shared.registered().await?;
    let mut counts = HashMap::new();
    for shard in shared.all_shards() {
        let mut names: Vec<SinkName> = sinks.clone();
        if shard == 0 {
            names.push(SinkName::from(INGRESS));
        }
        let mut pipeline = Pipeline::with_capacity(names.len());
        for sink in &names {
            pipeline.cmd("ZCARD").arg(shared.keys.of_sink(shard, "dx", sink.as_str()));
        }
        if names.is_empty() {
            continue;
        }
        let said = shared.reads.all(shard, &pipeline).await?;
        for (sink, count) in names.into_iter().zip(&said) {
            counts.insert((sink, shard), number_of(count).unwrap_or(0));
        }
    }
    shared.letters.replace(counts, changes);
    Ok(())
}

/// Waits for new entries of `shards`, which live on one server, on a connection of its own.
pub(super) async fn watch(shared: Arc<Shared>, shards: Vec<u16>) {
    let mut link = None;
    while !shared.is_closed() {
        let watched = tokio::select! {
            () = shared.closed.cancelled() => return,
            watched = watch_once(&shared, &shards, &mut link) => watched,
        };
        if watched.is_err() {
            link = None;
            tokio::time::sleep(WATCH_PAUSE).await;
        }
    }
}

async fn watch_once(shared: &Shared, shards: &[u16], link: &mut Option<Link>) -> Result<(), Fault> {
    let link = match link {
        Some(link) => link,
        None => {
            let node = shared.servers.home(&Keys::tag(shards[0])).await?;
            link.insert(shared.servers.connect(&node, WATCH_PATIENCE).await?)
        }
    };
    let mut last = Pipeline::with_capacity(shards.len());
    for shard in shards {
        last.cmd("HGET").arg(shared.keys.of(*shard, "meta")).arg("last");
    }
    let said = link.send(&last).await?;
    for (shard, last) in shards.iter().zip(said) {
        shared.advance(*shard, number_of(&super::faults::check(last)?).unwrap_or(0));
    }
    let mut read = Pipeline::with_capacity(1);
    let command = read.cmd("XREAD").arg("COUNT").arg(1).arg("BLOCK").arg(WATCH_PATIENCE.as_millis() as u64);
    command.arg("STREAMS");
    for shard in shards {
        command.arg(shared.keys.of(*shard, "log"));
    }
    for shard in shards {
        command.arg(format!("{}-0", *shared.shard(*shard).tail.borrow()));
    }
    first(link.send(&read).await?)?;
    tokio::time::sleep(WATCH_BREATH).await;
    Ok(())
}

/// Keeps the replicas telling how far their disks are while pushes are in flight: by themselves they say so once a second.
pub(super) async fn poke(shared: Arc<Shared>) {
    let mut links: Vec<Link> = Vec::new();
    while !shared.is_closed() {
        if shared.in_flight.load(Ordering::Acquire) == 0 {
            let began = shared.flight_began.notified();
            tokio::select! {
                () = shared.closed.cancelled() => return,
                () = began => {}
                () = tokio::time::sleep(WATCH_PAUSE) => {}
            }
            continue;
        }
        if poke_once(&shared, &mut links).await.is_err() {
            links.clear();
            tokio::time::sleep(WATCH_PAUSE).await;
        }
    }
}

async fn poke_once(shared: &Shared, links: &mut Vec<Link>) -> Result<(), Fault> {
    if links.is_empty() {
        for node in shared.servers.masters().await? {
            links.push(shared.servers.connect(&node, Duration::ZERO).await?);
        }
    }
    for link in links {
        link.ask(cmd("WAITAOF").arg(0).arg(99).arg(2)).await?;
    }
    Ok(())
}

/// The sinks that are registered now are those that a shard that loses everything gets back.
pub(super) async fn learn_sinks(shared: &Shared) -> Result<(), Fault> {
    let registered = shared.registered().await?;
    lock(&shared.sinks).extend(registered);
    Ok(())
}
