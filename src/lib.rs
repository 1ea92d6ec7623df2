//! Postrider: a transactional outbox daemon for Postgres and NATS JetStream.

pub mod config;
