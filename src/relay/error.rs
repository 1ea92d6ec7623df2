//! Errors that end a relay: conditions that only a person can change.

use thiserror::Error;

use crate::{broker::BrokerError, pg::migrate::MigrateError};

/// Error that ends a relay. Each of them needs a person.
#[derive(Debug, Error)]
pub enum RelayError {
    /// The position was made in another Postgres cluster, where transaction numbers differ.
    #[error(
        "this database was restored into another Postgres cluster: the relay's position means \
         nothing here; start once with `postrider run --rescan` to publish what was not settled"
    )]
    ForeignCluster,
    /// A condition of the contract with the outbox is broken, and the relay cannot repair it.
    #[error("the outbox is not as the relay needs it: {0}")]
    Contract(String),
    /// The schema was migrated by a newer program.
    #[error(
        "the schema \"{schema}\" has version {have}, this program supports up to {supported}: install the \
         newer postrider"
    )]
    NewerSchema {
        /// Name of the schema.
        schema: String,
        /// Version of the schema.
        have: i32,
        /// Newest version that this program supports.
        supported: i32,
    },
    /// A newer program has replaced the functions of the schema.
    #[error(
        "the functions of the schema \"{schema}\" are those of postrider {program}: install the \
         newer postrider"
    )]
    NewerFunctions {
        /// Name of the schema.
        schema: String,
        /// Version of the program that installed the functions.
        program: String,
    },
    /// The Postgres server is older than the statements need.
    #[error("{0}")]
    OldServer(MigrateError),
    /// The stream, or its server, would lose events or cannot take them as it is set up.
    #[error("{0}; {hint}", hint = .0.hint())]
    Stream(BrokerError),
}
