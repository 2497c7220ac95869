//! How the cluster is: whether it would take events, and whether its topics are as safe as they should be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminOptions, ResourceSpecifier};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::Producer as _;
use sink_api::{Batch, Fault, Outcome, Unavailable};
use tokio::runtime::Handle;
use tracing::{debug, warn};

use crate::client::{Clients, Live};
use crate::error;
use crate::plain::Plain;
use crate::topic::Template;

const LOOK_PATIENCE: Duration = Duration::from_secs(5);

/// Of how many topics something is remembered.
const TOPICS_MAX: usize = 1000;

pub(crate) struct Cluster {
    sink: String,
    template: Template,
    clients: Arc<Clients>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Action and source of the last event: few differ from the one before.
    last: (String, String),
    /// Topics that events went to, or were to go to.
    used: BTreeSet<String>,
    /// Topics that brokers said are not there.
    missing: BTreeSet<String>,
    min_insync: BTreeMap<String, usize>,
    warned: BTreeSet<String>,
}

/// A topic as the brokers see it.
#[derive(Debug, Clone, PartialEq)]
struct Topic {
    name: String,
    partitions: Vec<Partition>,
}

#[derive(Debug, Clone, PartialEq)]
struct Partition {
    has_leader: bool,
    replicas: usize,
    in_sync: usize,
}

impl Cluster {
    pub(crate) fn new(sink: &str, template: Template, clients: Arc<Clients>) -> Self {
        let mut known = Known::default();
        known.used.extend(template.fixed().map(str::to_owned));
        Self { sink: sink.to_owned(), template, clients, known: Mutex::new(known) }
    }

    /// Remembers which topics matter.
    pub(crate) fn note(&self, batch: &Batch, outcomes: &[Outcome]) {
        let mut known = self.known();
        for (event, outcome) in batch.events.iter().map(|entry| &entry.event).zip(outcomes) {
            let is_missing = matches!(outcome, Outcome::Unavailable { fault, .. } if is_about_a_missing_topic(fault));
            let is_as_before = known.last.0 == event.action && known.last.1 == event.pushsource;
            if (is_as_before && !is_missing) || known.used.len() >= TOPICS_MAX {
                continue;
            }
            known.last = (event.action.clone(), event.pushsource.clone());
            let topic = self.template.render(event);
            if is_missing {
                known.missing.insert(topic.clone());
            }
            known.used.insert(topic);
        }
    }

    pub(crate) async fn probe(&self, plain: &Plain) -> Result<(), Unavailable> {
        let live = plain.live()?;
        let looking = Arc::clone(&live);
        let topics = run(move || topics(&looking)).await?;
        self.learn_min_insync(&topics).await;
        self.warn_of_weak(&topics);
        let mut known = self.known();
        known.missing.retain(|name| !topics.iter().any(|topic| topic.name == *name));
        if let Some(name) = known.missing.first() {
            return Err(Fault::new("unknown-topic", format!("topic {name} does not exist; create it")));
        }
        topics.iter().filter(|topic| known.used.contains(&topic.name)).try_for_each(|topic| {
            let min_insync = known.min_insync.get(&topic.name).copied().unwrap_or(1);
            topic.judged(min_insync)
        })
    }

    /// Asks for the setting of topics that are new. Where we may not, or with OAUTHBEARER, it stays unknown.
    async fn learn_min_insync(&self, topics: &[Topic]) {
        let names = self.unknown_settings(topics);
        if names.is_empty() {
            return;
        }
        let clients = Arc::clone(&self.clients);
        match run(move || min_insync(&clients, &names)).await {
            Ok(found) => self.known().min_insync.extend(found),
            Err(fault) => {
                debug!(sink = %self.sink, code = %fault.code, reason = %fault.reason, "settings of topics unknown")
            }
        }
    }

    fn unknown_settings(&self, topics: &[Topic]) -> Vec<String> {
        let known = self.known();
        let is_new = |name: &String| self.is_ours(&known, name) && !known.min_insync.contains_key(name);
        topics.iter().map(|topic| &topic.name).filter(|name| is_new(name)).take(TOPICS_MAX).cloned().collect()
    }

    fn is_ours(&self, known: &Known, topic: &str) -> bool {
        known.used.contains(topic) || self.template.could_be(topic)
    }

    /// Says once per topic that what is confirmed there could be lost with one broker.
    fn warn_of_weak(&self, topics: &[Topic]) {
        let mut known = self.known();
        for topic in topics {
            if !self.is_ours(&known, &topic.name) || known.warned.len() >= TOPICS_MAX {
                continue;
            }
            let replicas = topic.partitions.iter().map(|partition| partition.replicas).min().unwrap_or_default();
            let min_insync = known.min_insync.get(&topic.name).copied();
            let is_weak = replicas < 2 || min_insync.is_some_and(|min_insync| min_insync < 2);
            if is_weak && known.warned.insert(topic.name.clone()) {
                warn!(sink = %self.sink, topic = %topic.name, replicas, min_insync, "weak topic: confirmed events may be on one broker alone");
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Topic {
    fn judged(&self, min_insync: usize) -> Result<(), Unavailable> {
        let name = &self.name;
        if self.partitions.iter().any(|partition| !partition.has_leader) {
            return Err(Fault::new("leader-not-available", format!("a partition of topic {name} has no leader")));
        }
        match self.partitions.iter().map(|partition| partition.in_sync).min() {
            Some(in_sync) if in_sync < min_insync => {
                let reason = format!("topic {name} has {in_sync} replicas in sync and needs {min_insync}");
                Err(Fault::new("not-enough-replicas", reason))
            }
            _ => Ok(()),
        }
    }
}

fn is_about_a_missing_topic(fault: &Fault) -> bool {
    matches!(&*fault.code, "unknown-topic" | "unknown-topic-or-partition")
}

/// Runs what blocks.
async fn run<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Fault::new("kafka-client", "looking at the cluster was cut short")),
    }
}

/// All topics: asking for one by name would create it where brokers do that.
fn topics(live: &Live) -> Result<Vec<Topic>, Fault> {
    let metadata = live.producer().client().fetch_metadata(None, LOOK_PATIENCE);
    let metadata = metadata.map_err(|error| live.watcher().trouble().unwrap_or_else(|| error::fault_of(&error)))?;
    let topic = |topic: &rdkafka::metadata::MetadataTopic| Topic {
        name: topic.name().to_owned(),
        partitions: topic
            .partitions()
            .iter()
            .map(|partition| Partition {
                has_leader: partition.leader() >= 0,
                replicas: partition.replicas().len(),
                in_sync: partition.isr().len(),
            })
            .collect(),
    };
    Ok(metadata.topics().iter().map(topic).collect())
}

fn min_insync(clients: &Clients, names: &[String]) -> Result<Vec<(String, usize)>, Fault> {
    let Some(admin) = clients.admin() else { return Ok(Vec::new()) };
    let admin = admin.map_err(|error| error::fault_of(&error))?;
    let topics: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let options = AdminOptions::new().request_timeout(Some(LOOK_PATIENCE));
    let described = Handle::current().block_on(admin.describe_configs(&topics, &options));
    let described = described.map_err(|error| error::fault_of(&error))?;
    let value = |found: Result<rdkafka::admin::ConfigResource, RDKafkaErrorCode>| {
        found.ok()?.get("min.insync.replicas")?.value.as_ref()?.parse().ok()
    };
    Ok(names.iter().zip(described).filter_map(|(name, found)| Some((name.clone(), value(found)?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(partitions: &[(bool, usize)]) -> Topic {
        let partition = |&(has_leader, in_sync): &(bool, usize)| Partition { has_leader, replicas: 3, in_sync };
        Topic { name: "t".into(), partitions: partitions.iter().map(partition).collect() }
    }

    #[test]
    fn a_topic_takes_events_while_every_partition_does() {
        assert_eq!(topic(&[(true, 2), (true, 3)]).judged(2), Ok(()));
        assert_eq!(topic(&[(true, 2), (true, 1)]).judged(2).unwrap_err().code, "not-enough-replicas");
        assert_eq!(topic(&[(true, 3), (false, 3)]).judged(2).unwrap_err().code, "leader-not-available");
    }
}
