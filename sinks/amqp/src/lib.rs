//! The sink `amqp`: events published to an exchange of RabbitMQ, as CloudEvents, by AMQP 0-9-1.
//!
//! It promises that `Delivered` means that the broker confirmed the message and did not return it, that every message is persistent
//! and mandatory under the event's id, and that no event of a key is published before an earlier one of it is confirmed. It refuses
//! to hold more than `unconfirmed_max` messages whose confirm is due, to wait for a broker that blocks publishers, and to repeat in
//! a fault what the URL holds of credentials.
//!
//! In reading order: what can be set (`settings`, `address`, `template`), what is sent (`message`), over what (`tls`, `wire`,
//! `topology`, `link`, `client`), in which order (`delivery`), how confirms and returns become answers (`publisher`), and what
//! faults mean (`error`).

mod settings;
mod address;
mod template;
mod message;
mod tls;
mod wire;
mod topology;
mod link;
mod client;
mod delivery;
mod publisher;
mod error;

use std::sync::Arc;

use async_trait::async_trait;
use sink_api::{Batch, BuildError, Context, Outcome, Problem, Sink, SinkKind, Unavailable};

use crate::client::Client;
use crate::message::Shape;
use crate::publisher::Publisher;
pub use crate::settings::{Declare, ExchangeType, Mode, QueueType, Settings};

/// The kind `amqp`.
pub struct Amqp;

impl SinkKind for Amqp {
    const KIND: &'static str = "amqp";
    type Settings = Settings;

    fn check(settings: &Settings, context: &Context) -> Vec<Problem> {
        settings.problems(context)
    }

    fn build(settings: Settings, context: Context) -> Result<Arc<dyn Sink>, BuildError> {
        let shape = Shape::new(&settings, context.format)?;
        Ok(Arc::new(AmqpSink { shape, client: Client::new(&settings, &context.name)? }))
    }
}

struct AmqpSink {
    shape: Shape,
    client: Client,
}

#[async_trait]
impl Sink for AmqpSink {
    async fn deliver(&self, batch: &Batch) -> Vec<Outcome> {
        match Publisher::open(&self.client, &self.shape).await {
            Ok(mut publisher) => {
                let outcomes = delivery::in_waves(&mut publisher, &batch.events, self.client.window()).await;
                publisher.close();
                outcomes
            }
            Err(error) => vec![error.outcome(0); batch.events.len()],
        }
    }

    async fn probe(&self) -> Result<(), Unavailable> {
        Ok(self.client.probe().await?)
    }

    async fn close(&self) {
        self.client.close().await;
    }
}
