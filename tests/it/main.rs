//! The integration tests: the real binary against a real Postgres and a real nats-server.
#![cfg(test)]

mod checker;
mod servers;
mod support;
