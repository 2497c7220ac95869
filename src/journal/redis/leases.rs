//! Who owns which pipeline: leases that Redis holds, and what this process holds of them.
//!
//! A lease lasts [`LEASE`] and is renewed every second. Its fence is in the shard's hash, so that settling compares it in the very
//! script that settles: a process that was paused and comes back finds its fence old, whatever it believes. The clock here counts from
//! before the renewal was sent, so it ends no later than Redis's; a lease that may have ended is lost, and its pipeline stops.
//!
//! Gateways that run pipelines say so in `here`. Each owns its share of a sink's shards; who has more hands one over. A shard that
//! nobody wants is taken by whoever asks twice.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::shared::lock;
use crate::journal::{Fence, Recall};
use crate::names::SinkName;

/// How long a lease lasts without being renewed.
pub(super) const LEASE: Duration = Duration::from_secs(5);
/// Beyond its share a process takes only what has been free for that long.
const MODESTY: Duration = Duration::from_millis(1500);
/// A shard is not handed over sooner than this after it was taken, nor sooner than the second where nobody else had wanted it.
const SETTLE_TIME: Duration = Duration::from_secs(2);
const UNWANTED_TIME: Duration = Duration::from_secs(30);
/// Who has not asked for a lease for so long, and has none, shares no work.
const WANTS: Duration = Duration::from_secs(5);

type Place = (SinkName, u16);

pub(super) struct Leases {
    /// Names this process in Redis.
    pub owner: String,
    held: Mutex<HashMap<Place, Held>>,
    /// When a lease beyond the share was first asked for.
    asked: Mutex<HashMap<Place, Instant>>,
    wanted_at: Mutex<Option<Instant>>,
    /// How many processes share the work.
    pub present: AtomicU64,
}

struct Held {
    epoch: u64,
    until: Instant,
    since: Instant,
    was_unwanted: bool,
    recall: watch::Sender<Option<Recall>>,
}

impl Leases {
    pub(super) fn new(owner: String) -> Self {
        Self {
            owner,
            held: Mutex::default(),
            asked: Mutex::default(),
            wanted_at: Mutex::default(),
            present: AtomicU64::new(1),
        }
    }

    fn share(&self, shards: u16) -> usize {
        let present = self.present.load(Ordering::Relaxed).max(1);
        usize::try_from(u64::from(shards).div_ceil(present)).unwrap_or(usize::MAX)
    }

    /// Whether this process may take the lease, by its share.
    pub(super) fn may_take(&self, sink: &SinkName, shard: u16, shards: u16) -> bool {
        *lock(&self.wanted_at) = Some(Instant::now());
        let place = (sink.clone(), shard);
        if !self.is_beyond_share(&place, shards) {
            lock(&self.asked).remove(&place);
            return true;
        }
        lock(&self.asked).entry(place).or_insert_with(Instant::now).elapsed() >= MODESTY
    }

    fn is_beyond_share(&self, place: &Place, shards: u16) -> bool {
        let held = lock(&self.held);
        let others = held.keys().filter(|held| held.0 == place.0 && *held != place).count();
        others >= self.share(shards)
    }

    /// The lease was granted; `asked_at` is from before it was asked for.
    pub(super) fn took(&self, sink: &SinkName, shard: u16, epoch: u64, asked_at: Instant, shards: u16) {
        let place = (sink.clone(), shard);
        let was_unwanted = self.is_beyond_share(&place, shards);
        lock(&self.asked).remove(&place);
        let (recall, _) = watch::channel(None);
        let held = Held { epoch, until: asked_at + LEASE, since: Instant::now(), was_unwanted, recall };
        if let Some(before) = lock(&self.held).insert(place, held) {
            before.recall.send_replace(Some(Recall::Lost));
        }
    }

    /// Somebody else has it.
    pub(super) fn was_refused(&self, sink: &SinkName, shard: u16) {
        lock(&self.asked).remove(&(sink.clone(), shard));
    }

    /// All fences that are held.
    pub(super) fn fences(&self) -> Vec<Fence> {
        let of =
            |((sink, shard), held): (&Place, &Held)| Fence { sink: sink.clone(), shard: *shard, epoch: held.epoch };
        lock(&self.held).iter().map(of).collect()
    }

    pub(super) fn renewed(&self, fence: &Fence, asked_at: Instant) {
        if let Some(held) = lock(&self.held).get_mut(&(fence.sink.clone(), fence.shard))
            && held.epoch == fence.epoch
        {
            held.until = asked_at + LEASE;
        }
    }

    /// The lease is another's, or may be. Says whether it was held.
    pub(super) fn lost(&self, fence: &Fence) -> bool {
        let mut held = lock(&self.held);
        let place = (fence.sink.clone(), fence.shard);
        let is_held = held.get(&place).is_some_and(|held| held.epoch == fence.epoch);
        if is_held && let Some(held) = held.remove(&place) {
            held.recall.send_replace(Some(Recall::Lost));
        }
        is_held
    }

    /// Those that were not renewed in time are lost.
    pub(super) fn lose_expired(&self) -> usize {
        self.lose(|_, held| Instant::now() >= held.until)
    }

    pub(super) fn lose_shard(&self, shard: u16) -> usize {
        self.lose(|place, _| place.1 == shard)
    }

    fn lose(&self, is_lost: impl Fn(&Place, &Held) -> bool) -> usize {
        let mut held = lock(&self.held);
        let before = held.len();
        held.retain(|place, held| {
            let is_lost = is_lost(place, held);
            if is_lost {
                held.recall.send_replace(Some(Recall::Lost));
            }
            !is_lost
        });
        before - held.len()
    }

    /// Whether this process runs pipelines, or would.
    pub(super) fn shares_work(&self) -> bool {
        !lock(&self.held).is_empty() || lock(&self.wanted_at).is_some_and(|at| at.elapsed() < WANTS)
    }

    pub(super) fn holds_none(&self) -> bool {
        lock(&self.held).is_empty()
    }

    /// Asks back what is beyond the share.
    pub(super) fn hand_over(&self, shards: u16) {
        let share = self.share(shards);
        let held = lock(&self.held);
        let mut by_sink: HashMap<&SinkName, Vec<(&Place, &Held)>> = HashMap::new();
        for (place, held) in held.iter() {
            by_sink.entry(&place.0).or_default().push((place, held));
        }
        for mut of_sink in by_sink.into_values() {
            of_sink.sort_unstable_by_key(|(place, _)| place.1);
            let leaving = of_sink.iter().filter(|(_, held)| held.recall.borrow().is_some()).count();
            let excess = of_sink.len().saturating_sub(share + leaving);
            let is_ripe = |held: &Held| {
                let rest = if held.was_unwanted { UNWANTED_TIME } else { SETTLE_TIME };
                held.recall.borrow().is_none() && held.since.elapsed() >= rest
            };
            for (_, held) in of_sink.into_iter().rev().filter(|(_, held)| is_ripe(held)).take(excess) {
                held.recall.send_replace(Some(Recall::HandOver));
            }
        }
    }

    pub(super) async fn recalled(&self, fence: &Fence) -> Recall {
        let watched = {
            let held = lock(&self.held);
            let place = (fence.sink.clone(), fence.shard);
            held.get(&place).filter(|held| held.epoch == fence.epoch).map(|held| held.recall.subscribe())
        };
        let Some(mut watched) = watched else { return Recall::Lost };
        match watched.wait_for(Option::is_some).await {
            Ok(recall) => recall.unwrap_or(Recall::Lost),
            Err(_) => Recall::Lost,
        }
    }
}
