//! The sink `amqp`.
