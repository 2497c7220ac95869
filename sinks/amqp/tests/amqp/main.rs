//! The sink `amqp` against a real RabbitMQ, read back with a client that is not ours.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;
mod contract;
mod consumer;
mod faults;
mod tls;
