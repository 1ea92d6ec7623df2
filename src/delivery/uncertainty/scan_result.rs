//! Scan result: the events that a scan has found in the log.

use uuid::Uuid;

use crate::{
    delivery::LastValues,
    event::{Event, EventId, Seq},
};

/// Most ids kept of one scan. Each takes 32 bytes. Beyond the bound the oldest are dropped, and an
/// event among them that was sent before could be stored twice.
pub const SCANNED_IDS_MAX: usize = 1_048_576;

/// Events that a scan of the log has found, each by its id and its place in the outbox. The place
/// distinguishes two rows with one id.
#[derive(Debug, Clone, Default)]
pub struct ScanResult {
    /// Events that the scan has found, sorted by id.
    events: Vec<(Uuid, Seq)>,
    /// Newest event of each key and subject, in a log of last values.
    last_values: LastValues,
}

impl ScanResult {
    /// Makes the result of a scan that has found these events, given in any order.
    pub fn new(mut events: Vec<(Uuid, Seq)>) -> Self {
        events.sort_unstable();
        Self { events, last_values: LastValues::default() }
    }

    /// Result of a scan of a log of last values.
    pub fn of_last_values(events: Vec<(Uuid, Seq)>, last_values: LastValues) -> Self {
        Self { last_values, ..Self::new(events) }
    }

    /// Takes the last values out of the result.
    pub(in crate::delivery) fn take_last_values(&mut self) -> LastValues {
        std::mem::take(&mut self.last_values)
    }

    /// Whether the scan has found this event.
    pub fn contains(&self, event: &Event) -> bool {
        let EventId(id) = event.id;
        self.events.binary_search(&(id, event.seq)).is_ok()
    }

    /// Adds the result of another scan.
    pub fn extend(&mut self, other: Self) {
        self.events.extend(other.events);
        self.events.sort_unstable();
        self.events.dedup();
    }

    /// Highest `seq` of the events that the scan has found; 0 if it has found none.
    pub(in crate::delivery) fn last(&self) -> Seq {
        self.events.iter().map(|(_, seq)| *seq).max().unwrap_or(Seq(0))
    }

    /// Number of found events.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether the scan has found no event.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}
