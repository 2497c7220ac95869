//! The sink `http`: events posted to a URL, as CloudEvents, signed by Standard Webhooks.
//!
//! It promises that `Delivered` means a 2xx, that events of one key are posted one after the other and never past one that failed,
//! and that nothing is connected to but public addresses and the networks of `allow_networks`. It refuses to follow redirects, to
//! use proxies, and to repeat in a fault what the receiver says, the URL's query or credentials.
//!
//! In reading order: what can be set (`settings`, `address`), what is sent (`message`, `signature`, `headers`), over what
//! (`client`, `token`, `target`), in which order (`delivery`), and what the answers mean (`error`).

mod settings;
mod address;
mod message;
mod signature;
mod headers;
mod client;
mod token;
mod target;
mod delivery;
mod error;

use std::sync::Arc;

use async_trait::async_trait;
use sink_api::http::{Lookup, System};
use sink_api::{Batch, BuildError, Context, Event, Outcome, Problem, Sink, SinkKind, Unavailable};

use crate::delivery::Post;
use crate::message::Shape;
pub use crate::settings::{Auth, Mode, Secrets, Settings};
use crate::target::Target;

/// The kind `http`.
pub struct Http;

impl SinkKind for Http {
    const KIND: &'static str = "http";
    type Settings = Settings;

    fn check(settings: &Settings, context: &Context) -> Vec<Problem> {
        settings.problems(context)
    }

    fn build(settings: Settings, context: Context) -> Result<Arc<dyn Sink>, BuildError> {
        Ok(Arc::new(HttpSink::new(&settings, &context, Arc::new(System))?))
    }
}

struct HttpSink {
    shape: Shape,
    target: Target,
}

impl HttpSink {
    fn new(settings: &Settings, context: &Context, lookup: Arc<dyn Lookup>) -> Result<Self, BuildError> {
        let shape =
            Shape::of(settings.mode, context.format).map_err(|message| BuildError(format!("mode: {message}")))?;
        Ok(Self { shape, target: Target::new(settings, lookup)? })
    }
}

impl Post for HttpSink {
    async fn one(&self, event: &Event) -> Outcome {
        self.target.post(&self.shape.message(event)).await
    }

    async fn all(&self, events: &[&Event]) -> Outcome {
        self.target.post(&message::batch(events)).await
    }
}

#[async_trait]
impl Sink for HttpSink {
    async fn deliver(&self, batch: &Batch) -> Vec<Outcome> {
        match self.shape {
            Shape::Batch => delivery::together(self, &batch.events).await,
            Shape::Structured | Shape::Binary(_) | Shape::Bare(_) => delivery::one_by_one(self, &batch.events).await,
        }
    }

    async fn probe(&self) -> Result<(), Unavailable> {
        self.target.probe().await
    }

    async fn close(&self) {
        self.target.close();
    }
}

#[cfg(test)]
mod guarded_tests;
