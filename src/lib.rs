//! Postrider: a transactional outbox daemon for Postgres and NATS JetStream.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod dev;
pub mod event;
pub mod logging;
pub mod metrics;
pub mod nats;
pub mod outbox;
pub mod pg;
pub mod relay;
pub mod shutdown;
pub mod systemd;
pub mod tasks;
pub mod wire;
