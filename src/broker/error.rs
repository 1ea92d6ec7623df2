//! Errors of a log as a whole, such as a missing stream.

use thiserror::Error;

/// The reason why a log cannot be used.
#[derive(Debug, Error)]
pub enum BrokerError {
    /// The log does not answer, answers with an error, or the broker forbids the request.
    #[error("{log} cannot be asked for: {reason}")]
    Unavailable {
        /// The log, as it is named in texts: `stream "EVENTS"`.
        log: String,
        /// The reason, in words, why the log cannot be used.
        reason: String,
        /// The kind of cause, which decides what the relay does.
        cause: Cause,
        /// The remedy, for people.
        hint: &'static str,
    },
    /// No log of this name exists, and it may not be created.
    #[error("{log} does not exist{but}")]
    Missing {
        /// The log, as it is named in texts.
        log: String,
        /// End of the sentence "log does not exist": a circumstance that makes it worse, or
        /// nothing.
        but: &'static str,
        /// The remedy, for people.
        hint: String,
    },
    /// The log, or its server, would lose events or cannot take them.
    #[error("{log} {fault}")]
    Refused {
        /// The log, as it is named in texts.
        log: String,
        /// The fault, as the end of a sentence.
        fault: String,
        /// The remedy, for people.
        hint: String,
    },
}

/// Why a log is unavailable. Only causes to which the relay reacts differently are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// No answer came, although the connection exists: the relay gives the connection up.
    Silent,
    /// The broker forbids the request.
    Denied,
    /// The broker answered with an error.
    Answered,
}

impl BrokerError {
    /// The remedy, for people.
    pub fn hint(&self) -> &str {
        match self {
            Self::Unavailable { hint, .. } => hint,
            Self::Missing { hint, .. } | Self::Refused { hint, .. } => hint,
        }
    }
}
