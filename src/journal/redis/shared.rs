//! What the lanes, the calls and the upkeep share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use redis::{Pipeline, Value};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::calls::Calls;
use super::connect::{Link, Servers};
use super::faults::{Fault, check, numbers};
use super::keys::{FORMAT, Keys};
use super::leases::Leases;
use super::options::Options;
use super::queue::Queue;
use super::scripts::{Arg, Scripts};
use crate::metrics::JournalMetrics;
use crate::names::SinkName;

/// A new life of the server begins at the next multiple of this, so far above whatever the last one gave that no lost tail is longer.
/// Offsets stay below 2^48: there is room for 65,536 lives.
const LIFE_SPAN: u64 = 1 << 32;

pub(super) struct Shared {
    pub options: Options,
    /// Tells this journal from one that a wipe made anew; set while opening.
    pub id: OnceLock<String>,
    pub keys: Keys,
    pub scripts: Scripts,
    pub servers: Arc<Servers>,
    pub reads: Calls,
    pub writes: Calls,
    pub groups: Vec<Group>,
    pub shards: Vec<Shard>,
    /// The sinks that are registered, as far as this process knows.
    pub sinks: Mutex<BTreeSet<SinkName>>,
    pub leases: Leases,
    pub letters: Letters,
    pub metrics: JournalMetrics,
    /// Why pushes cannot be accepted, by who noticed it.
    pub troubles: Mutex<BTreeMap<String, String>>,
    /// A server's memory is nearly used up.
    pub is_memory_short: AtomicBool,
    /// Pushes that are being written.
    pub in_flight: AtomicUsize,
    pub flight_began: Notify,
    pub lanes_left: watch::Sender<usize>,
    pub closed: CancellationToken,
}

/// Shards that share lanes: all of them where one server has them all.
pub(super) struct Group {
    pub shards: Vec<u16>,
    pub queue: Arc<Queue>,
}

/// What is known of a shard.
#[derive(Default)]
pub(super) struct Shard {
    /// The greatest offset that is an entry.
    pub tail: watch::Sender<u64>,
    /// The greatest offset that was ever seen, also in earlier lives.
    pub seen: AtomicU64,
    /// Of entries and dead letters.
    pub bytes: AtomicU64,
    pub entries: AtomicU64,
}

/// How many dead letters are kept, per sink and shard.
#[derive(Default)]
pub(super) struct Letters {
    counts: Mutex<HashMap<(SinkName, u16), u64>>,
    changes: AtomicU64,
}

impl Letters {
    pub(super) fn of(&self, sink: &SinkName) -> u64 {
        lock(&self.counts).iter().filter(|((of, _), _)| of == sink).map(|(_, count)| count).sum()
    }

    pub(super) fn of_others(&self, sink: &SinkName, shard: u16) -> u64 {
        lock(&self.counts).iter().filter(|((of, at), _)| of == sink && *at != shard).map(|(_, count)| count).sum()
    }

    pub(super) fn set(&self, sink: &SinkName, shard: u16, count: u64) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        lock(&self.counts).insert((sink.clone(), shard), count);
    }

    pub(super) fn forget(&self, sink: &SinkName) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        lock(&self.counts).retain(|(of, _), _| of != sink);
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Replaces all, unless one changed since `changes`.
    pub(super) fn replace(&self, counts: HashMap<(SinkName, u16), u64>, changes: u64) {
        let mut held = lock(&self.counts);
        if self.changes() == changes {
            *held = counts;
        }
    }
}

impl Shared {
    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    pub(super) fn all_shards(&self) -> std::ops::Range<u16> {
        0..self.options.shards
    }

    pub(super) fn shard(&self, shard: u16) -> &Shard {
        &self.shards[usize::from(shard)]
    }

    pub(super) fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn entries(&self) -> u64 {
        self.shards.iter().map(|shard| shard.entries.load(Ordering::Relaxed)).sum()
    }

    /// What entries of `shard` may take, by what the others take.
    pub(super) fn room(&self, shard: u16) -> u64 {
        if self.is_memory_short.load(Ordering::Relaxed) {
            return 0;
        }
        let own = self.shard(shard).bytes.load(Ordering::Relaxed);
        self.options.size_max.saturating_sub(self.bytes().saturating_sub(own))
    }

    pub(super) fn has_trouble(&self, who: &str, what: String) {
        let before = lock(&self.troubles).insert(who.to_owned(), what.clone());
        if before.is_none() {
            tracing::error!(part = who, cause = what, "redis does not take pushes; tried again until it does");
        }
    }

    pub(super) fn is_well(&self, who: &str) {
        if lock(&self.troubles).remove(who).is_some() {
            tracing::info!(part = who, "redis takes pushes again");
        }
    }

    pub(super) fn trouble(&self) -> Option<String> {
        lock(&self.troubles).values().next().cloned()
    }

    pub(super) fn count(&self, kind: &'static str) {
        self.metrics.errors.with_label_values(&[kind]).inc();
    }

    /// Makes sure that the shards know the life of the server that `link` leads to.
    pub(super) async fn adopt(&self, link: &mut Link, shards: &[u16]) -> Result<(), Fault> {
        let sinks: Vec<Arg> = lock(&self.sinks).iter().map(|sink| sink.as_str().into()).collect();
        for shard in shards.iter().copied() {
            let state = self.shard(shard);
            let seen = state.seen.load(Ordering::Acquire);
            let keys = ["meta", "log", "low"].map(|name| self.keys.of(shard, name));
            let mut args: Vec<Arg> = vec![
                link.identity.0.as_str().into(),
                seen.into(),
                LIFE_SPAN.into(),
                u64::from(self.options.shards).into(),
                FORMAT.into(),
            ];
            args.extend(sinks.iter().cloned());
            let said = on_link(link, &self.scripts.adopt, &keys, &args).await?;
            let [is_new, before, seq, last] = numbers(&said)?[..] else { return Err(super::faults::odd(&said)) };
            state.seen.fetch_max(seq, Ordering::AcqRel);
            if is_new == 1 {
                state.tail.send_replace(last);
                tracing::info!(shard, offset = seq, "a new life of redis begins at this offset");
            } else {
                self.advance(shard, last);
            }
            if before < seen && seen > 0 {
                // What this process did with the lost offsets must not be settled: its pipelines begin at what is left.
                tracing::warn!(
                    shard,
                    seen,
                    found = before,
                    "redis has lost the end of its data; nothing that was promised to survive it"
                );
                self.leases.lose_shard(shard);
            }
        }
        Ok(())
    }

    /// Something stands at `offset`.
    pub(super) fn advance(&self, shard: u16, offset: u64) {
        let state = self.shard(shard);
        state.seen.fetch_max(offset, Ordering::AcqRel);
        state.tail.send_if_modified(|tail| {
            let is_news = offset > *tail;
            *tail = offset.max(*tail);
            is_news
        });
    }
}

/// Runs a script on a connection of one's own.
pub(super) async fn on_link(
    link: &mut Link,
    script: &super::scripts::Source,
    keys: &[String],
    args: &[Arg],
) -> Result<Value, Fault> {
    let mut pipeline = Pipeline::with_capacity(1);
    pipeline.add_command(script.call(keys, args));
    match first(link.send(&pipeline).await?) {
        Err(Fault::NoScript) => {
            let mut pipeline = Pipeline::with_capacity(1);
            pipeline.add_command(script.teach(keys, args));
            first(link.send(&pipeline).await?)
        }
        other => other,
    }
}

pub(super) fn first(values: Vec<Value>) -> Result<Value, Fault> {
    let value = values.into_iter().next().ok_or_else(|| Fault::Unknown { cause: "Redis did not answer".to_owned() })?;
    check(value)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
