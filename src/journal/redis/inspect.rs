//! Looking at a journal in Redis from outside: what is in it, and what is wrong with it.
//!
//! Read-only: it takes no lease and begins no life, so it works beside running gateways as well as without any. What they change while
//! it looks is looked at again before it is called wrong.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use redis::{Pipeline, Value, cmd};
use serde::Serialize;

use super::calls::Calls;
use super::codec;
use super::connect::{ConnectError, Servers};
use super::faults::{Fault, array_of, number_of, numbers, odd, text_of};
use super::keys::{FORMAT, Keys};
use super::letters::letter_offsets;
use super::log::entries_behind;
use super::options::Options;
use crate::journal::codec::key_of;
use crate::journal::{Checkpoint, DeadLetter, DeadLetterId, Entry, Item};
use crate::names::{INGRESS, Offset, SinkName};

/// Entries, and dead letters, asked for at once: they come with their bodies.
const CHUNK: usize = 64;
/// Looks at a sink's place, which a running pipeline changes all the time, before it is called wrong.
const LOOKS: usize = 5;

/// Why a journal in Redis could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("Redis refused: {0}")]
    Refused(String),
    #[error("Redis holds no journal whose keys begin with {prefix:?} (journal.redis.prefix)")]
    NotAJournal { prefix: String },
    #[error(
        "the journal in Redis was made by a later version (format {found}, this one knows {FORMAT}); run that version"
    )]
    NewerVersion { found: u64 },
}

impl From<Fault> for InspectError {
    fn from(fault: Fault) -> Self {
        Self::Refused(fault.cause())
    }
}

/// What [`Inspector::verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct VerifyReport {
    pub shards: u16,
    pub entries: u64,
    pub dead_letters: u64,
    /// Of entries and dead letters, as the journal counts them against `size_max`.
    pub bytes: u64,
    pub problems: Vec<Problem>,
}

/// Something that does not verify.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The key in Redis.
    pub key: String,
    /// The offset of the entry, where it is of one.
    pub offset: Option<u64>,
    /// `entry`, `mark`, `meta`, `checkpoint` or `dead-letter`.
    pub kind: &'static str,
    pub detail: String,
}

/// See the module.
pub struct Inspector {
    calls: Calls,
    keys: Keys,
    shards: u16,
    window: Duration,
}

impl Inspector {
    /// Connects and reads how the journal is laid out.
    ///
    /// # Errors
    /// See [`InspectError`].
    pub async fn connect(options: &Options) -> Result<Self, InspectError> {
        let calls = Calls::new(Arc::new(Servers::new(options.place.clone())?));
        let keys = Keys::new(&options.prefix);
        let mut ask = cmd("HMGET");
        ask.arg(keys.of(0, "meta")).arg("shards").arg("format");
        let said = calls.one(0, ask).await?;
        let [shards, format] = numbers(&said)?[..] else { return Err(odd(&said).into()) };
        if format > FORMAT {
            return Err(InspectError::NewerVersion { found: format });
        }
        match u16::try_from(shards) {
            Ok(shards) if shards > 0 => Ok(Self { calls, keys, shards, window: options.dedup_window }),
            _ => Err(InspectError::NotAJournal { prefix: options.prefix.clone() }),
        }
    }

    /// Gives every entry that is held to `take`, with its body as it is, by shard and offset.
    ///
    /// # Errors
    /// See [`InspectError`].
    pub async fn entries(&self, mut take: impl FnMut(u16, Entry)) -> Result<(), InspectError> {
        for shard in 0..self.shards {
            let mut after = Offset::ZERO;
            loop {
                let items = self.page(shard, after).await?;
                let Some(last) = items.last() else { break };
                after = last.entry().offset;
                for item in items {
                    let (Item::Entry(entry) | Item::Corrupt { entry, .. }) = item;
                    take(shard, entry);
                }
            }
        }
        Ok(())
    }

    /// How far `sink` has settled, by shard; nothing settled where the journal does not know it.
    ///
    /// # Errors
    /// See [`InspectError`].
    pub async fn checkpoints(&self, sink: &SinkName) -> Result<Vec<Checkpoint>, InspectError> {
        let mut checkpoints = Vec::new();
        for shard in 0..self.shards {
            let checkpoint = match self.place(shard, sink).await? {
                Place::Sound(checkpoint) => checkpoint,
                Place::Odd { low, .. } => Checkpoint { low, ..Checkpoint::default() },
            };
            checkpoints.push(checkpoint);
        }
        Ok(checkpoints)
    }

    /// The dead letters that are kept for `sink`, by rising number. Those whose head is damaged are passed over.
    ///
    /// # Errors
    /// See [`InspectError`].
    pub async fn dead_letters(&self, sink: &SinkName) -> Result<Vec<DeadLetter>, InspectError> {
        let mut letters = Vec::new();
        for shard in 0..self.shards {
            self.each_letter(shard, sink, |letter| letters.extend(letter.ok().map(|(letter, _)| letter))).await?;
        }
        Ok(letters)
    }

    /// Reads everything and says what does not verify.
    ///
    /// # Errors
    /// See [`InspectError`].
    pub async fn verify(&self) -> Result<VerifyReport, InspectError> {
        let mut report = VerifyReport { shards: self.shards, ..VerifyReport::default() };
        for shard in 0..self.shards {
            self.verify_meta(shard, &mut report).await?;
            self.verify_entries(shard, &mut report).await?;
            let sinks = self.sinks(shard).await?;
            for sink in &sinks {
                if let Place::Odd { detail, .. } = self.place(shard, sink).await? {
                    let key = self.keys.of(shard, "state");
                    report.problems.push(Problem { key, offset: None, kind: "checkpoint", detail });
                }
            }
            let of_ingress = (shard == 0).then(|| SinkName::from(INGRESS));
            for sink in sinks.iter().chain(&of_ingress) {
                self.verify_letters(shard, sink, &mut report).await?;
            }
        }
        Ok(report)
    }

    async fn sinks(&self, shard: u16) -> Result<Vec<SinkName>, Fault> {
        let mut ask = cmd("HKEYS");
        ask.arg(self.keys.of(shard, "low"));
        let names = array_of(self.calls.one(shard, ask).await?)?;
        Ok(names.iter().filter_map(text_of).map(SinkName::new).collect())
    }

    async fn page(&self, shard: u16, after: Offset) -> Result<Vec<Item>, Fault> {
        let read = entries_behind(&self.calls, &self.keys, shard, after, CHUNK as u64).await?;
        Ok(read.into_iter().map(|(offset, meta, body)| codec::item(offset, &meta, body)).collect())
    }

    async fn verify_meta(&self, shard: u16, report: &mut VerifyReport) -> Result<(), Fault> {
        let key = self.keys.of(shard, "meta");
        let mut ask = cmd("HMGET");
        ask.arg(&key).arg(&["life", "seq", "bytes", "base", "letters"]);
        let fields = array_of(self.calls.one(shard, ask).await?)?;
        if fields.iter().any(|field| text_of(field).is_none()) {
            let detail = "it is missing, or lacks a field: this shard was lost, or never used".to_owned();
            report.problems.push(Problem { key, offset: None, kind: "meta", detail });
            return Ok(());
        }
        let number = |at: usize| fields.get(at).and_then(number_of).unwrap_or(0);
        report.bytes += number(2).saturating_sub(number(3)) + number(4);
        Ok(())
    }

    async fn verify_entries(&self, shard: u16, report: &mut VerifyReport) -> Result<(), Fault> {
        let key = self.keys.of(shard, "log");
        let mut after = Offset::ZERO;
        loop {
            let items = self.page(shard, after).await?;
            let Some(last) = items.last() else { return Ok(()) };
            after = last.entry().offset;
            report.entries += items.len() as u64;
            let mut sound = Vec::new();
            for item in items {
                match item {
                    Item::Entry(entry) => sound.push(entry),
                    Item::Corrupt { entry, detail } => {
                        let offset = Some(entry.offset.0);
                        report.problems.push(Problem { key: key.clone(), offset, kind: "entry", detail });
                    }
                }
            }
            self.verify_marks(shard, &sound, report).await?;
        }
    }

    /// Each entry within the window has a mark that leads to it; one that lost its mark would be accepted a second time.
    async fn verify_marks(&self, shard: u16, entries: &[Entry], report: &mut VerifyReport) -> Result<(), Fault> {
        let window_ms = u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX).max(1);
        let since = Timestamp::now().as_millisecond().saturating_sub_unsigned(window_ms);
        let entries: Vec<_> = entries.iter().filter(|entry| entry.push.received_at.as_millisecond() > since).collect();
        if entries.is_empty() {
            return Ok(());
        }
        let mut pipeline = Pipeline::with_capacity(entries.len() * 3);
        let mut keys = Vec::with_capacity(entries.len());
        for entry in &entries {
            let key = key_of(&entry.push.source, &entry.push.id);
            let received_ms = u64::try_from(entry.push.received_at.as_millisecond()).unwrap_or(0);
            let buckets = self.keys.marks(shard, &key, received_ms, window_ms);
            for bucket in &buckets {
                pipeline.cmd("HGET").arg(bucket).arg(&key[..]);
            }
            keys.push(buckets);
        }
        let marks = self.calls.all(shard, &pipeline).await?;
        for ((entry, [_, key, _]), marks) in entries.iter().zip(keys).zip(marks.chunks(3)) {
            let leads_here = |mark: &Value| match mark {
                Value::BulkString(mark) => codec::marked_offset(mark) == Some(entry.offset),
                _ => false,
            };
            if !marks.iter().any(leads_here) {
                let detail = format!("no mark leads to push {}: a resend would be accepted again", entry.push.id);
                report.problems.push(Problem { key, offset: Some(entry.offset.0), kind: "mark", detail });
            }
        }
        Ok(())
    }

    /// A sink's place. Its two values are replaced together, but read one after the other.
    async fn place(&self, shard: u16, sink: &SinkName) -> Result<Place, Fault> {
        let mut looks = 0;
        loop {
            let mut pipeline = Pipeline::with_capacity(2);
            pipeline.cmd("HGET").arg(self.keys.of(shard, "low")).arg(sink.as_str());
            pipeline.cmd("HGET").arg(self.keys.of(shard, "state")).arg(format!("c:{sink}"));
            let said = self.calls.all(shard, &pipeline).await?;
            let [low, kept] = said.as_slice() else { return Err(odd(&Value::Array(said))) };
            let low = Offset(number_of(low).unwrap_or(0));
            let Some(text) = text_of(kept) else {
                return Ok(Place::Sound(Checkpoint { low, ..Checkpoint::default() }));
            };
            let detail = match serde_json::from_str::<Checkpoint>(&text) {
                Ok(checkpoint) if checkpoint.low == low => return Ok(Place::Sound(checkpoint)),
                Ok(checkpoint) => format!("sink {sink} is at {low}, its checkpoint at {}", checkpoint.low),
                Err(error) => format!("the checkpoint of sink {sink} cannot be read: {error}"),
            };
            looks += 1;
            if looks == LOOKS {
                return Ok(Place::Odd { low, detail });
            }
        }
    }

    async fn verify_letters(&self, shard: u16, sink: &SinkName, report: &mut VerifyReport) -> Result<(), Fault> {
        let key = self.keys.of_sink(shard, "dl", sink.as_str());
        self.each_letter(shard, sink, |letter| {
            report.dead_letters += 1;
            let (offset, detail) = match letter {
                Ok((_, true)) => return,
                Ok((letter, false)) => (letter.id.offset(), "the payload does not match its checksum"),
                Err((offset, detail)) => (offset, detail),
            };
            let detail = detail.to_owned();
            report.problems.push(Problem { key: key.clone(), offset: Some(offset), kind: "dead-letter", detail });
        })
        .await
    }

    /// Gives every letter of a shard to `take`: with whether its payload is whole, or its offset and what is wrong.
    async fn each_letter(
        &self,
        shard: u16,
        sink: &SinkName,
        mut take: impl FnMut(Result<(DeadLetter, bool), (u64, &'static str)>),
    ) -> Result<(), Fault> {
        let [key, index] = ["dl", "dx"].map(|name| self.keys.of_sink(shard, name, sink.as_str()));
        let mut after = None;
        loop {
            let offsets = letter_offsets(&self.calls, &index, shard, after, CHUNK).await?;
            let Some(last) = offsets.last() else { return Ok(()) };
            after = Some(*last);
            let mut pipeline = Pipeline::with_capacity(offsets.len() * 2);
            for offset in &offsets {
                pipeline.cmd("HMGET").arg(&key).arg(format!("h{offset}")).arg(format!("b{offset}"));
                // It may have been removed since the index was read.
                pipeline.cmd("ZSCORE").arg(&index).arg(*offset);
            }
            let said = self.calls.all(shard, &pipeline).await?;
            for (offset, said) in offsets.into_iter().zip(said.chunks(2)) {
                let [parts, score] = said else { return Err(odd(&Value::Array(said.to_vec()))) };
                if *score == Value::Nil {
                    continue;
                }
                let id = DeadLetterId::of_entry(sink.clone(), shard, Offset(offset));
                take(match &array_of(parts.clone())?[..] {
                    [Value::BulkString(head), Value::BulkString(body)] => {
                        let body = Bytes::copy_from_slice(body);
                        codec::letter(id, head, body).ok_or((offset, "what describes it is damaged"))
                    }
                    _ => Err((offset, "it is in the index but not there")),
                });
            }
        }
    }
}

/// Where a sink is on a shard.
enum Place {
    Sound(Checkpoint),
    /// Its two values say different things, or one cannot be read.
    Odd {
        low: Offset,
        detail: String,
    },
}
