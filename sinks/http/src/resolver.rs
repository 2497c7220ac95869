//! Names to addresses, those alone that may be connected to. It is asked for every new connection, and the addresses that it gives
//! are the ones connected to: there is no moment in between at which a name could change.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use sink_api::guard::Guard;

/// Where addresses of names come from.
#[async_trait]
pub(crate) trait Lookup: Send + Sync + 'static {
    /// All addresses of `host`. Their ports say nothing.
    async fn lookup(&self, host: &str) -> io::Result<Vec<SocketAddr>>;
}

/// The operating system's resolver.
pub(crate) struct System;

#[async_trait]
impl Lookup for System {
    async fn lookup(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.collect())
    }
}

/// A [`Lookup`] behind a [`Guard`], as the client library wants it.
pub(crate) struct GuardedResolver {
    pub guard: Guard,
    pub lookup: Arc<dyn Lookup>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, lookup) = (self.guard.clone(), Arc::clone(&self.lookup));
        Box::pin(async move {
            let found = lookup.lookup(name.as_str()).await?;
            let selected = guard.select(found)?;
            Ok(Box::new(selected.into_iter()) as Addrs)
        })
    }
}
