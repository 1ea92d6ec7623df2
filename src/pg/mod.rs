//! Everything that is true of any Postgres session, whatever it is used for.

pub mod blocking;
pub mod connect;
pub mod error;
pub mod migrate;
mod migration_lock;
mod roles;
pub mod schema;
mod server;
pub mod session;
pub mod tls;
mod url;
