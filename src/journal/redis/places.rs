//! The places of sinks: registering and forgetting them, leasing their pipelines, settling, and how much lies before them.

use std::time::Instant;

use jiff::Timestamp;
use redis::{Pipeline, Value, cmd};

use super::codec;
use super::faults::{Fault, array_of, number_of, numbers, odd, text_of};
use super::leases::LEASE;
use super::log::entries_behind;
use super::scripts::Arg;
use super::shared::{Shared, lock};
use crate::journal::{Backlog, Checkpoint, DeadLetter, Error, Fence, Item, Lease, Page, ReadLimits, Start};
use crate::names::{Offset, SinkName};

/// Entries asked for at once, at most.
const READ_MAX: u64 = 512;
/// What an entry is thought to take before one was seen.
const ENTRY_GUESS: u64 = 2048;

impl Shared {
    pub(super) async fn register(&self, sink: &SinkName, start: Start) -> Result<(), Fault> {
        let from = match start {
            Start::Now => "now",
            Start::Oldest => "oldest",
        };
        // The first shard last: it is the one that says whether a sink is registered.
        for shard in self.all_shards().rev() {
            let keys = ["low", "meta", "log"].map(|name| self.keys.of(shard, name));
            let args = [sink.as_str().into(), from.into()];
            self.writes.script(shard, &self.scripts.register, &keys, &args).await?;
        }
        lock(&self.sinks).insert(sink.clone());
        Ok(())
    }

    pub(super) async fn forget(&self, sink: &SinkName) -> Result<(), Fault> {
        lock(&self.sinks).remove(sink);
        for shard in self.all_shards().rev() {
            let [low, state, meta] = ["low", "state", "meta"].map(|name| self.keys.of(shard, name));
            let [lease, letters, index] =
                ["lease", "dl", "dx"].map(|name| self.keys.of_sink(shard, name, sink.as_str()));
            let keys = [low, state, meta, lease, letters, index];
            self.writes.script(shard, &self.scripts.forget, &keys, &[sink.as_str().into()]).await?;
        }
        self.letters.forget(sink);
        Ok(())
    }

    /// The registered sinks, by name.
    pub(super) async fn registered(&self) -> Result<Vec<SinkName>, Fault> {
        let mut ask = cmd("HKEYS");
        ask.arg(self.keys.of(0, "low"));
        let names = array_of(self.reads.one(0, ask).await?)?;
        let mut names: Vec<SinkName> = names.iter().filter_map(text_of).map(SinkName::new).collect();
        names.sort_unstable();
        Ok(names)
    }

    pub(super) async fn set_paused(&self, sink: &SinkName, paused: bool) -> Result<(), Error> {
        if !self.registered().await?.contains(sink) {
            return Err(Error::UnknownSink(sink.clone()));
        }
        let mut ask = cmd(if paused { "HSET" } else { "HDEL" });
        ask.arg(self.keys.of(0, "state")).arg(format!("p:{sink}"));
        if paused {
            ask.arg(1);
        }
        self.writes.one(0, ask).await?;
        Ok(())
    }

    pub(super) async fn paused(&self) -> Result<Vec<SinkName>, Fault> {
        let sinks = self.registered().await?;
        if sinks.is_empty() {
            return Ok(sinks);
        }
        let mut ask = cmd("HMGET");
        ask.arg(self.keys.of(0, "state"));
        for sink in &sinks {
            ask.arg(format!("p:{sink}"));
        }
        let marks = array_of(self.reads.one(0, ask).await?)?;
        Ok(sinks.into_iter().zip(marks).filter(|(_, mark)| *mark != Value::Nil).map(|(sink, _)| sink).collect())
    }

    pub(super) async fn lease(&self, sink: &SinkName, shard: u16) -> Result<Option<Lease>, Error> {
        if shard >= self.options.shards || !self.leases.may_take(sink, shard, self.options.shards) {
            return Ok(None);
        }
        let keys = [
            self.keys.of(shard, "low"),
            self.keys.of(shard, "state"),
            self.keys.of_sink(shard, "lease", sink.as_str()),
        ];
        let args = [sink.as_str().into(), self.leases.owner.as_str().into(), (LEASE.as_millis() as u64).into()];
        let asked_at = Instant::now();
        let said = array_of(self.writes.script(shard, &self.scripts.lease, &keys, &args).await?)?;
        match said.as_slice() {
            [Value::Int(0), fence, low, checkpoint] => {
                let epoch = number_of(fence).unwrap_or(0);
                let low = Offset(number_of(low).unwrap_or(0));
                let kept = text_of(checkpoint).and_then(|text| serde_json::from_str::<Checkpoint>(&text).ok());
                let checkpoint =
                    kept.filter(|kept| kept.low == low).unwrap_or(Checkpoint { low, ..Checkpoint::default() });
                self.leases.took(sink, shard, epoch, asked_at, self.options.shards);
                let fence = Fence { sink: sink.clone(), shard, epoch };
                Ok(Some(Lease { fence, checkpoint }))
            }
            [Value::Int(1), ..] => {
                self.leases.was_refused(sink, shard);
                Ok(None)
            }
            [Value::Int(2)] => Err(Error::UnknownSink(sink.clone())),
            _ => Err(odd(&Value::Array(said)).into()),
        }
    }

    pub(super) async fn release(&self, fence: &Fence) -> Result<(), Fault> {
        self.leases.lost(fence);
        let keys = [self.keys.of(fence.shard, "state"), self.keys.of_sink(fence.shard, "lease", fence.sink.as_str())];
        let args = [fence.sink.as_str().into(), fence.epoch.into()];
        self.writes.script(fence.shard, &self.scripts.release, &keys, &args).await?;
        Ok(())
    }

    /// Keeps `letters` and replaces the checkpoint.
    pub(super) async fn settle(
        &self,
        fence: &Fence,
        letters: &[DeadLetter],
        limit: u64,
        checkpoint: &Checkpoint,
    ) -> Result<(), Error> {
        let (sink, shard) = (&fence.sink, fence.shard);
        let [low, state, meta] = ["low", "state", "meta"].map(|name| self.keys.of(shard, name));
        let [kept, index] = ["dl", "dx"].map(|name| self.keys.of_sink(shard, name, sink.as_str()));
        let json = serde_json::to_vec(checkpoint).expect("numbers and timestamps always serialise");
        let mut args: Vec<Arg> = vec![
            sink.as_str().into(),
            fence.epoch.into(),
            checkpoint.low.0.into(),
            json.into(),
            self.letters.of_others(sink, shard).into(),
            limit.into(),
        ];
        args.extend(letters.iter().flat_map(Self::letter_args));
        let said = self.writes.script(shard, &self.scripts.settle, &[low, state, meta, kept, index], &args).await?;
        match numbers(&said)?[..] {
            [0, count] => {
                if !letters.is_empty() {
                    self.letters.set(sink, shard, count);
                }
                Ok(())
            }
            [1] => {
                self.leases.lost(fence);
                Err(Error::UnknownSink(sink.clone()))
            }
            [2] => {
                self.leases.lost(fence);
                Err(Error::Fenced { sink: sink.clone(), shard })
            }
            [3, held] => {
                let cause = format!("a checkpoint at {} is not between {held} and the last entry", checkpoint.low);
                Err(Error::Unavailable { cause })
            }
            [4] => Err(Error::DeadLettersFull { sink: sink.clone(), limit }),
            _ => Err(odd(&said).into()),
        }
    }

    pub(super) async fn read(&self, shard: u16, after: Offset, limits: ReadLimits) -> Result<Page, Fault> {
        let mut page = Page { items: Vec::new(), end: after };
        let mut bytes = 0;
        while page.items.len() < limits.events_max.max(1) {
            let left = (limits.events_max.max(1) - page.items.len()) as u64;
            let count = left.min(self.entries_of(shard, limits.bytes_max.saturating_sub(bytes) as u64));
            let read = entries_behind(&self.reads, &self.keys, shard, page.end, count).await?;
            let is_last = (read.len() as u64) < count;
            for (offset, meta, body) in read {
                bytes += body.len();
                if !page.items.is_empty() && bytes > limits.bytes_max {
                    return Ok(page);
                }
                let item = codec::item(offset, &meta, body);
                if let Item::Corrupt { detail, .. } = &item {
                    self.count("corrupt");
                    tracing::error!(shard, %offset, detail, "journal data is damaged; it becomes a dead letter of every sink");
                }
                page.items.push(item);
                page.end = offset;
            }
            if is_last {
                break;
            }
        }
        Ok(page)
    }

    /// How many entries `bytes` are likely to hold.
    fn entries_of(&self, shard: u16, bytes: u64) -> u64 {
        let state = self.shard(shard);
        let [all, entries] = [&state.bytes, &state.entries].map(|of| of.load(std::sync::atomic::Ordering::Relaxed));
        let mean = all.checked_div(entries).unwrap_or(ENTRY_GUESS).max(1);
        (bytes / mean + 1).min(READ_MAX)
    }

    /// How much a sink has before it on one shard, and the last entry's offset.
    pub(super) async fn backlog_of(&self, sink: &SinkName, shard: u16) -> Result<Option<Backlog>, Fault> {
        let mut pipeline = Pipeline::with_capacity(3);
        pipeline.cmd("HGET").arg(self.keys.of(shard, "low")).arg(sink.as_str());
        pipeline.cmd("HGET").arg(self.keys.of(shard, "state")).arg(format!("c:{sink}"));
        pipeline.cmd("HMGET").arg(self.keys.of(shard, "meta")).arg("last").arg("lives");
        let said = self.reads.all(shard, &pipeline).await?;
        let [low, checkpoint, meta] = said.as_slice() else { return Err(odd(&Value::Array(said))) };
        if *low == Value::Nil {
            return Ok(None);
        }
        let low = number_of(low).unwrap_or(0);
        let checkpoint: Checkpoint =
            text_of(checkpoint).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let [last, lives] = &array_of(meta.clone())?[..] else { return Err(odd(meta)) };
        let lives = text_of(lives).unwrap_or_default();
        let behind = ordinal(&lives, number_of(last).unwrap_or(0)).saturating_sub(ordinal(&lives, low));
        let pending = behind.saturating_sub(checkpoint.settled_above.len() as u64);
        let oldest_received_at = match pending {
            0 => None,
            _ => self.oldest(shard, Offset(low), &checkpoint.settled_above).await?,
        };
        Ok(Some(Backlog { pending, oldest_received_at }))
    }

    async fn oldest(&self, shard: u16, low: Offset, settled: &[Offset]) -> Result<Option<Timestamp>, Fault> {
        let mut after = low;
        loop {
            // What is settled right behind `after` need not be read.
            while settled.binary_search(&after.next()).is_ok() {
                after = after.next();
            }
            let Some((offset, meta, body)) = entries_behind(&self.reads, &self.keys, shard, after, 1).await?.pop()
            else {
                return Ok(None);
            };
            if settled.binary_search(&offset).is_err() {
                return Ok(Some(codec::item(offset, &meta, body).entry().push.received_at));
            }
            after = offset;
        }
    }

    pub(super) async fn backlog(&self, sink: &SinkName) -> Result<Option<Backlog>, Fault> {
        let mut whole = Backlog::default();
        for shard in self.all_shards() {
            let Some(backlog) = self.backlog_of(sink, shard).await? else { return Ok(None) };
            whole.pending += backlog.pending;
            let both = [whole.oldest_received_at, backlog.oldest_received_at];
            whole.oldest_received_at = both.into_iter().flatten().min();
        }
        Ok(Some(whole))
    }
}

/// How many entries there ever were up to `offset`. `lives` holds, per life, where it begins and how many offsets up to there are no
/// entries.
fn ordinal(lives: &str, offset: u64) -> u64 {
    let parse = |life: &str| {
        let (start, skipped) = life.split_once(',')?;
        Some((start.parse::<u64>().ok()?, skipped.parse::<u64>().ok()?))
    };
    let lives: Vec<(u64, u64)> = lives.split(';').filter_map(parse).collect();
    let Some(at) = lives.iter().rposition(|(start, _)| *start <= offset) else { return 0 };
    let count = offset.saturating_sub(lives[at].1);
    // What a life gave and lost is no entry: the next one's beginning bounds it.
    lives.get(at + 1).map_or(count, |(start, skipped)| count.min(start.saturating_sub(*skipped)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_counted_over_lives() {
        // Five entries, then a life that begins at 100 and lost nothing, then one at 200 that lost the last two of three.
        let lives = "0,0;100,95;200,194";
        for (offset, count) in [(0, 0), (3, 3), (5, 5), (100, 5), (101, 6), (103, 6), (200, 6), (202, 8)] {
            assert_eq!(ordinal(lives, offset), count, "{offset}");
        }
        assert_eq!(ordinal("", 7), 0);
        assert_eq!(ordinal("4294967296,4294967296", 4294967298), 2);
    }
}
