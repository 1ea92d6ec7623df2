//! The integration tests: the real binary against a real Postgres and a real nats-server.
#![cfg(test)]

mod admin;
mod broker_outage;
mod checker;
mod cli;
mod config;
mod crash;
mod dead_letters;
mod delivery;
mod dev;
mod docs;
mod examples;
mod fixture;
mod large;
mod log;
mod migrations;
mod ordering;
mod packaging;
mod permission;
mod plans;
mod postgres_outage;
mod proxy;
mod restore;
mod retention;
mod roles;
mod secrets;
mod servers;
mod session;
mod sql_contract;
mod sql_reader;
mod stopping;
mod stream_trouble;
mod support;
mod systemd;
mod tls;
mod two_instances;
