//! Facts about a log as a whole, and about single messages in it.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    delivery::Batching,
    event::{EventId, Seq},
    wire::Limits,
};

/// Maximum number of messages with the identity of an event that one page of a scan returns. The
/// outbox is asked about each.
pub const SIGHTINGS_MAX: usize = 4_096;

/// Facts that were learned when a log was verified.
#[derive(Debug, Clone)]
pub struct LogFacts {
    /// Limits of a message in this log: its largest size, and the subjects that the log takes.
    pub limits: Limits,
    /// The identity of the log. A log of the same name with another identity is not the same log.
    /// For a stream it is the creation time in nanoseconds since the Unix epoch. `None` when it is
    /// unknown.
    pub identity: Option<i64>,
    /// The domain that every acknowledgement has to name besides the log; `None` without domains.
    pub domain: Option<String>,
    /// The first sequence in the log. Messages below it were dropped by the log's own limits, or
    /// purged.
    pub first_seq: u64,
    /// The last sequence in the log.
    pub last_seq: u64,
    /// Time for which the log recognises an id; zero when it never does.
    pub recognises: Duration,
    /// Rule by which the log keeps a message.
    pub keeps: Keeps,
    /// Number of servers that have the log.
    pub copies: Copies,
    /// Kinds of batches that the log takes.
    pub batches: Batching,
    /// Settings of the log that might lose events, for the program's log lines and `postrider
    /// check`.
    pub warnings: Vec<Warning>,
}

impl LogFacts {
    /// Facts about a log that cannot be read back and takes every subject.
    pub fn out_of_reach(log: &str, last_seq: u64, message_bytes_max: u64) -> Self {
        Self {
            limits: Limits {
                stream: log.to_owned(),
                subjects: vec![">".to_owned()],
                message_bytes_max,
                framing_bytes: 0,
            },
            identity: None,
            domain: None,
            first_seq: last_seq,
            last_seq,
            recognises: Duration::ZERO,
            keeps: Keeps::OutOfReach,
            copies: Copies::One,
            batches: Batching::Off,
            warnings: Vec::new(),
        }
    }
}

/// The rule by which a log keeps a message, and so what a scan of it proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeps {
    /// Until its limits are reached: a message that is missing was lost or dropped.
    UntilItsLimits,
    /// Until later messages of its subject have taken its place (`max_msgs_per_subject`).
    UntilReplaced,
    /// Until its consumers have acknowledged it (a work queue, or retention by interest): a message
    /// that is missing may have been consumed. Such a log is never scanned: a work queue refuses a
    /// second reader, and a reader would change what a stream by interest keeps.
    UntilConsumed,
    /// The log cannot be read back at all, so that it is never scanned.
    OutOfReach,
}

impl Keeps {
    /// Whether a scan shows reliably what the log contains.
    pub fn can_be_scanned(self) -> bool {
        match self {
            Self::UntilItsLimits | Self::UntilReplaced => true,
            Self::UntilConsumed | Self::OutOfReach => false,
        }
    }
}

/// Number of servers that have a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copies {
    /// A single server.
    One,
    /// Several servers, of which one leads.
    Several,
}

/// A setting of a log that might lose events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The setting, as the end of a sentence that begins with the name of the log.
    pub text: String,
    /// The remedy, for people.
    pub hint: &'static str,
}

/// Whether a log that does not exist may be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    /// Creating it is allowed, when that is configured.
    Allowed,
    /// Creating it is forbidden: the log existed, and a new one would hide what is lost.
    Forbidden,
}

/// A verified log, compared with its state at the verification before.
#[derive(Debug)]
pub struct VerifiedLog {
    /// Facts about the log.
    pub facts: LogFacts,
    /// The highest sequence that the log had acknowledged when the verification was requested.
    pub acked: u64,
    /// Whether the log now has a foreign message at the last sequence that it had acknowledged to
    /// us.
    pub is_rewritten: bool,
}

/// A single message as the log stores it.
#[derive(Debug, Clone)]
pub struct StoredMessage {
    /// Id of the event that the message carries; `None` when the message has no such id.
    pub event_id: Option<EventId>,
    /// Subject of the message.
    pub subject: String,
    /// Payload of the message.
    pub payload: Bytes,
}

/// A message that carries the identity of an event, of this outbox or of another.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// The id of the event.
    pub id: Uuid,
    /// The place of the event in its outbox.
    pub seq: Seq,
    /// The subject of the message.
    pub subject: Box<str>,
}
