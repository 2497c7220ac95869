//! The sink `kafka`: events in Kafka topics, confirmed by all in-sync replicas.
//!
//! It promises that `Delivered` means acks=all, or with `transactional` a committed transaction; that events of one key lie in one
//! partition in their order, none ahead of one that failed; and that nothing of a record but the payload, its attributes and
//! its key is sent. It refuses librdkafka properties under which that would not hold. It never creates a topic but the compacted
//! one that transactions keep their positions in.
//!
//! ```text
//!               ┌─ plain ───────── one idempotent producer, all batches in flight at once
//! batch ─ sink ─┤
//!               └─ transactions ── a producer per shard: events and position in one transaction
//! ```
//!
//! In reading order: what can be set (`settings`, `properties`, `topic`), what is sent (`message`), over what (`client`, `token`),
//! how it lands (`flight`, `plain`; `checkpoint`, `transactions`), whether the cluster is well (`cluster`), and what its errors
//! mean (`error`).

mod settings;
mod properties;
mod topic;
mod message;
mod client;
mod token;
mod flight;
mod plain;
mod checkpoint;
mod transactions;
mod cluster;
mod error;

use std::sync::Arc;

use async_trait::async_trait;
use sink_api::{Batch, BuildError, Context, Needs, Origin, Outcome, Problem, Sink, SinkKind, Unavailable};

use crate::client::Clients;
use crate::cluster::Cluster;
use crate::message::Writer;
use crate::plain::Plain;
pub use crate::properties::Property;
pub use crate::settings::{Mode, Sasl, Settings};
use crate::transactions::Transactions;

/// The kind `kafka`.
pub struct Kafka;

impl SinkKind for Kafka {
    const KIND: &'static str = "kafka";
    type Settings = Settings;

    fn check(settings: &Settings, context: &Context) -> Vec<Problem> {
        settings.problems(context)
    }

    fn build(settings: Settings, context: Context) -> Result<Arc<dyn Sink>, BuildError> {
        Ok(Arc::new(KafkaSink::new(&settings, &context)?))
    }
}

struct KafkaSink {
    cluster: Cluster,
    /// Delivers, unless there are transactions; asks the cluster how it is in either case.
    plain: Plain,
    transactions: Option<Transactions>,
}

impl KafkaSink {
    fn new(settings: &Settings, context: &Context) -> Result<Self, BuildError> {
        let clients = Arc::new(Clients::new(settings)?);
        let writer = Arc::new(Writer::new(settings, context)?);
        let transactions =
            settings.transactional.then(|| Transactions::new(&context.name, Arc::clone(&clients), Arc::clone(&writer)));
        Ok(Self {
            cluster: Cluster::new(&context.name, writer.template().clone(), Arc::clone(&clients)),
            plain: Plain::new(clients, writer),
            transactions,
        })
    }
}

#[async_trait]
impl Sink for KafkaSink {
    async fn deliver(&self, batch: &Batch) -> Vec<Outcome> {
        let outcomes = match &self.transactions {
            None => self.plain.deliver(&batch.events).await,
            Some(transactions) => transactions.deliver(batch).await,
        };
        self.cluster.note(batch, &outcomes);
        outcomes
    }

    async fn probe(&self) -> Result<(), Unavailable> {
        self.cluster.probe(&self.plain).await
    }

    fn needs(&self) -> Needs {
        Needs { stable_batches: false, resumes_positions: self.transactions.is_some() }
    }

    fn belong_to(&self, origin: &Origin) {
        if let Some(transactions) = &self.transactions {
            transactions.belong_to(origin);
        }
    }

    async fn resume(&self, shard: u16) -> Result<Option<u64>, Unavailable> {
        match &self.transactions {
            None => Ok(None),
            Some(transactions) => transactions.resume(shard).await,
        }
    }

    async fn close(&self) {
        self.plain.close().await;
        if let Some(transactions) = &self.transactions {
            transactions.close().await;
        }
    }
}
