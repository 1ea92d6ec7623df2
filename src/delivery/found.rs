//! Which events a look into the stream has found there.

use uuid::Uuid;

use crate::event::{Event, EventId, Seq};

/// Ids kept of one look at most. Each takes 32 bytes; beyond it the oldest are forgotten, and an
/// event among them that was sent before could be stored twice.
pub const FOUND_MAX: usize = 1_048_576;

/// The events that a look into the stream has found: each by its id and its place in the outbox, so
/// that two rows with one id are told apart.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Sorted.
    events: Vec<(Uuid, Seq)>,
}

impl Found {
    /// Takes what was found, in any order.
    pub fn new(mut events: Vec<(Uuid, Seq)>) -> Self {
        events.sort_unstable();
        Self { events }
    }

    /// Whether the stream holds this event.
    pub fn contains(&self, event: &Event) -> bool {
        let EventId(id) = event.id;
        self.events.binary_search(&(id, event.seq)).is_ok()
    }

    /// Adds what another look has found.
    pub fn extend(&mut self, other: Self) {
        self.events.extend(other.events);
        self.events.sort_unstable();
        self.events.dedup();
    }

    /// How many events were found.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nothing was.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}
