//! How much may be on its way and in memory, in messages and in bytes.

use crate::delivery::{Room, lanes::BatchRoom};

/// The bounds of what is on its way and in memory.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Messages sent and unanswered at most.
    pub in_flight_events: usize,
    /// Payload bytes sent and unanswered at most; a single larger message still goes, alone.
    pub in_flight_bytes: usize,
    /// Events in memory at most, those on their way included.
    pub memory_events: usize,
    /// Bytes of memory for them at most; one page may exceed it by its largest row.
    pub memory_bytes: usize,
}

/// The window after trouble; it doubles with each full window of acks.
const SLOW_START_EVENTS: usize = 16;

/// What is on its way, and how much may be.
#[derive(Debug)]
pub struct Window {
    limits: Limits,
    /// The present bound on messages: below the limit after trouble.
    events_max: usize,
    events: usize,
    bytes: usize,
    /// Messages that were ever stored.
    acked: u64,
}

impl Window {
    /// A window that starts at its limits.
    pub fn new(limits: Limits) -> Self {
        Self { limits, events_max: limits.in_flight_events, events: 0, bytes: 0, acked: 0 }
    }

    /// Messages on their way.
    pub fn in_flight(&self) -> usize {
        self.events
    }

    /// Messages that were ever stored.
    pub(super) fn acked_total(&self) -> u64 {
        self.acked
    }

    /// Whether so much is in memory, of what may be one part in so many.
    pub(super) fn is_in_memory(&self, part: usize, events: usize, bytes: usize) -> bool {
        events >= self.limits.memory_events / part || bytes >= self.limits.memory_bytes / part
    }

    /// Whether one more message may go.
    pub fn has_room(&self) -> bool {
        self.events < self.events_max
            && (self.events == 0 || self.bytes < self.limits.in_flight_bytes)
    }

    /// How much may go at once now.
    pub(super) fn room_for_batch(&self) -> BatchRoom {
        let whole = self.whole();
        BatchRoom {
            events: whole.events.saturating_sub(self.events),
            bytes: whole.bytes.saturating_sub(self.bytes),
            ..whole
        }
    }

    /// How much may go at once when nothing is on its way.
    pub(super) fn whole(&self) -> BatchRoom {
        let bytes = self.limits.in_flight_bytes;
        BatchRoom { events: self.events_max, bytes, recognised_since: None }
    }

    /// A message went.
    pub fn take(&mut self, bytes: usize) {
        self.events += 1;
        self.bytes += bytes;
    }

    /// A message was answered, or given up waiting for.
    pub fn release(&mut self, bytes: usize) {
        self.events = self.events.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// A message was stored.
    pub fn acked(&mut self) {
        self.acked += 1;
        self.events_max = (self.events_max + 1).min(self.limits.in_flight_events);
    }

    /// After trouble: begin small.
    pub fn slow_start(&mut self) {
        self.events_max = SLOW_START_EVENTS.min(self.limits.in_flight_events);
    }

    /// How much more may be taken into memory.
    pub(super) fn room(&self, events: usize, bytes: usize) -> Room {
        let events = self.limits.memory_events.saturating_sub(events);
        let bytes = self.limits.memory_bytes.saturating_sub(bytes);
        if events == 0 || bytes == 0 {
            Room { events: 0, bytes: 0 }
        } else {
            Room { events, bytes }
        }
    }
}
