//! Does what a command asks for: each question or act is a function that returns a value or an
//! error.
//!
//! `--json` serialises the value; the command line also makes texts of it. Nothing here prints,
//! reads arguments, or has exit codes.

pub mod audit;
pub mod compare;
mod contract;
mod error;
pub mod leadership;
pub mod letters;
pub mod reconcile;
pub mod relays;
pub mod status;
pub mod why;

use crate::{
    config::Config,
    outbox::Inspection,
    pg::{connect::connect, schema::Schema},
};

pub use error::{CompareError, DatabaseError};

/// Progress of a question or an act that takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The stream is being read.
    Read {
        /// Messages that were read.
        messages: u64,
        /// Messages to read in total.
        of: u64,
    },
    /// Events are being published again.
    PublishedAgain {
        /// Number of missing events that have become letters, which the relay publishes.
        events: u64,
        /// Missing events in total.
        of: u64,
    },
}

/// Opens a session that inspects the tables; `purpose` is its name on the server.
async fn inspect(
    config: &Config,
    purpose: &str,
    settings: &[(&str, &str)],
) -> Result<Inspection, DatabaseError> {
    let connection = connect(&config.database, purpose, settings).await?;
    Ok(Inspection::new(connection, Schema::from(&config.database.schema)))
}
