//! The exchange, queue and binding that events go through: declared, or only looked for.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{Channel, ExchangeKind};

use crate::settings::{Declare, ExchangeType, QueueType, Settings};
use crate::template::Template;

#[derive(Debug, Clone)]
pub(crate) struct Topology {
    /// The exchange, where its name is the same for all events and it is not the default one, which is always there.
    exchange: Option<String>,
    declare: Option<Declare>,
}

impl Topology {
    pub(crate) fn new(settings: &Settings) -> Self {
        let exchange = Template::parse(&settings.exchange).ok();
        let exchange = exchange.as_ref().and_then(Template::fixed).filter(|name| !name.is_empty());
        Self { exchange: exchange.map(str::to_owned), declare: settings.declare.clone() }
    }

    /// Declares what is configured, which changes nothing where it is there already; without `declare` only looks for the exchange.
    pub(crate) async fn ensure(&self, channel: &Channel) -> lapin::Result<()> {
        let Some(declare) = &self.declare else { return self.look(channel).await };
        if let Some(exchange) = &self.exchange {
            let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            let kind = kind(declare.exchange_type);
            channel.exchange_declare(exchange.as_str().into(), kind, options, FieldTable::default()).await?;
        }
        let Some(queue) = &declare.queue else { return Ok(()) };
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.as_str().into(), options, arguments(declare.queue_type)).await?;
        if let Some(exchange) = &self.exchange {
            let (queue, exchange) = (queue.as_str().into(), exchange.as_str().into());
            let binding = declare.binding.as_str().into();
            channel.queue_bind(queue, exchange, binding, QueueBindOptions::default(), FieldTable::default()).await?;
        }
        Ok(())
    }

    /// Changes nothing. What would be declared need not be there.
    pub(crate) async fn look(&self, channel: &Channel) -> lapin::Result<()> {
        match (&self.exchange, &self.declare) {
            (Some(exchange), None) => {
                let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
                let kind = ExchangeKind::default();
                channel.exchange_declare(exchange.as_str().into(), kind, options, FieldTable::default()).await
            }
            _ => Ok(()),
        }
    }
}

fn kind(exchange_type: ExchangeType) -> ExchangeKind {
    match exchange_type {
        ExchangeType::Topic => ExchangeKind::Topic,
        ExchangeType::Direct => ExchangeKind::Direct,
        ExchangeType::Fanout => ExchangeKind::Fanout,
        ExchangeType::Headers => ExchangeKind::Headers,
    }
}

fn arguments(queue_type: QueueType) -> FieldTable {
    let name = match queue_type {
        QueueType::Quorum => "quorum",
        QueueType::Classic => "classic",
        QueueType::Stream => "stream",
    };
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(LongString::from(name)));
    arguments
}
