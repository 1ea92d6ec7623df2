//! Window: how much may be in flight and in memory, in messages and in bytes.

use crate::delivery::{FetchBudget, order::lanes::BatchRoom};

/// Limits of the messages in flight and of the events in memory.
#[derive(Debug, Clone, Copy)]
pub struct WindowLimits {
    /// Most messages in flight.
    pub in_flight_events: usize,
    /// Most payload bytes in flight. A single larger message is still sent, alone.
    pub in_flight_bytes: usize,
    /// Most events in memory, those in flight included.
    pub memory_events: usize,
    /// Most bytes of memory for events; one page may exceed it by its largest row.
    pub memory_bytes: usize,
}

/// Window after a failure, in messages; it doubles with each full window of acknowledgements.
const SLOW_START_EVENTS: usize = 16;

/// Messages in flight, and the present bound on them.
#[derive(Debug)]
pub struct Window {
    limits: WindowLimits,
    /// Present bound on messages in flight; it is below the limit after a failure.
    events_max: usize,
    events: usize,
    bytes: usize,
    /// Messages acknowledged since the start.
    acked: u64,
}

impl Window {
    /// A window that starts at its limits.
    pub fn new(limits: WindowLimits) -> Self {
        Self { limits, events_max: limits.in_flight_events, events: 0, bytes: 0, acked: 0 }
    }

    /// Messages in flight.
    pub fn in_flight(&self) -> usize {
        self.events
    }

    /// Messages acknowledged since the start.
    pub(in crate::delivery) fn acked_total(&self) -> u64 {
        self.acked
    }

    /// Whether `events` or `bytes` in memory take at least 1/`part` of their limit.
    pub(in crate::delivery) fn is_in_memory(
        &self,
        part: usize,
        events: usize,
        bytes: usize,
    ) -> bool {
        events >= self.limits.memory_events / part || bytes >= self.limits.memory_bytes / part
    }

    /// Whether one more message may be sent.
    pub fn has_room(&self) -> bool {
        self.events < self.events_max
            && (self.events == 0 || self.bytes < self.limits.in_flight_bytes)
    }

    /// Room that the messages in flight leave for one more batch: number of events and bytes.
    pub(in crate::delivery) fn room_for_batch(&self) -> BatchRoom {
        let whole = self.whole();
        BatchRoom {
            events: whole.events.saturating_sub(self.events),
            bytes: whole.bytes.saturating_sub(self.bytes),
            ..whole
        }
    }

    /// Room for one batch while nothing is in flight: the whole window, in events and bytes.
    pub(in crate::delivery) fn whole(&self) -> BatchRoom {
        let bytes = self.limits.in_flight_bytes;
        BatchRoom { events: self.events_max, bytes, recognised_since: None }
    }

    /// Counts a message that was sent.
    pub fn take(&mut self, bytes: usize) {
        self.events += 1;
        self.bytes += bytes;
    }

    /// Counts a message that was answered or given up.
    pub fn release(&mut self, bytes: usize) {
        self.events = self.events.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Counts an acknowledgement, and widens the window by one message.
    pub fn acked(&mut self) {
        self.acked += 1;
        self.events_max = (self.events_max + 1).min(self.limits.in_flight_events);
    }

    /// Narrows the window after a failure.
    pub fn slow_start(&mut self) {
        self.events_max = SLOW_START_EVENTS.min(self.limits.in_flight_events);
    }

    /// Room for more events in memory, given the `events` and `bytes` that are in memory already.
    pub(in crate::delivery) fn room(&self, events: usize, bytes: usize) -> FetchBudget {
        let events = self.limits.memory_events.saturating_sub(events);
        let bytes = self.limits.memory_bytes.saturating_sub(bytes);
        if events == 0 || bytes == 0 {
            FetchBudget { events: 0, bytes: 0 }
        } else {
            FetchBudget { events, bytes }
        }
    }
}
