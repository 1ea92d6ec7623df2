//! The events that a scan has found in the log.

use uuid::Uuid;

use super::Latest;
use crate::event::{Event, EventId, Seq};

/// Ids kept of one scan at most. Each takes 32 bytes; beyond it the oldest are forgotten, and an
/// event among them that was sent before could be stored twice.
pub const FOUND_MAX: usize = 1_048_576;

/// The events that a scan of the log has found: each by its id and its place in the outbox, so
/// that two rows with one id are told apart.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Sorted.
    events: Vec<(Uuid, Seq)>,
    /// Of a stream of last values, the newest of each key and subject.
    latest: Latest,
}

impl Found {
    /// Takes what was found, in any order.
    pub fn new(mut events: Vec<(Uuid, Seq)>) -> Self {
        events.sort_unstable();
        Self { events, latest: Latest::default() }
    }

    /// Takes what was found in a stream of last values.
    pub fn of_last_values(events: Vec<(Uuid, Seq)>, latest: Latest) -> Self {
        Self { latest, ..Self::new(events) }
    }

    /// Takes the last values out.
    pub(super) fn take_latest(&mut self) -> Latest {
        std::mem::take(&mut self.latest)
    }

    /// Whether the stream holds this event.
    pub fn contains(&self, event: &Event) -> bool {
        let EventId(id) = event.id;
        self.events.binary_search(&(id, event.seq)).is_ok()
    }

    /// Adds what another scan has found.
    pub fn extend(&mut self, other: Self) {
        self.events.extend(other.events);
        self.events.sort_unstable();
        self.events.dedup();
    }

    /// The highest `seq` among them; 0 when nothing was found.
    pub(super) fn last(&self) -> Seq {
        self.events.iter().map(|(_, seq)| *seq).max().unwrap_or(Seq(0))
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
