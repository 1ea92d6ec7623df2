//! The integration tests: the real binary against a real Postgres and a real nats-server.
#![cfg(test)]

mod admin;
mod checker;
mod cli;
mod config;
mod dev;
mod docs;
mod examples;
mod fixture;
mod migrations;
mod packaging;
mod secrets;
mod servers;
mod session;
mod sql_contract;
mod sql_reader;
mod support;
mod systemd;
mod tls;
