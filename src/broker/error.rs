//! Errors of a log as a whole.

use thiserror::Error;

/// The reason why a log cannot be used.
#[derive(Debug, Error)]
pub enum BrokerError {
    /// The log cannot be asked for, or read, just now.
    #[error("{log} cannot be asked for: {reason}")]
    Unavailable {
        /// The log, as it is named in texts: `stream "EVENTS"`.
        log: String,
        /// What happened.
        reason: String,
        /// What it means for the relay.
        cause: Cause,
        /// What to do about it.
        hint: &'static str,
    },
    /// There is no such log, and it may not be created.
    #[error("{log} does not exist{but}")]
    Missing {
        /// The log, as it is named in texts.
        log: String,
        /// What makes that worse, as the end of the sentence; often nothing.
        but: &'static str,
        /// What to do about it.
        hint: String,
    },
    /// The log, or its server, would lose events or cannot take them.
    #[error("{log} {fault}")]
    Refused {
        /// The log, as it is named in texts.
        log: String,
        /// What is wrong with it.
        fault: String,
        /// What to do about it.
        hint: String,
    },
}

/// The cause of a log being unavailable, as far as the relay treats it differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Nothing was answered at all, over a connection that stands: the connection is given up.
    Silent,
    /// The broker forbids the request.
    Denied,
    /// The broker answered with an error.
    Answered,
}

impl BrokerError {
    /// What to do about it.
    pub fn hint(&self) -> &str {
        match self {
            Self::Unavailable { hint, .. } => hint,
            Self::Missing { hint, .. } | Self::Refused { hint, .. } => hint,
        }
    }
}
