//! Where a shard's position is kept: a record in the compacted topic `<journal prefix>.checkpoints`, written in the transaction of
//! the events it stands behind.
//!
//! | key | value | written |
//! |---|---|---|
//! | `<transactional id>` | `{"shard", "offset", "transaction"}` | with every batch |
//! | `<transactional id>/owner` | a word that is new each time | when a producer takes over the shard |
//!
//! Reading goes on to the owner's own word: all that was committed before it has been seen then, whatever other transactions are
//! still open.

use std::sync::Arc;

use rdkafka::Message as _;
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::BaseRecord;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use sink_api::Fault;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::debug;

use crate::client::{Clients, Live};
use crate::error;
use crate::flight::Ticket;

const PARTITION: i32 = 0;

/// More do not make it safer.
const REPLICAS_MAX: usize = 3;

/// A position and the transaction that wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub shard: u16,
    /// The last offset that is delivered.
    pub offset: u64,
    /// Tells whether a transaction with an unknown end was committed.
    pub transaction: String,
}

impl Checkpoint {
    /// Hands the record to the open transaction.
    pub(crate) fn write(&self, live: &Live, topic: &str, id: &str, ticket: Ticket) -> Result<(), RDKafkaErrorCode> {
        let value = serde_json::to_vec(self).expect("numbers and strings always serialise");
        send(live, topic, id, &value, ticket)
    }
}

/// Hands the word of a new owner to the open transaction.
pub(crate) fn write_owner(
    live: &Live,
    topic: &str,
    id: &str,
    word: &str,
    ticket: Ticket,
) -> Result<(), RDKafkaErrorCode> {
    send(live, topic, &owner_key(id), word.as_bytes(), ticket)
}

fn owner_key(id: &str) -> String {
    format!("{id}/owner")
}

fn send(live: &Live, topic: &str, key: &str, value: &[u8], ticket: Ticket) -> Result<(), RDKafkaErrorCode> {
    let record = BaseRecord::with_opaque_to(topic, Box::new(ticket)).key(key).payload(value).partition(PARTITION);
    live.producer()
        .send(record)
        .map_err(|(error, _)| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::InvalidArgument))
}

/// The last committed checkpoint of `id`, read up to the owner's `word`. Blocks until `deadline` at most.
pub(crate) fn read(
    clients: &Arc<Clients>,
    topic: &str,
    id: &str,
    word: &str,
    deadline: Instant,
) -> Result<Option<Checkpoint>, Fault> {
    let reader = clients.reader(id).map_err(|error| error::fault_of(&error))?;
    let mut partitions = TopicPartitionList::new();
    partitions
        .add_partition_offset(topic, PARTITION, Offset::Beginning)
        .and_then(|()| reader.assign(&partitions))
        .map_err(|error| error::fault_of(&error))?;
    let owner = owner_key(id);
    let mut last = None;
    let mut trouble = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let slow = || Fault::new("checkpoint", format!("the positions in topic {topic} could not be read in time"));
            return Err(trouble.unwrap_or_else(slow));
        }
        match reader.poll(left) {
            Some(Ok(record)) if record.key() == Some(owner.as_bytes()) && record.payload() == Some(word.as_bytes()) => {
                return Ok(last);
            }
            Some(Ok(record)) if record.key() == Some(id.as_bytes()) => {
                last = record.payload().and_then(|value| serde_json::from_slice(value).ok());
            }
            Some(Ok(_)) | None => {}
            Some(Err(error)) => {
                debug!(%error, "reading positions");
                trouble = Some(error::fault_of(&error));
            }
        }
    }
}

/// Makes the topic, unless it is there or we may not; then whoever writes to it finds out. Blocks.
pub(crate) fn ensure_topic(clients: &Clients, topic: &str, deadline: Instant) -> Result<(), Fault> {
    let Some(admin) = clients.admin() else { return Ok(()) };
    let admin = admin.map_err(|error| error::fault_of(&error))?;
    let patience = deadline.saturating_duration_since(Instant::now());
    let metadata = admin.inner().fetch_metadata(None, patience).map_err(|error| error::fault_of(&error))?;
    if metadata.topics().iter().any(|known| known.name() == topic) {
        return Ok(());
    }
    let replicas = metadata.brokers().len().clamp(1, REPLICAS_MAX);
    let min_insync = replicas.saturating_sub(1).max(1).to_string();
    let replication = TopicReplication::Fixed(i32::try_from(replicas).expect("at most three"));
    let wanted = NewTopic::new(topic, 1, replication)
        .set("cleanup.policy", "compact")
        .set("min.insync.replicas", &min_insync)
        .set("segment.bytes", "4194304")
        .set("min.cleanable.dirty.ratio", "0.1");
    let patience = deadline.saturating_duration_since(Instant::now());
    let options = AdminOptions::new().request_timeout(Some(patience)).operation_timeout(Some(patience));
    let created = Handle::current().block_on(admin.create_topics([&wanted], &options));
    for result in created.map_err(|error| error::fault_of(&error))? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed)) => {}
            Err((_, code)) => return Err(error::fault_of(&KafkaError::AdminOp(code))),
        }
    }
    Ok(())
}
