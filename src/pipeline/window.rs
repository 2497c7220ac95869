//! What a pipeline has in hand: the entries read and not below the low watermark. Pure.
//!
//! | an entry is | it holds | it ends when |
//! |---|---|---|
//! | waiting, in its session's queue | its push | it is taken into a batch |
//! | out: in flight, or delivered with a derived push that is being accepted | its push | it is settled, put back, or doomed |
//! | put back, its session perhaps parked | its push, its attempts | it is taken again |
//! | doomed: to become a dead letter | its push, the reason | the journal keeps the letter |
//! | settled, above an older one that is not | a few bytes | the older ones are settled |
//!
//! All of these count against the window's events, all but the settled ones against its bytes: when it is full nothing is read, so
//! memory is bounded whatever the sink does. Pushes are kept as received; the event is made for each try and dropped after it.
//! Bodies are copied out of the page they were read in, which would otherwise live as long as any of its entries.
//!
//! Entries that the sink does not take are not in hand at all: the low watermark is the place before the oldest entry that is not
//! settled, so it passes them by itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use sink_api::Fault;
use tokio::time::Instant;

use super::batch::Parcel;
use super::sessions::{Key, Load, Seq, Sessions};
use crate::config::model;
use crate::journal::{Attempts, Checkpoint, Entry, Push, ReadLimits};
use crate::names::Offset;

/// One read gives at most this much, so that the loop is never kept long by one page.
const PAGE: Load = Load { events: 1000, bytes: 1 << 20 };

/// Why and how an entry became a dead letter.
#[derive(Debug, Clone)]
pub(super) struct Doom {
    pub(super) fault: Fault,
    /// Tries that were burned, the last one included.
    pub(super) attempts: u32,
    pub(super) first_at: Timestamp,
    pub(super) last_at: Timestamp,
}

#[derive(Debug)]
struct Slot {
    offset: Offset,
    key: Key,
    /// Absent once settled.
    push: Option<Arc<Push>>,
    bytes: u64,
    since: Instant,
    /// Tries that failed for a reason of the event's own.
    tries: u32,
    /// Those of them that count toward `attempts_max`.
    burned: u32,
    first_at: Option<Timestamp>,
    /// Entries right behind this one that are not for the sink.
    skipped: u64,
}

#[derive(Debug)]
pub(super) struct Window {
    limits: model::Window,
    read_to: Offset,
    slots: VecDeque<Slot>,
    /// The seq of the first slot.
    front: Seq,
    bytes: u64,
    skipped: u64,
    unsettled: usize,
    sessions: Sessions,
    doomed: BTreeMap<Seq, Doom>,
    /// From the checkpoint, of entries that are not read again yet.
    settled_before: BTreeSet<Offset>,
    attempts_before: BTreeMap<Offset, Attempts>,
    batch_end: Option<Offset>,
}

impl Window {
    /// Goes on at `checkpoint`, or after `resumed` where that is further.
    pub(super) fn new(limits: model::Window, checkpoint: Checkpoint, resumed: Option<Offset>) -> Self {
        let low = checkpoint.low.max(resumed.unwrap_or_default());
        let attempts = checkpoint.attempts.into_iter().map(|attempts| (attempts.offset, attempts));
        Self {
            limits,
            read_to: low,
            slots: VecDeque::new(),
            front: 0,
            bytes: 0,
            skipped: 0,
            unsettled: 0,
            sessions: Sessions::default(),
            doomed: BTreeMap::new(),
            settled_before: checkpoint.settled_above.into_iter().filter(|offset| *offset > low).collect(),
            attempts_before: attempts.filter(|(offset, _)| *offset > low).collect(),
            batch_end: checkpoint.batch_end.filter(|end| *end > low),
        }
    }

    /// Where the next read begins.
    pub(super) fn read_to(&self) -> Offset {
        self.read_to
    }

    /// How much may be read. An announced batch is read to its end, even where the window was larger when it was announced.
    pub(super) fn room(&self) -> Option<ReadLimits> {
        let events = self.limits.events_max.max(1).saturating_sub(self.slots.len());
        let bytes = self.limits.bytes_max.0.saturating_sub(self.bytes);
        let is_full = events == 0 || (bytes == 0 && !self.slots.is_empty());
        if is_full && self.batch_end.is_none_or(|end| end <= self.read_to) {
            return None;
        }
        let bytes_max = usize::try_from(bytes.min(PAGE.bytes)).expect("a page fits into memory");
        Some(ReadLimits { events_max: events.clamp(1, PAGE.events), bytes_max: bytes_max.max(1) })
    }

    /// An entry was read that is not for this sink.
    pub(super) fn skip(&mut self, offset: Offset) {
        self.read_to = offset;
        self.settled_before.remove(&offset);
        self.attempts_before.remove(&offset);
        if let Some(last) = self.slots.back_mut() {
            last.skipped += 1;
            self.skipped += 1;
        }
    }

    /// An entry was read that is to be delivered, unless the checkpoint knows it as settled.
    pub(super) fn admit(&mut self, entry: Entry, now: Instant) {
        if let Some((seq, key)) = self.push_slot(entry, now) {
            let bytes = self.slot(seq).bytes;
            self.sessions.append(&key, seq, bytes);
        }
    }

    /// An entry was read that becomes a dead letter without a try, unless the checkpoint knows it as settled.
    pub(super) fn admit_doomed(&mut self, entry: Entry, fault: Fault, now: Instant, at: Timestamp) {
        if let Some((seq, key)) = self.push_slot(entry, now) {
            self.sessions.occupy(&key);
            self.doomed.insert(seq, Doom { fault, attempts: 0, first_at: at, last_at: at });
        }
    }

    /// Everything up to `end` has been read.
    pub(super) fn read_through(&mut self, end: Offset) {
        self.read_to = self.read_to.max(end);
        // What the checkpoint named and was not met is no longer in the journal.
        let behind = self.read_to.next();
        self.settled_before = self.settled_before.split_off(&behind);
        self.attempts_before = self.attempts_before.split_off(&behind);
    }

    /// Everything up to here is settled.
    pub(super) fn low(&self) -> Offset {
        self.slots.front().map_or(self.read_to, |oldest| Offset(oldest.offset.0 - 1))
    }

    /// When the oldest entry in hand was received.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.slots.front().and_then(|slot| slot.push.as_ref()).map(|push| push.received_at)
    }

    /// Entries above the low watermark that are not for this sink.
    pub(super) fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Entries in hand that have not met their fate.
    pub(super) fn unsettled(&self) -> usize {
        self.unsettled
    }

    pub(super) fn available(&self) -> Load {
        self.sessions.available()
    }

    /// Since when the oldest entry that could go has been in hand.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.sessions.first_ready().map(|seq| self.slot(seq).since)
    }

    /// When the next parked session may go again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.sessions.next_due()
    }

    pub(super) fn wake(&mut self, now: Instant) {
        self.sessions.wake(now);
    }

    /// The end of the announced batch that is not settled yet.
    pub(super) fn batch_end(&self) -> Option<Offset> {
        self.batch_end.filter(|end| *end > self.low())
    }

    /// Fixes the end of the next batch within `limits`. It begins after the low watermark: only meant where nothing is out, parked
    /// or doomed.
    pub(super) fn announce(&mut self, limits: Load) {
        let mut load = Load::default();
        let mut end = None;
        for slot in self.slots.iter().filter(|slot| slot.push.is_some()) {
            load = Load { events: load.events + 1, bytes: load.bytes + slot.bytes };
            if end.is_some() && (load.events > limits.events || load.bytes > limits.bytes) {
                break;
            }
            end = Some(slot.offset);
        }
        self.batch_end = end;
    }

    /// Whether an entry of this session is out; one that is doomed and only waits to be kept is not.
    pub(super) fn is_out(&self, key: &Key) -> bool {
        let busy = self.sessions.busy(key);
        busy > 0 && busy > self.doomed.keys().filter(|seq| self.slot(**seq).key == *key).count()
    }

    /// Marks a session busy with a dead letter that is tried again.
    pub(super) fn occupy(&mut self, key: &Key) {
        self.sessions.occupy(key);
    }

    /// A dead letter that was tried again came back.
    pub(super) fn release(&mut self, key: &Key) {
        self.sessions.settle(key);
    }

    /// Takes what may go out, in journal order, up to `limits`; for an announced batch all of it.
    pub(super) fn take(&mut self, limits: Load) -> Vec<Parcel> {
        let (limits, through) = match self.batch_end() {
            None => (limits, None),
            Some(end) if self.read_to < end => return Vec::new(),
            Some(end) => {
                let behind = self.slots.partition_point(|slot| slot.offset <= end) as u64;
                (Load { events: usize::MAX, bytes: u64::MAX }, Some(self.front + behind - 1))
            }
        };
        let taken = self.sessions.take(limits, through);
        taken.into_iter().map(|seq| self.parcel(seq)).collect()
    }

    /// An entry that was out, or is a kept dead letter, has met its fate.
    pub(super) fn settle(&mut self, seq: Seq) {
        self.doomed.remove(&seq);
        let slot = self.slot_mut(seq);
        slot.push = None;
        let (key, bytes) = (slot.key.clone(), slot.bytes);
        self.bytes -= bytes;
        self.unsettled -= 1;
        self.sessions.settle(&key);
        while self.slots.front().is_some_and(|slot| slot.push.is_none()) {
            let slot = self.slots.pop_front().expect("there is a front");
            self.skipped -= slot.skipped;
            self.front += 1;
        }
    }

    /// Counts a failed try that began at `at`. Says how many tries failed and how many attempts are burned.
    pub(super) fn failed(&mut self, seq: Seq, at: Timestamp, burns_attempt: bool) -> (u32, u32) {
        let slot = self.slot_mut(seq);
        slot.tries = slot.tries.saturating_add(1);
        if burns_attempt {
            slot.burned = slot.burned.saturating_add(1);
            slot.first_at.get_or_insert(at);
        }
        (slot.tries, slot.burned)
    }

    /// An entry that was out waits again, at the head of its session; see [`Sessions::put_back`] for the order.
    pub(super) fn put_back(&mut self, seq: Seq, not_before: Option<Instant>) {
        let slot = self.slot(seq);
        let (key, bytes) = (slot.key.clone(), slot.bytes);
        self.sessions.put_back(&key, seq, bytes, not_before);
    }

    /// An entry that was out is to become a dead letter; its last try began at `at` and is counted already where it burned.
    pub(super) fn doom(&mut self, seq: Seq, fault: Fault, at: Timestamp) {
        let slot = self.slot(seq);
        let doom = Doom { fault, attempts: slot.burned, first_at: slot.first_at.unwrap_or(at), last_at: at };
        self.doomed.insert(seq, doom);
    }

    pub(super) fn has_doomed(&self) -> bool {
        !self.doomed.is_empty()
    }

    /// The doomed, in journal order.
    pub(super) fn doomed(&self) -> impl Iterator<Item = (Seq, Offset, &Arc<Push>, &Doom)> {
        self.doomed.iter().map(|(seq, doom)| {
            let slot = self.slot(*seq);
            (*seq, slot.offset, slot.push.as_ref().expect("a doomed entry is not settled"), doom)
        })
    }

    /// Key and push of an entry that is not settled.
    pub(super) fn look(&self, seq: Seq) -> (&Key, &Arc<Push>) {
        let slot = self.slot(seq);
        (&slot.key, slot.push.as_ref().expect("an entry that is out is not settled"))
    }

    /// The progress to save. `letters`, by rising seq, count as settled: they are saved with it.
    pub(super) fn checkpoint(&self, letters: &[Seq]) -> Checkpoint {
        let is_open = |(seq, slot): &(Seq, &Slot)| slot.push.is_some() && letters.binary_search(seq).is_err();
        let numbered = || (self.front..).zip(&self.slots);
        let low = numbered().find(is_open).map_or(self.read_to, |(_, slot)| Offset(slot.offset.0 - 1));
        let above = || numbered().filter(|(_, slot)| slot.offset > low);
        let attempts = above().filter(is_open).filter_map(|(_, slot)| {
            let first_at = slot.first_at?;
            Some(Attempts { offset: slot.offset, count: slot.burned, first_at })
        });
        let settled = above().filter(|numbered| !is_open(numbered)).map(|(_, slot)| slot.offset);
        Checkpoint {
            low,
            settled_above: settled.chain(self.settled_before.iter().copied()).collect(),
            attempts: attempts.chain(self.attempts_before.values().copied()).collect(),
            batch_end: self.batch_end.filter(|end| *end > low),
        }
    }

    /// Puts an entry behind all others. `None` where it is settled already.
    fn push_slot(&mut self, entry: Entry, now: Instant) -> Option<(Seq, Key)> {
        let Entry { offset, mut push } = entry;
        self.read_to = offset;
        let attempts = self.attempts_before.remove(&offset);
        let is_settled = self.settled_before.remove(&offset);
        if is_settled && self.slots.is_empty() {
            return None;
        }
        let key = Key::from(push.session.as_ref().map_or(push.id.as_str(), |session| session.as_str()));
        let bytes = if is_settled { 0 } else { push.body.len() as u64 };
        push.body = Bytes::copy_from_slice(&push.body);
        self.slots.push_back(Slot {
            offset,
            key: key.clone(),
            push: (!is_settled).then(|| Arc::new(push)),
            bytes,
            since: now,
            tries: attempts.map_or(0, |attempts| attempts.count),
            burned: attempts.map_or(0, |attempts| attempts.count),
            first_at: attempts.map(|attempts| attempts.first_at),
            skipped: 0,
        });
        if is_settled {
            return None;
        }
        self.bytes += bytes;
        self.unsettled += 1;
        Some((self.front + self.slots.len() as u64 - 1, key))
    }

    fn parcel(&self, seq: Seq) -> Parcel {
        let slot = self.slot(seq);
        let push = slot.push.clone().expect("only entries that are not settled wait");
        Parcel { seq, offset: slot.offset, attempt: slot.tries + 1, push }
    }

    fn slot(&self, seq: Seq) -> &Slot {
        &self.slots[usize::try_from(seq - self.front).expect("in hand")]
    }

    fn slot_mut(&mut self, seq: Seq) -> &mut Slot {
        &mut self.slots[usize::try_from(seq - self.front).expect("in hand")]
    }
}

#[cfg(test)]
mod tests;
