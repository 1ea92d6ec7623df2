//! The log behind a sink, in the words of no particular broker: its facts, its answers, its errors.
//!
//! A log numbers what it stores from 1 on. What differs between brokers the facts state: for how
//! long a log recognises an id that comes again, whether it can be scanned for ids, and whether it
//! takes several messages as one. No I/O.

mod absorbed;
mod error;
mod facts;

pub use absorbed::{Absorbed, Forbidden, NotSent};
pub use error::{BrokerError, Cause};
pub use facts::{
    Copies, Creation, Keeps, LogFacts, SIGHTINGS_MAX, Sighting, StoredMessage, VerifiedLog, Warning,
};

/// The code of an event whose subject has no room for it.
pub const SUBJECT_FULL: &str = "subject_full";
