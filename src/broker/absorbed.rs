//! Answers of the broker to publishes, and events of the connection to it.

use std::time::Duration;

use crate::delivery::{BatchOutcome, Closure, Outcome, Ticket};

/// An answer of the broker, or an event of the connection to it.
#[derive(Debug)]
pub enum Absorbed {
    /// The outcome of a publish.
    Outcome {
        /// Ticket of the event that was published.
        ticket: Ticket,
        /// Meaning of the broker's answer for the event.
        outcome: Outcome,
        /// How long the answer took.
        took: Duration,
    },
    /// A publish without an outcome: no answer came in time, or none can come any more.
    Unconfirmed {
        /// Ticket of the event that was published.
        ticket: Ticket,
        /// Whether no answer to any publish came for as long as one answer may take.
        silent: bool,
    },
    /// The outcome of a batch.
    Batch {
        /// Tickets of the batch's events, in order.
        tickets: Box<[Ticket]>,
        /// Meaning of the broker's answer for the events of the batch.
        outcome: BatchOutcome,
        /// How long the answer took.
        took: Duration,
        /// Whether no answer to any publish came for as long as one answer may take.
        silent: bool,
    },
    /// A new connection is open.
    Connected,
    /// The connection has ended; everything in flight is unconfirmed.
    Disconnected,
    /// The broker forbids something.
    Denied {
        /// The complaint of the broker.
        closure: Closure,
        /// The scope of the complaint.
        forbidden: Forbidden,
    },
}

/// The scope of a complaint about permissions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forbidden {
    /// The request that verifies the log, or creates it.
    Verifying,
    /// The request that scans the log.
    Scanning,
    /// A request that the relay can do without.
    Spare,
    /// Publishing to one subject.
    Subject(String),
    /// Everything: the complaint is about the login, or names no subject.
    Everything,
}

/// The reason why a message was not handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSent {
    /// No connection is open, or its buffer is full: the message may go later.
    NotNow,
    /// The broker's limit is lower than when the log was verified: the broker would refuse it
    /// again.
    TooLarge,
}
