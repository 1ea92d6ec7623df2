//! Postgres sessions of every purpose: connecting, statements, errors, migrations.

pub mod blocking;
pub mod connect;
mod distance;
pub mod error;
pub mod migrate;
pub mod migrating;
mod parameters;
pub mod schema;
mod server;
pub mod session;
mod settings;
pub mod tls;
mod url;
