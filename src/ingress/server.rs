//! Binds the ingress and serves it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::handler::Handler;
use super::reply::LATE_HEADER;
use super::sources::{SourceError, Sources};
use crate::config::model;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::names::SourceName;
use crate::serve::tls::{Tls, TlsError};
use crate::serve::{self, Limits, Listener};
use crate::trace::Tracer;

/// The ingress could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(transparent)]
    Socket(#[from] serve::BindError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// Bound, and not serving yet: peers that connect wait.
pub struct Ingress {
    listener: Listener,
    sources: Sources,
    config: model::Ingress,
    journal: Arc<dyn Journal>,
    metrics: Metrics,
    tracer: Tracer,
}

impl Ingress {
    /// Resolves the sources' secrets, reads the certificates, and binds. Needs a tokio runtime around it.
    pub fn bind(
        config: &model::Ingress,
        sources: &BTreeMap<SourceName, model::Source>,
        journal: Arc<dyn Journal>,
        metrics: &Metrics,
    ) -> Result<Self, BindError> {
        let sources = Sources::new(sources, metrics)?;
        let not_after = || metrics.tls_not_after_seconds.clone();
        let tls = config.tls.clone().map(|files| Tls::load(files, config.http2, not_after())).transpose()?;
        let limits = Limits {
            connections_max: config.connections_max,
            handshake_timeout: config.handshake_timeout.0,
            header_timeout: config.header_timeout.0,
            idle_timeout: config.idle_timeout.0,
            http2: config.http2,
            late_body: LATE_HEADER,
            open: metrics.ingress.connections.clone(),
        };
        let listener = Listener::bind(config.listen, limits, tls)?;
        let (config, metrics) = (config.clone(), metrics.clone());
        Ok(Self { listener, sources, config, journal, metrics, tracer: Tracer::off() })
    }

    /// Begins spans with `tracer`.
    pub fn traced(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    /// From `leaving` on every reply ends its connection; see [`Listener::leave_on`].
    pub fn leave_on(self, leaving: CancellationToken) -> Self {
        Self { listener: self.listener.leave_on(leaving), ..self }
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    #[cfg(test)]
    pub(super) fn use_tls(&mut self, tls: Tls) {
        self.listener.use_tls(tls);
    }

    /// Replaces the sources while the ingress serves.
    pub fn sources(&self) -> Sources {
        self.sources.clone()
    }

    /// Serves until `stop`, then finishes the requests in hand; on `force` those that still wait for the journal are answered
    /// with 5032. Keeps the keys of identity providers fresh meanwhile. Returns when all connections are gone.
    pub async fn serve(self, stop: CancellationToken, force: CancellationToken) {
        let sources = self.sources.clone();
        let handler =
            Handler::new(&self.config, self.sources, self.journal, self.metrics.ingress, self.tracer, force.clone());
        let handler = Arc::new(handler);
        let serving = self.listener.serve(move |peer, request| handler.clone().answer(peer, request), stop, force);
        // Beside it, and not behind it: requests never wait for a fetch that they do not need.
        tokio::select! {
            () = serving => {}
            () = sources.keep_fresh() => {}
        }
    }
}
