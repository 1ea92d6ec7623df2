//! Errors of commands that ask or act, each with its next step.

use std::borrow::Cow;

use crate::{
    broker::{BrokerError, Cause},
    nats,
    pg::{connect::ConnectError, error::QueryError},
};

/// Postgres did not answer, or refused the session or a statement.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// No session with Postgres.
    #[error("could not connect to postgres: {0}")]
    Connect(#[from] ConnectError),
    /// A statement failed.
    #[error("could not ask postgres: {0}")]
    Query(#[from] QueryError),
}

impl DatabaseError {
    /// Next step for a person; `None` when the error's text says it, or when the error may pass by
    /// itself.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Connect(error) => error.hint().map(Cow::Borrowed),
            Self::Query(error) => error.hint(),
        }
    }
}

/// The settled events could not be compared with the stream.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// Postgres did not answer, or refused the session or a statement.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The route has no stream: it only counts the events that no other route takes.
    #[error("events that no route takes are in no stream to compare with")]
    Unrouted,
    /// The route writes to standard output.
    #[error("standard output cannot be read back, so that it cannot be compared")]
    Stdout,
    /// The stream removes messages before its limits are reached, so a missing message proves
    /// nothing.
    #[error(
        "stream \"{stream}\" removes what its consumers have acknowledged, or what a later message of its \
         subject replaces, so that it cannot be compared"
    )]
    Removing {
        /// The stream's name.
        stream: String,
    },
    /// The settings of the connection to NATS cannot work.
    #[error("{0}")]
    Settings(nats::NatsConnectError),
    /// No connection to NATS.
    #[error("no connection to {url}: {error}")]
    Unreachable {
        /// The address of the server.
        url: String,
        /// Reason why there is no connection.
        error: nats::NatsConnectError,
    },
    /// The stream cannot be read.
    #[error("{0}")]
    Unreadable(BrokerError),
}

impl From<QueryError> for CompareError {
    fn from(error: QueryError) -> Self {
        Self::Database(error.into())
    }
}

impl From<ConnectError> for CompareError {
    fn from(error: ConnectError) -> Self {
        Self::Database(error.into())
    }
}

impl CompareError {
    /// Next step for a person; `None` when the error's text says it, or when the error may pass by
    /// itself.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            Self::Database(error) => return error.hint(),
            Self::Settings(_) => return None,
            Self::Unrouted => Cow::Borrowed("name another --route"),
            Self::Stdout | Self::Removing { .. } => {
                Cow::Borrowed("compare within the database alone: postrider audit --database-only")
            }
            Self::Unreachable { error, .. } => Cow::Borrowed(error.hint()),
            // NATS does not answer a request that the user may not send.
            Self::Unreadable(BrokerError::Unavailable { cause: Cause::Silent, .. }) => {
                Cow::Borrowed(
                    "does it run, and may its user publish to $JS.API.STREAM.INFO, CONSUMER.CREATE, \
                 CONSUMER.MSG.NEXT and CONSUMER.DELETE of the stream?",
                )
            }
            Self::Unreadable(error) => Cow::Borrowed(error.hint()),
        })
    }
}
