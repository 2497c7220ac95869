//! Commands that wait for nobody: on one shared connection per server, made when it is needed and dropped when it fails.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Pipeline, Value};

use super::connect::{Link, Node, Servers};
use super::faults::{Fault, check};
use super::keys::Keys;
use super::scripts::{Arg, Source};

pub(super) struct Calls {
    servers: Arc<Servers>,
    links: Mutex<HashMap<Node, Link>>,
    /// Held while one is being made, so that callers do not all make one.
    making: tokio::sync::Mutex<()>,
}

impl Calls {
    pub(super) fn new(servers: Arc<Servers>) -> Self {
        Self { servers, links: Mutex::default(), making: tokio::sync::Mutex::default() }
    }

    /// Runs a script on `shard`. It is sent a second time where the first failed in a way that another connection may mend, so it
    /// must be one that may run twice.
    pub(super) async fn script(
        &self,
        shard: u16,
        script: &Source,
        keys: &[String],
        args: &[Arg],
    ) -> Result<Value, Fault> {
        let called = self.one(shard, script.call(keys, args)).await;
        match called {
            Err(Fault::NoScript) => self.one(shard, script.teach(keys, args)).await,
            other => other,
        }
    }

    /// One command.
    pub(super) async fn one(&self, shard: u16, command: redis::Cmd) -> Result<Value, Fault> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(command);
        let mut values = self.all(shard, &pipeline).await?;
        values.pop().ok_or_else(|| Fault::Unknown { cause: "Redis did not answer".to_owned() })
    }

    /// Commands on keys of `shard`, none of which may fail.
    pub(super) async fn all(&self, shard: u16, pipeline: &Pipeline) -> Result<Vec<Value>, Fault> {
        match self.attempt(shard, pipeline).await {
            Err(fault) if fault.wants_another_link() => self.attempt(shard, pipeline).await,
            other => other,
        }
    }

    async fn attempt(&self, shard: u16, pipeline: &Pipeline) -> Result<Vec<Value>, Fault> {
        let mut link = self.link(shard).await?;
        let done = match link.send(pipeline).await {
            Ok(values) => values.into_iter().map(check).collect::<Result<Vec<_>, _>>(),
            Err(error) => Err(error.into()),
        };
        if let Err(fault) = &done
            && fault.wants_another_link()
        {
            self.drop_link(&link);
            self.servers.forget();
        }
        done
    }

    /// The connection to the server of `shard`.
    pub(super) async fn link(&self, shard: u16) -> Result<Link, Fault> {
        let node = self.servers.home(&Keys::tag(shard)).await?;
        if let Some(link) = self.known(&node) {
            return Ok(link);
        }
        let _one_at_a_time = self.making.lock().await;
        if let Some(link) = self.known(&node) {
            return Ok(link);
        }
        match self.servers.connect(&node, Duration::ZERO).await {
            Ok(link) => {
                self.links.lock().unwrap_or_else(PoisonError::into_inner).insert(node, link.clone());
                Ok(link)
            }
            Err(error) => {
                self.servers.forget();
                Err(error.into())
            }
        }
    }

    fn known(&self, node: &Node) -> Option<Link> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).get(node).cloned()
    }

    /// Lets go of a connection that failed, unless another took its place.
    pub(super) fn drop_link(&self, link: &Link) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if links.get(&link.node).is_some_and(|known| known.identity == link.identity) {
            links.remove(&link.node);
        }
    }
}
