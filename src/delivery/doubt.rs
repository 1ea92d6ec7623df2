//! What may be in the stream without our knowing, and what a look into it tells.

use std::time::Instant;

use super::{Delivery, Found, Ticket};
use crate::event::Event;

impl Delivery {
    /// Whether the event may be in the stream, and so long ago that the stream would not recognise
    /// it: it has to be looked for before it may go again.
    pub fn is_stale(&self, ticket: Ticket, now: Instant) -> bool {
        self.lanes.is_stale(ticket, self.recognised_for, now)
    }

    /// What is said about the event may be about another one: it may be stored all the same.
    pub fn doubt(&mut self, ticket: Ticket) {
        self.lanes.doubt(ticket);
    }

    /// What the stream holds of what was sent and is not settled, as a look into it, begun at `at`, has
    /// found. The stream's sequences up to `stream_seq` are in use.
    pub fn found(&mut self, found: Found, stream_seq: u64, at: Instant) {
        self.before.looked(at);
        for ticket in self.lanes.uncertain() {
            let known = self.lanes.event(ticket).is_some_and(|(event, _)| found.contains(event));
            if known {
                self.leaving.remove(&ticket);
                self.take_as_published(ticket);
            } else {
                self.lanes.not_stored(ticket, at, self.late_max);
                if !self.lanes.is_in_doubt(ticket) {
                    self.leave_as_decided(ticket);
                }
            }
        }
        if stream_seq > self.stream.acked {
            self.stream.acked = stream_seq;
            self.stream.event_id = None;
        }
        // Only what an earlier run may have sent is compared with it from now on.
        if self.before.may_come() {
            self.found.extend(found);
        }
    }

    /// The stream holds the event, whether or not it was its turn in its lane: another instance may
    /// have gone on for a moment.
    pub(super) fn take_as_published(&mut self, ticket: Ticket) {
        self.lanes.abandon(&[ticket]);
        self.note_published(ticket, 0);
    }

    /// Whether the stream was found to hold an event that an earlier run may have sent.
    pub(super) fn is_found(&self, event: &Event) -> bool {
        self.before.may_come() && self.found.contains(event)
    }

    /// What was found is of no use once everything is read that an earlier run may have sent.
    pub(super) fn forget_found(&mut self) {
        if !self.before.may_come() {
            self.found = Found::default();
        }
    }
}
