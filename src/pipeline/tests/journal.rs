//! A journal in memory: what is accepted is durable at once, and it lives on when a pipeline is dropped in a crash.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, watch};

use crate::journal::{
    AcceptError, Accepted, Backlog, Checkpoint, DeadLetter, DeadLetterId, DeadLetterPage, Entry, Error, Fence, Health,
    Item, Journal, Lease, Page, Push, ReadLimits, Recall, Selection, Start,
};
use crate::names::{Offset, PushId, SinkName};

#[derive(Default)]
pub(super) struct Memory {
    pub(super) inner: Mutex<Inner>,
    grown: Notify,
    recall: watch::Sender<Option<Recall>>,
}

#[derive(Default)]
pub(super) struct Inner {
    items: BTreeMap<Offset, Item>,
    ids: HashMap<PushId, Offset>,
    epoch: u64,
    pub(super) checkpoint: Checkpoint,
    pub(super) letters: BTreeMap<DeadLetterId, DeadLetter>,
    pub(super) commits: usize,
    /// So many of the next operations of a kind are refused.
    pub(super) refused_accepts: usize,
    pub(super) refused_writes: usize,
    pub(super) refused_reads: usize,
    pub(super) is_leased_elsewhere: bool,
    pub(super) leases: usize,
    pub(super) releases: usize,
}

impl Memory {
    pub(super) fn put(&self, push: Push) -> Offset {
        self.put_item(push, Item::Entry)
    }

    pub(super) fn put_corrupt(&self, push: Push) -> Offset {
        self.put_item(push, |entry| Item::Corrupt { entry, detail: "checksum differs".into() })
    }

    fn put_item(&self, push: Push, item: impl FnOnce(Entry) -> Item) -> Offset {
        let mut inner = self.inner.lock().unwrap();
        let offset = inner.items.last_key_value().map_or(Offset(1), |(last, _)| last.next());
        inner.ids.insert(push.id.clone(), offset);
        inner.items.insert(offset, item(Entry { offset, push }));
        drop(inner);
        self.grown.notify_waiters();
        offset
    }

    pub(super) fn checkpoint(&self) -> Checkpoint {
        self.inner.lock().unwrap().checkpoint.clone()
    }

    pub(super) fn last(&self) -> Offset {
        self.inner.lock().unwrap().items.last_key_value().map_or(Offset::ZERO, |(last, _)| *last)
    }

    pub(super) fn letters(&self) -> Vec<DeadLetter> {
        self.inner.lock().unwrap().letters.values().cloned().collect()
    }

    /// Another owner takes over: the fence that is out is void.
    pub(super) fn take_over(&self, is_leased_elsewhere: bool) {
        let mut inner = self.inner.lock().unwrap();
        inner.epoch += 1;
        inner.is_leased_elsewhere = is_leased_elsewhere;
    }

    /// Asks for the lease that is out; the next one is granted when `is_leased_elsewhere` ends.
    pub(super) fn ask_back(&self, recall: Recall) {
        self.inner.lock().unwrap().is_leased_elsewhere = true;
        self.recall.send_replace(Some(recall));
    }

    /// The other process is gone.
    pub(super) fn come_free(&self) {
        self.recall.send_replace(None);
        self.inner.lock().unwrap().is_leased_elsewhere = false;
    }

    pub(super) fn releases(&self) -> usize {
        self.inner.lock().unwrap().releases
    }
}

impl Inner {
    fn write(&mut self, fence: &Fence, checkpoint: &Checkpoint) -> Result<(), Error> {
        if fence.epoch != self.epoch {
            return Err(Error::Fenced { sink: fence.sink.clone(), shard: fence.shard });
        }
        if self.refused_writes > 0 {
            self.refused_writes -= 1;
            return Err(Error::Unavailable { cause: "scripted".into() });
        }
        assert!(checkpoint.low >= self.checkpoint.low, "the low watermark went back");
        assert!(checkpoint.settled_above.is_sorted() && checkpoint.settled_above.iter().all(|o| *o > checkpoint.low));
        assert!(checkpoint.attempts.is_sorted_by_key(|attempts| attempts.offset));
        self.checkpoint = checkpoint.clone();
        self.commits += 1;
        Ok(())
    }
}

#[async_trait]
impl Journal for Memory {
    fn backend(&self) -> &'static str {
        "memory"
    }

    fn shards(&self) -> u16 {
        1
    }

    async fn accept(&self, push: Push) -> Result<Accepted, AcceptError> {
        {
            let mut inner = self.inner.lock().unwrap();
            if inner.refused_accepts > 0 {
                inner.refused_accepts -= 1;
                return Err(AcceptError::Full { used: 1, limit: 1 });
            }
            if let Some(offset) = inner.ids.get(&push.id) {
                return Ok(Accepted::Duplicate { offset: *offset, same_body: true });
            }
        }
        Ok(Accepted::New { offset: self.put(push) })
    }

    async fn register_sink(&self, _: &SinkName, _: Start) -> Result<(), Error> {
        Ok(())
    }

    async fn forget_sink(&self, _: &SinkName) -> Result<(), Error> {
        Ok(())
    }

    async fn sinks(&self) -> Result<Vec<SinkName>, Error> {
        Ok(Vec::new())
    }

    async fn set_paused(&self, _sink: &SinkName, _paused: bool) -> Result<(), Error> {
        Ok(())
    }

    async fn paused_sinks(&self) -> Result<Vec<SinkName>, Error> {
        Ok(Vec::new())
    }

    async fn lease(&self, sink: &SinkName, shard: u16) -> Result<Option<Lease>, Error> {
        let mut inner = self.inner.lock().unwrap();
        if inner.is_leased_elsewhere {
            return Ok(None);
        }
        inner.epoch += 1;
        inner.leases += 1;
        let fence = Fence { sink: sink.clone(), shard, epoch: inner.epoch };
        Ok(Some(Lease { fence, checkpoint: inner.checkpoint.clone() }))
    }

    async fn release(&self, _: &Fence) -> Result<(), Error> {
        let mut inner = self.inner.lock().unwrap();
        inner.epoch += 1;
        inner.releases += 1;
        Ok(())
    }

    async fn recalled(&self, _: &Fence) -> Recall {
        let mut recall = self.recall.subscribe();
        let asked = recall.wait_for(Option::is_some).await.expect("the journal lives");
        asked.expect("just seen")
    }

    async fn read(&self, _: u16, after: Offset, limits: ReadLimits) -> Result<Page, Error> {
        let mut inner = self.inner.lock().unwrap();
        if inner.refused_reads > 0 {
            inner.refused_reads -= 1;
            return Err(Error::Unavailable { cause: "scripted".into() });
        }
        let mut bytes = 0;
        let mut items = Vec::new();
        for item in inner.items.range(after.next()..).map(|(_, item)| item).take(limits.events_max) {
            bytes += item.entry().push.body.len();
            if bytes > limits.bytes_max && !items.is_empty() {
                break;
            }
            items.push(item.clone());
        }
        let end = items.last().map_or(after, |item| item.entry().offset);
        Ok(Page { items, end })
    }

    async fn wait_past(&self, _: u16, after: Offset, patience: Duration) {
        let grown = self.grown.notified();
        tokio::pin!(grown);
        grown.as_mut().enable();
        if self.last() <= after {
            tokio::time::timeout(patience, grown).await.ok();
        }
    }

    async fn commit(&self, fence: &Fence, checkpoint: &Checkpoint) -> Result<(), Error> {
        self.inner.lock().unwrap().write(fence, checkpoint)
    }

    async fn dead_letter(
        &self,
        fence: &Fence,
        letters: Vec<DeadLetter>,
        limit: u64,
        checkpoint: &Checkpoint,
    ) -> Result<(), Error> {
        let mut inner = self.inner.lock().unwrap();
        let new = letters.iter().filter(|letter| !inner.letters.contains_key(&letter.id)).count();
        if (inner.letters.len() + new) as u64 > limit {
            return Err(Error::DeadLettersFull { sink: fence.sink.clone(), limit });
        }
        inner.write(fence, checkpoint)?;
        inner.letters.extend(letters.into_iter().map(|letter| (letter.id.clone(), letter)));
        Ok(())
    }

    async fn keep_refused(&self, _: DeadLetter, _: u64) -> Result<(), Error> {
        Ok(())
    }

    async fn dead_letters(
        &self,
        selection: &Selection,
        after: Option<&DeadLetterId>,
        limit: usize,
    ) -> Result<DeadLetterPage, Error> {
        let inner = self.inner.lock().unwrap();
        let heads = inner.letters.values().map(DeadLetter::head).filter(|head| selection.matches(head));
        let mut heads: Vec<_> = heads.filter(|head| after.is_none_or(|after| head.id > *after)).collect();
        let next = (heads.len() > limit).then(|| heads[limit - 1].id.clone());
        heads.truncate(limit);
        Ok(DeadLetterPage { heads, next })
    }

    async fn dead_letter_of(&self, id: &DeadLetterId) -> Result<Option<DeadLetter>, Error> {
        Ok(self.inner.lock().unwrap().letters.get(id).cloned())
    }

    async fn update_dead_letters(&self, letters: Vec<DeadLetter>) -> Result<u64, Error> {
        let mut inner = self.inner.lock().unwrap();
        if inner.refused_writes > 0 {
            inner.refused_writes -= 1;
            return Err(Error::Unavailable { cause: "scripted".into() });
        }
        let mut updated = 0;
        for letter in letters {
            if let Some(kept) = inner.letters.get_mut(&letter.id) {
                *kept = letter;
                updated += 1;
            }
        }
        Ok(updated)
    }

    async fn purge_dead_letters(&self, ids: &[DeadLetterId]) -> Result<u64, Error> {
        let mut inner = self.inner.lock().unwrap();
        Ok(ids.iter().filter(|id| inner.letters.remove(id).is_some()).count() as u64)
    }

    fn dead_letters_len(&self, _: &SinkName) -> u64 {
        self.inner.lock().unwrap().letters.len() as u64
    }

    async fn backlog(&self, _: &SinkName) -> Option<Backlog> {
        let inner = self.inner.lock().unwrap();
        let Checkpoint { low, settled_above, .. } = &inner.checkpoint;
        let mut pending = inner.items.range(low.next()..).filter(|(offset, _)| !settled_above.contains(offset));
        let oldest_received_at = pending.clone().next().map(|(_, item)| item.entry().push.received_at);
        Some(Backlog { pending: pending.by_ref().count() as u64, oldest_received_at })
    }

    fn health(&self) -> Health {
        Health::default()
    }

    async fn close(&self) {}
}
