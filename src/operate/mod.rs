//! Questions and acts of a person, each once: a function that returns a value or a typed error.
//!
//! The values are what a program reads, as they are serialised; the command line makes texts of
//! them too. Nothing here prints, reads arguments, or has exit codes.

pub mod audit;
pub mod compare;
mod error;
pub mod reconcile;
pub mod relays;

use serde::Serialize;

use crate::{
    config::Config,
    outbox::Inspection,
    pg::{connect::connect, schema::Schema},
};

pub use error::{CompareError, DatabaseError};

/// What a relay does, as the database says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayState {
    /// An instance leads it.
    Running,
    /// Nobody runs it.
    NotRunning,
    /// Nobody has run it for longer than the retention, and its position keeps rows in the outbox.
    Abandoned,
}

impl RelayState {
    /// The words for a person.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::NotRunning => "not running",
            Self::Abandoned => "abandoned",
        }
    }
}

/// How far a question or an act is that takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The stream is being read.
    Read {
        /// Messages that were read.
        messages: u64,
        /// Messages that there are.
        of: u64,
    },
    /// Events are being published again.
    PublishedAgain {
        /// Events that the relay publishes again.
        events: u64,
        /// Events that were missing.
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
