//! Describes the log behind a sink for any broker: its facts, its answers, its errors. No I/O.
//!
//! A log numbers the messages that it stores, from 1 on. Its facts state how brokers differ: how
//! long a log recognises a repeated id, whether it can be scanned, and which batches it takes.

mod absorbed;
mod error;
mod facts;

pub use absorbed::{Absorbed, Forbidden, NotSent};
pub use error::{BrokerError, Cause};
pub use facts::{
    Copies, Creation, Keeps, LogFacts, SIGHTINGS_MAX, Sighting, StoredMessage, VerifiedLog, Warning,
};

/// The error code of an event whose subject has no room for another message.
pub const SUBJECT_FULL: &str = "subject_full";
