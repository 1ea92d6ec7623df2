//! A row of the outbox as it was read: typed identities, optional metadata, opaque payload.

mod filter;
mod key;
mod position;
mod shard;

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

pub use filter::{FILTER_TEXT_BYTES_MAX, Filter, Pattern, Rules, is_filter_text};
pub use key::AggregateKey;
pub use position::{Position, Snapshot};
pub use shard::Shard;

/// The id of an event: it becomes `Nats-Msg-Id` and the consumers' dedup key, and never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(pub Uuid);

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The sequence number of an outbox row: it defines the order inside a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seq(pub i64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The payload of an event, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// The bytes as they were inserted, never parsed.
    Bytes(Bytes),
    /// No payload at all: a tombstone.
    Null,
    /// Both payload columns are set, so that the intended one is unknown: the event is refused.
    Both,
    /// The database does not give the row or a part of it: its storage is damaged.
    Unreadable {
        /// Error message of the database or the driver.
        reason: Box<str>,
    },
    /// More bytes than can be published; the payload was left in the database.
    Oversize {
        /// Size of the payload in bytes.
        bytes: u64,
    },
}

impl Payload {
    /// Number of bytes of the payload in this program's memory; 0 for every kind but `Bytes`.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Null | Self::Both | Self::Unreadable { .. } | Self::Oversize { .. } => 0,
        }
    }

    /// Whether the payload takes no memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A row of the outbox.
#[derive(Debug, Clone)]
pub struct Event {
    /// The place of the event in the order of its key.
    pub seq: Seq,
    /// The identity of the event.
    pub id: EventId,
    /// The time at which the event happened. `None` when RFC 3339 cannot express the column's
    /// value, such as `infinity`.
    pub occurred_at: Option<Timestamp>,
    /// The type of the event, such as `order.placed`.
    pub event_type: String,
    /// The version of the payload's schema.
    pub event_version: i32,
    /// The kind of the event: `domain`, `integration`, `command`, `notification` or `system`.
    pub kind: Cow<'static, str>,
    /// The aggregate that the event is about, inside which events are ordered. `None` for an event
    /// without an order. A row with only a type or only an id of an aggregate gives a key with an
    /// empty part, and its event is refused.
    pub key: Option<AggregateKey>,
    /// The version of the aggregate after this event.
    pub aggregate_version: Option<i64>,
    /// The producer of the event, when it is another than the configured source.
    pub source: Option<String>,
    /// The subject of the message, when the row names one. `None` when the route's template gives
    /// it.
    pub subject: Option<String>,
    /// The media type of the payload.
    pub content_type: Cow<'static, str>,
    /// The payload.
    pub payload: Payload,
    /// The custom headers as JSON text; `None` when there are none.
    pub headers: Option<String>,
    /// The id of the conversation that the event belongs to.
    pub correlation_id: Option<String>,
    /// The id of the message that caused the event.
    pub causation_id: Option<String>,
    /// The person or program that caused the event.
    pub actor: Option<String>,
}

impl Event {
    /// The key in whose order the event is published. `None` for a row without an aggregate, and
    /// for a row with only a type or only an id of one. Such a row is refused, so no later event
    /// can be ordered behind it.
    pub fn lane(&self) -> Option<&AggregateKey> {
        self.key
            .as_ref()
            .filter(|key| !key.aggregate_type().is_empty() && !key.aggregate_id().is_empty())
    }

    /// The event's approximate cost in bytes of memory: its payload, its headers, and a constant
    /// for the rest.
    pub fn footprint(&self) -> usize {
        const FIXED: usize = 512;
        let headers = self.headers.as_ref().map_or(0, String::len);
        FIXED + self.payload.len() + headers
    }
}
