//! Dead letters on disk: a log of its own per sink, and one for the ingress.

mod codec;
mod store;

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::oneshot;

use self::store::Store;
use super::checkpoints::unavailable;
use super::file_header::LogId;
use super::fs::FileSystem;
use super::layout::{Layout, OFFSET_END, decode_name, encode_name};
use super::report::{Reporter, move_aside};
use super::shared::lock;
use crate::journal::{DeadLetter, DeadLetterId, DeadLetterPage, Error, Selection};
use crate::names::{INGRESS, Offset, SinkName};

pub(super) use self::codec::letter;
pub(super) use self::store::scan_log;

/// The lower bits of a number are the entry's offset, the upper ones its shard, of which there is one here.
const OFFSET_MASK: u64 = OFFSET_END - 1;

type Outcome = Result<(), Error>;

/// What all logs need.
#[derive(Clone)]
pub(super) struct Context {
    pub fs: Arc<dyn FileSystem>,
    pub layout: Layout,
    pub reporter: Reporter,
    pub log_id: LogId,
}

pub(super) struct DeadLetters {
    context: Context,
    stores: RwLock<BTreeMap<SinkName, Arc<Store>>>,
    /// Refused pushes that wait to be written together.
    refused: Mutex<Vec<(DeadLetter, u64, oneshot::Sender<Outcome>)>>,
    /// Held by the one who writes them.
    writing_refused: tokio::sync::Mutex<()>,
}

impl DeadLetters {
    pub(super) fn load(context: Context) -> io::Result<Self> {
        let dir = context.layout.dead_letters();
        context.fs.create_dir_all(&dir)?;
        let mut stores = BTreeMap::new();
        for listed in context.fs.list(&dir)? {
            match decode_name(&listed.name).filter(|_| listed.is_dir) {
                Some(name) => {
                    let store = Store::open(&context, &dir.join(&listed.name))?;
                    stores.insert(SinkName::new(name), Arc::new(store));
                }
                None => move_aside(&*context.fs, &context.layout.quarantine(), &dir.join(&listed.name)),
            }
        }
        Ok(Self {
            context,
            stores: RwLock::new(stores),
            refused: Mutex::default(),
            writing_refused: tokio::sync::Mutex::default(),
        })
    }

    pub(super) fn len(&self, sink: &SinkName) -> u64 {
        self.find(sink).map_or(0, |store| store.len())
    }

    /// Bytes of all logs.
    pub(super) fn bytes(&self) -> u64 {
        self.stores.read().unwrap_or_else(PoisonError::into_inner).values().map(|store| store.bytes()).sum()
    }

    /// The offsets behind `low` whose entries are dead letters of `sink`.
    pub(super) fn offsets_behind(&self, sink: &SinkName, low: Offset) -> Vec<Offset> {
        let of = |number: u64| Offset(number & OFFSET_MASK);
        self.find(sink).map_or_else(Vec::new, |store| store.numbers_behind(low.0).into_iter().map(of).collect())
    }

    /// The greatest offset of which there is a dead letter.
    pub(super) fn greatest_offset(&self) -> u64 {
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        let sinks = stores.iter().filter(|(name, _)| name.as_str() != INGRESS);
        sinks.filter_map(|(_, store)| store.greatest_number()).map(|number| number & OFFSET_MASK).max().unwrap_or(0)
    }

    /// Keeps letters of a sink, unless there would be more than `limit`. Durable when it returns. Blocks.
    pub(super) fn keep(&self, sink: &SinkName, letters: &[DeadLetter], limit: u64) -> Result<(), Error> {
        if letters.is_empty() {
            return Ok(());
        }
        let store = self.find_or_make(sink).map_err(unavailable)?;
        match store.keep(letters, limit).map_err(unavailable)? {
            true => Ok(()),
            false => Err(Error::DeadLettersFull { sink: sink.clone(), limit }),
        }
    }

    /// Keeps a refused push. Calls that come together share a write and a sync.
    pub(super) async fn keep_refused(self: &Arc<Self>, letter: DeadLetter, limit: u64) -> Result<(), Error> {
        let (answer, mut answered) = oneshot::channel();
        lock(&self.refused).push((letter, limit, answer));
        let writing = self.writing_refused.lock().await;
        if let Ok(outcome) = answered.try_recv() {
            return outcome;
        }
        let this = Arc::clone(self);
        // Goes on to its end even if this call is given up.
        let written = tokio::task::spawn_blocking(move || this.write_refused()).await;
        drop(writing);
        match written {
            Ok(()) => answered.await.unwrap_or_else(|_| Err(gone())),
            Err(_) => Err(gone()),
        }
    }

    fn write_refused(&self) {
        let waiting = mem::take(&mut *lock(&self.refused));
        let Some(limit) = waiting.last().map(|(_, limit, _)| *limit) else { return };
        let (letters, answers): (Vec<_>, Vec<_>) =
            waiting.into_iter().map(|(letter, _, answer)| (letter, answer)).unzip();
        let outcome = self
            .find_or_make(&SinkName::from(INGRESS))
            .and_then(|store| store.keep_refused(letters, limit))
            .map_err(unavailable);
        for answer in answers {
            // Nobody waits any more where the caller went away.
            drop(answer.send(outcome.clone()));
        }
    }

    /// Blocks.
    pub(super) fn page(
        &self,
        selection: &Selection,
        after: Option<&DeadLetterId>,
        limit: usize,
    ) -> Result<DeadLetterPage, Error> {
        let stores: Vec<_> = {
            let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
            stores.iter().map(|(name, store)| (name.clone(), Arc::clone(store))).collect()
        };
        let mut page = DeadLetterPage::default();
        for (sink, store) in stores {
            let is_meant = selection.sink.as_ref().is_none_or(|meant| *meant == sink);
            let from = match after {
                Some(after) if sink < after.sink => continue,
                Some(after) if sink == after.sink => after.number + 1,
                _ => 0,
            };
            if !is_meant {
                continue;
            }
            let matching = store.heads_from(&sink, from, |head| selection.matches(head), limit + 1 - page.heads.len());
            page.heads.append(&mut matching.map_err(unavailable)?);
            if page.heads.len() > limit {
                page.heads.truncate(limit);
                page.next = page.heads.last().map(|head| head.id.clone());
                return Ok(page);
            }
        }
        Ok(page)
    }

    /// Blocks.
    pub(super) fn get(&self, id: &DeadLetterId) -> Result<Option<DeadLetter>, Error> {
        let Some(store) = self.find(&id.sink) else { return Ok(None) };
        store.get(&id.sink, id.number).map_err(unavailable)
    }

    /// Blocks.
    pub(super) fn update(&self, letters: Vec<DeadLetter>) -> Result<u64, Error> {
        let mut by_sink: BTreeMap<SinkName, Vec<DeadLetter>> = BTreeMap::new();
        for letter in letters {
            by_sink.entry(letter.id.sink.clone()).or_default().push(letter);
        }
        let mut updated = 0;
        for (sink, letters) in by_sink {
            if let Some(store) = self.find(&sink) {
                updated += store.update(&letters).map_err(unavailable)?;
            }
        }
        Ok(updated)
    }

    /// Blocks.
    pub(super) fn purge(&self, ids: &[DeadLetterId]) -> Result<u64, Error> {
        let mut numbers: BTreeMap<&SinkName, Vec<u64>> = BTreeMap::new();
        for id in ids {
            numbers.entry(&id.sink).or_default().push(id.number);
        }
        let mut purged = 0;
        for (sink, numbers) in numbers {
            if let Some(store) = self.find(sink) {
                purged += store.purge(&numbers).map_err(unavailable)?;
            }
        }
        Ok(purged)
    }

    /// Removes all letters of a sink and their files. Blocks.
    pub(super) fn forget(&self, sink: &SinkName) -> io::Result<()> {
        let mut stores = self.stores.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(sink) {
            store.remove_files()?;
            self.context.fs.sync_dir(&self.context.layout.dead_letters())?;
            stores.remove(sink);
        }
        Ok(())
    }

    fn find(&self, sink: &SinkName) -> Option<Arc<Store>> {
        self.stores.read().unwrap_or_else(PoisonError::into_inner).get(sink).cloned()
    }

    fn find_or_make(&self, sink: &SinkName) -> io::Result<Arc<Store>> {
        let mut stores = self.stores.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(sink) {
            return Ok(Arc::clone(store));
        }
        let parent = self.context.layout.dead_letters();
        let dir = parent.join(encode_name(sink.as_str()));
        self.context.fs.create_dir_all(&dir)?;
        self.context.fs.sync_dir(&parent)?;
        let store = Arc::new(Store::open(&self.context, &dir)?);
        stores.insert(sink.clone(), Arc::clone(&store));
        Ok(store)
    }
}

fn gone() -> Error {
    Error::Unavailable { cause: "the write was given up".to_owned() }
}
