//! What an operator asks: who has which pipeline, how far behind it is, and what the servers promise.

use std::time::Duration;

use redis::cmd;

use super::faults::{Fault, text_of};
use super::options::Durability;
use super::policy::Promise;
use super::shared::Shared;
use crate::journal::{Promises, Share};
use crate::names::SinkName;

impl Shared {
    /// By rising shard; empty for a sink that is not registered.
    pub(super) async fn shares(&self, sink: &SinkName) -> Result<Vec<Share>, Fault> {
        let mut shares = Vec::new();
        for shard in self.all_shards() {
            let Some(backlog) = self.backlog_of(sink, shard).await? else { return Ok(Vec::new()) };
            let mut ask = cmd("GET");
            ask.arg(self.keys.of_sink(shard, "lease", sink.as_str()));
            let owner = text_of(&self.reads.one(shard, ask).await?);
            let is_ours = owner.as_deref() == Some(self.leases.owner.as_str());
            shares.push(Share { shard, owner, is_ours, backlog });
        }
        Ok(shares)
    }

    pub(super) async fn promises(&self) -> Option<Promises> {
        let durability = match self.options.durability {
            Durability::Fsync => "fsync",
            Durability::Replicated => "replicated",
            Durability::Strict => "strict",
            Durability::Relaxed => "relaxed",
        };
        let mut promises = Promises { durability, ..Promises::default() };
        for node in self.servers.masters().await.ok()? {
            let mut link = self.servers.connect(&node, Duration::ZERO).await.ok()?;
            let promise = Promise::of(&mut link).await.ok()?;
            promises.servers.push(format!("{node}: {promise}"));
            let short = promise.shortfalls(&self.options);
            promises.shortfalls.extend(short.into_iter().map(|what| format!("{node}: {what}")));
        }
        Some(promises)
    }
}
