//! Throwaway Postgres, PgBouncer and nats-server instances that end with this program, however it
//! ends.
//!
//! Each server lives in its own temporary directory, listens on a loopback port chosen by the
//! kernel, and drops root. Dropping the value stops the server and removes the directory. A small
//! guard (see [`Guard`]) does the same when this program is killed before it can.

mod guard;
mod locate;
mod nats;
mod pgbouncer;
mod postgres;
mod sandbox;

pub use guard::{Guard, Signal, send_signal};
pub use locate::{nats_server, pgbouncer, postgres_bin};
pub use nats::{Nats, NatsOptions};
pub use pgbouncer::{ConsoleRow, Pgbouncer, PgbouncerOptions, PoolMode};
pub use postgres::{Postgres, PostgresOptions};

use std::{io, net::TcpListener};

/// Reason why a throwaway server could not be found, started or reached.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No suitable program on this machine.
    #[error("{program} not found{seen}; run deploy/dev/install-services.sh")]
    Missing {
        /// The program that was searched, with the lowest version that will do.
        program: &'static str,
        /// The version that was found instead, as ` (found …)`; empty when there was none.
        seen: String,
    },
    /// The operating system refused something.
    #[error("{action}: {source}")]
    Io {
        /// Attempted step, such as "kill the server".
        action: String,
        /// Answer of the operating system.
        source: io::Error,
    },
    /// A server ended although it should run, or a command failed.
    #[error("{program} gave up; the end of its log:\n{log}")]
    Ended {
        /// Name of the server's program.
        program: &'static str,
        /// Last lines of the server's log.
        log: String,
    },
    /// A running server does not take its new configuration.
    #[error("{program} refuses its new configuration; the end of its log:\n{log}")]
    Refused {
        /// Name of the server's program.
        program: &'static str,
        /// Last lines of the server's log.
        log: String,
    },
    /// A server did not answer in time.
    #[error("{program} did not answer within {seconds} s; the end of its log:\n{log}")]
    Silent {
        /// Name of the server's program.
        program: &'static str,
        /// Length of the wait for an answer, in seconds.
        seconds: u64,
        /// Last lines of the server's log.
        log: String,
    },
    /// A statement on a throwaway Postgres failed.
    #[error("run \"{statement}\": {source}")]
    Statement {
        /// The statement's text.
        statement: String,
        /// The server's answer.
        source: tokio_postgres::Error,
    },
}

/// The wanted port when nobody listens on it, else any free port.
///
/// # Errors
/// The errors of [`free_port`].
pub fn port(wanted: Option<u16>) -> Result<u16, ServerError> {
    match wanted.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()) {
        Some(port) => Ok(port),
        None => free_port(),
    }
}

/// Asks the kernel for a loopback TCP port that nobody listens on.
///
/// The port is free at the time of the answer only. Another process may take it before the caller
/// does.
///
/// # Errors
/// When the kernel has no port to give.
pub fn free_port() -> Result<u16, ServerError> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(io_error("ask for a free port"))
}

fn io_error(action: impl Into<String>) -> impl FnOnce(io::Error) -> ServerError {
    let action = action.into();
    move |source| ServerError::Io { action, source }
}
