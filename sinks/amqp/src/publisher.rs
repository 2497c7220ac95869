//! From confirms and returned messages to an answer for each event.
//!
//! A message that no queue takes comes back, and is confirmed all the same. The broker sends the return first; but where it
//! confirms several messages at once, the client library hands the returned one to any of them. So one channel belongs to one batch,
//! a wave is judged only when every confirm of it is in, and a returned message is known by its `message_id`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, BasicQosOptions};
use lapin::{Channel, Confirmation};
use sink_api::{Event, Outcome};
use tokio::time::{Instant, interval, timeout, timeout_at};

use crate::client::Client;
use crate::delivery::Publish;
use crate::error::Error;
use crate::link::Link;
use crate::message::{Message, Shape};

/// How often a wave that waits for confirms looks whether the broker blocks.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// For an answer that shows that all confirms before it were read.
const FENCE_PATIENCE: Duration = Duration::from_secs(1);

/// Publishes the waves of one batch on a channel of its own.
pub(crate) struct Publisher<'a> {
    client: &'a Client,
    shape: &'a Shape,
    link: Arc<Link>,
    channel: Channel,
    deadline: Instant,
    /// Something is due on the channel, or it is dead.
    is_spent: bool,
}

type Answer = Result<Confirmation, lapin::Error>;

/// Why a wave ended before all its confirms were in.
enum Cut {
    Blocked(Error),
    Timeout,
}

impl<'a> Publisher<'a> {
    pub(crate) async fn open(client: &'a Client, shape: &'a Shape) -> Result<Self, Error> {
        let (link, channel) = client.with_link(async |link| link.channel(&client.topology).await).await?;
        let deadline = Instant::now() + client.batch_timeout();
        Ok(Self { client, shape, link, channel, deadline, is_spent: false })
    }

    /// Gives the channel back if nothing is due on it.
    pub(crate) fn close(self) {
        if !self.is_spent {
            self.link.give_back(self.channel);
        }
    }

    /// All confirms that came, in the order of `messages`, and why some did not.
    async fn confirms(&self, messages: &[Message]) -> (Vec<Option<Answer>>, Option<Cut>) {
        let mut answers: Vec<Option<Answer>> = messages.iter().map(|_| None).collect();
        let numbered = messages.iter().enumerate();
        let mut due: FuturesUnordered<_> =
            numbered.map(|(index, message)| async move { (index, self.confirmed(message).await) }).collect();
        let deadline = Instant::now() + self.client.timeout;
        let mut look = interval(LOOK_INTERVAL);
        let cut = loop {
            tokio::select! {
                biased;
                next = due.next() => match next {
                    Some((index, answer)) => answers[index] = Some(answer),
                    None => break None,
                },
                _ = look.tick() => {
                    if let Some(blocked) = self.link.blocked() {
                        break Some(Cut::Blocked(blocked));
                    }
                    if Instant::now() >= deadline {
                        break Some(Cut::Timeout);
                    }
                }
            }
        };
        // A return may still be on its way to another confirm. Once the broker has answered something later, it is not.
        let is_known = match cut {
            None => true,
            Some(Cut::Blocked(_)) => false,
            Some(Cut::Timeout) => self.fence().await,
        };
        if !is_known {
            answers.iter_mut().for_each(|answer| *answer = None);
            return (answers, cut);
        }
        while let Some(Some((index, answer))) = futures::FutureExt::now_or_never(due.next()) {
            answers[index] = Some(answer);
        }
        (answers, cut)
    }

    async fn confirmed(&self, message: &Message) -> Answer {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let Message { exchange, routing_key, properties, body } = message;
        let published =
            self.channel.basic_publish(exchange.clone(), routing_key.clone(), options, body, properties.clone());
        published.await?.await
    }

    async fn fence(&self) -> bool {
        let asked = self.channel.basic_qos(0, BasicQosOptions::default());
        matches!(timeout(FENCE_PATIENCE, asked).await, Ok(Ok(())))
    }

    /// What each message's answer means.
    async fn judge(&mut self, messages: &[Message], answers: Vec<Option<Answer>>, cut: Option<Cut>) -> Vec<Outcome> {
        let place = self.client.place();
        let any_confirmed = answers.iter().any(|answer| matches!(answer, Some(Ok(_))));
        let missing = match cut {
            Some(Cut::Blocked(blocked)) => blocked,
            Some(Cut::Timeout) if any_confirmed => Error::Slow { place: place.clone() },
            Some(Cut::Timeout) | None => Error::Silent { place: place.clone() },
        };
        let mut returned = HashSet::new();
        let mut judged = Vec::with_capacity(messages.len());
        let mut is_lost = false;
        for answer in answers {
            judged.push(match answer {
                Some(Ok(Confirmation::Ack(message))) => {
                    returned.extend(message.and_then(id));
                    None
                }
                Some(Ok(Confirmation::Nack(message))) => {
                    returned.extend(message.and_then(id));
                    Some(Error::Nacked { place: place.clone() })
                }
                Some(Ok(Confirmation::NotRequested)) => Some(Error::Silent { place: place.clone() }),
                Some(Err(error)) => {
                    is_lost = true;
                    Some(Error::of(&error, &place))
                }
                None => Some(missing.clone()),
            });
        }
        if judged.iter().flatten().any(|error| matches!(error, Error::Silent { .. })) {
            self.link.cut();
            is_lost = true;
        }
        if is_lost {
            // What was declared may be gone, and what is due here must not be mistaken for what comes next.
            self.client.forget(&self.link).await;
        }
        let outcome = |(error, message): (Option<Error>, &Message)| match error {
            None if returned.contains(id_of(message)) => {
                let (exchange, routing_key) = (message.exchange.to_string(), message.routing_key.to_string());
                Error::Unroutable { place: place.clone(), exchange, routing_key }.outcome(message.body.len())
            }
            None => Outcome::delivered(),
            Some(error) => error.outcome(message.body.len()),
        };
        judged.into_iter().zip(messages).map(outcome).collect()
    }
}

impl Publish for Publisher<'_> {
    async fn publish(&mut self, events: &[&Event]) -> Vec<Outcome> {
        let messages: Vec<Message> = events.iter().map(|event| self.shape.message(event)).collect();
        let count = u32::try_from(messages.len()).unwrap_or(u32::MAX);
        let Ok(Ok(_permits)) = timeout_at(self.deadline, self.client.unconfirmed.acquire_many(count)).await else {
            let full = Error::Full { place: self.client.place() };
            return vec![full.outcome(0); messages.len()];
        };
        self.is_spent = true;
        let (answers, cut) = self.confirms(&messages).await;
        self.is_spent = cut.is_some() || !answers.iter().all(|answer| matches!(answer, Some(Ok(_))));
        self.judge(&messages, answers, cut).await
    }

    fn is_over(&self) -> bool {
        self.is_spent || Instant::now() >= self.deadline
    }
}

fn id(message: BasicReturnMessage) -> Option<String> {
    message.delivery.properties.message_id().as_ref().map(|id| id.as_str().to_owned())
}

fn id_of(message: &Message) -> &str {
    message.properties.message_id().as_ref().map_or("", |id| id.as_str())
}
