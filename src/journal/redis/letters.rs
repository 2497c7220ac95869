//! Dead letters in Redis: listing and reading them, page by page; replacing and removing them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use redis::{Value, cmd};

use super::calls::Calls;
use super::codec;
use super::faults::{Fault, array_of, number_of, numbers, odd};
use super::scripts::Arg;
use super::shared::Shared;
use crate::journal::codec::key_of;
use crate::journal::{DeadLetter, DeadLetterHead, DeadLetterId, DeadLetterPage, Selection};
use crate::names::{INGRESS, Offset, SinkName};

/// Letters looked at in one go.
const CHUNK: usize = 200;
/// Letters looked at for one page, at most: a page may be short although more follow.
const LOOKS_MAX: usize = 20_000;

impl Shared {
    /// The arguments of one letter for a script.
    pub(super) fn letter_args(letter: &DeadLetter) -> [Arg; 3] {
        let head = codec::letter_head(letter);
        [letter.id.offset().into(), head.into(), Arg::Bytes(letter.push.body.clone())]
    }

    fn letter_keys(&self, sink: &SinkName, shard: u16) -> [String; 2] {
        ["dl", "dx"].map(|name| self.keys.of_sink(shard, name, sink.as_str()))
    }

    pub(super) async fn keep_refused(&self, letter: DeadLetter, limit: u64) -> Result<(), Fault> {
        let sink = SinkName::from(INGRESS);
        let [letters, index] = self.letter_keys(&sink, 0);
        let keys = [self.keys.of(0, "meta"), letters, index, self.keys.of(0, "dk")];
        let mut known = key_of(&letter.push.source, &letter.push.id).to_vec();
        known.extend_from_slice(&crc32c::crc32c(&letter.push.body).to_le_bytes());
        let head = codec::letter_head(&letter);
        let args = [known.into(), head.into(), Arg::Bytes(letter.push.body), limit.into()];
        let kept = self.writes.script(0, &self.scripts.refuse, &keys, &args).await?;
        self.letters.set(&sink, 0, number_of(&kept).ok_or_else(|| odd(&kept))?);
        Ok(())
    }

    /// Behind `after`, by sink, shard and offset.
    pub(super) async fn page(
        &self,
        selection: &Selection,
        after: Option<&DeadLetterId>,
        limit: usize,
    ) -> Result<DeadLetterPage, Fault> {
        let mut page = DeadLetterPage::default();
        let mut looks = 0;
        for sink in self.letter_sinks(selection).await? {
            if after.is_some_and(|after| sink < after.sink) {
                continue;
            }
            let resumed = after.filter(|after| after.sink == sink);
            let shards = if sink.as_str() == INGRESS { 0..1 } else { self.all_shards() };
            for shard in shards.skip(resumed.map_or(0, |after| after.shard().into())) {
                let mut from = resumed.filter(|after| after.shard() == shard).map(DeadLetterId::offset);
                loop {
                    let heads = self.heads(&sink, shard, from).await?;
                    let Some((last, _)) = heads.last() else { break };
                    from = Some(*last);
                    for (offset, head) in heads {
                        looks += 1;
                        let id = DeadLetterId::of_entry(sink.clone(), shard, Offset(offset));
                        page.heads.extend(head.filter(|head| selection.matches(head)));
                        if page.heads.len() >= limit || looks >= LOOKS_MAX {
                            page.next = Some(id);
                            return Ok(page);
                        }
                    }
                }
            }
        }
        Ok(page)
    }

    async fn letter_sinks(&self, selection: &Selection) -> Result<BTreeSet<SinkName>, Fault> {
        if let Some(sink) = &selection.sink {
            return Ok(BTreeSet::from([sink.clone()]));
        }
        let mut sinks: BTreeSet<SinkName> = self.registered().await?.into_iter().collect();
        sinks.insert(SinkName::from(INGRESS));
        Ok(sinks)
    }

    /// A chunk of a shard's letters behind an offset. One whose head is damaged has none.
    async fn heads(
        &self,
        sink: &SinkName,
        shard: u16,
        after: Option<u64>,
    ) -> Result<Vec<(u64, Option<DeadLetterHead>)>, Fault> {
        let [letters, index] = self.letter_keys(sink, shard);
        let offsets = letter_offsets(&self.reads, &index, shard, after, CHUNK).await?;
        if offsets.is_empty() {
            return Ok(Vec::new());
        }
        let mut get = cmd("HMGET");
        get.arg(letters);
        for offset in &offsets {
            get.arg(format!("h{offset}"));
        }
        let heads = array_of(self.reads.one(shard, get).await?)?;
        let shown = |(offset, head): (u64, Value)| {
            let id = DeadLetterId::of_entry(sink.clone(), shard, Offset(offset));
            let head = if let Value::BulkString(head) = head { codec::shown(id, &head) } else { None };
            (offset, head)
        };
        Ok(offsets.into_iter().zip(heads).map(shown).collect())
    }

    pub(super) async fn letter(&self, id: &DeadLetterId) -> Result<Option<DeadLetter>, Fault> {
        if id.shard() >= self.options.shards {
            return Ok(None);
        }
        let [letters, _] = self.letter_keys(&id.sink, id.shard());
        let mut get = cmd("HMGET");
        get.arg(letters).arg(format!("h{}", id.offset())).arg(format!("b{}", id.offset()));
        let parts = array_of(self.reads.one(id.shard(), get).await?)?;
        let [Value::BulkString(head), Value::BulkString(body)] = parts.as_slice() else { return Ok(None) };
        Ok(codec::letter(id.clone(), head, Bytes::copy_from_slice(body)).map(|(letter, _is_whole)| letter))
    }

    pub(super) async fn update(&self, letters: Vec<DeadLetter>) -> Result<u64, Fault> {
        let mut by_place: BTreeMap<(SinkName, u16), Vec<Arg>> = BTreeMap::new();
        for letter in letters.iter().filter(|letter| letter.id.shard() < self.options.shards) {
            let place = (letter.id.sink.clone(), letter.id.shard());
            by_place.entry(place).or_default().extend(Self::letter_args(letter));
        }
        let mut replaced = 0;
        for ((sink, shard), args) in by_place {
            let [letters, index] = self.letter_keys(&sink, shard);
            let keys = [self.keys.of(shard, "meta"), letters, index];
            let said = self.writes.script(shard, &self.scripts.update, &keys, &args).await?;
            replaced += number_of(&said).ok_or_else(|| odd(&said))?;
        }
        Ok(replaced)
    }

    pub(super) async fn purge(&self, ids: &[DeadLetterId]) -> Result<u64, Fault> {
        let mut by_place: BTreeMap<(SinkName, u16), Vec<Arg>> = BTreeMap::new();
        for id in ids.iter().filter(|id| id.shard() < self.options.shards) {
            by_place.entry((id.sink.clone(), id.shard())).or_default().push(id.offset().into());
        }
        let mut removed = 0;
        for ((sink, shard), args) in by_place {
            let [letters, index] = self.letter_keys(&sink, shard);
            let keys = [self.keys.of(shard, "meta"), letters, index, self.keys.of(shard, "dk")];
            for chunk in args.chunks(CHUNK) {
                let said = self.writes.script(shard, &self.scripts.purge, &keys, chunk).await?;
                let [gone, left] = numbers(&said)?[..] else { return Err(odd(&said)) };
                removed += gone;
                self.letters.set(&sink, shard, left);
            }
        }
        Ok(removed)
    }
}

/// Offsets in the letter index `index` of a shard, behind `after`, at most `count`.
pub(super) async fn letter_offsets(
    calls: &Calls,
    index: &str,
    shard: u16,
    after: Option<u64>,
    count: usize,
) -> Result<Vec<u64>, Fault> {
    let from = after.map_or("-inf".to_owned(), |offset| format!("({offset}"));
    let mut range = cmd("ZRANGEBYSCORE");
    range.arg(index).arg(from).arg("+inf").arg("LIMIT").arg(0).arg(count);
    numbers(&calls.one(shard, range).await?)
}
