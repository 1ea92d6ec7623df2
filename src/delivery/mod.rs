//! The decisions: order, retry, breaker, window and what is settled. No I/O, no clock, no tokio.
//!
//! Everything here is a plain value that the relay's one task owns. Time comes in as `now`. What
//! may happen is `admit` → `next` → `resolve` → `take_settlement`, in the order of the walk of one
//! row (see the crate's documentation), and the simulation in `sim` drives just these.

mod breaker;
mod lanes;
mod outcome;
mod progress;
mod retry;
#[cfg(test)]
mod sim;
mod window;

use std::time::Instant;

use crate::event::{AggregateKey, Event, Position, Seq, Snapshot};

pub use breaker::{Breaker, Permit, Transition};
pub use lanes::{Lanes, Ticket};
pub use outcome::{Closure, ClosureKind, Letter, Outcome, Rejection, Settlement, Verdict};
pub use progress::Progress;
pub use retry::Backoff;
pub use window::{Limits, Window};

/// What the later events of a dead event's key do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDead {
    /// They wait, as held letters, until the dead one is redriven or discarded.
    Hold,
    /// They go on; the dead letter records the gap.
    Skip,
}

/// Rows fetched and not yet settled at most, however many of them are decided already. At the
/// bound nothing is fetched until the oldest one is decided.
pub const UNSETTLED_MAX: usize = 65_536;

/// Rows fetched at most while the breaker is open and there is nothing to probe with.
const PROBE_EVENTS: usize = 16;

/// Everything the relay knows about the events in its hands.
#[derive(Debug)]
pub struct Delivery {
    lanes: Lanes,
    progress: Progress,
    breaker: Breaker,
    window: Window,
    on_dead: OnDead,
}

/// How much may be fetched now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Events.
    pub events: usize,
    /// Bytes of payload.
    pub bytes: usize,
}

impl Delivery {
    /// Resumes from what the database says about the position and the held keys.
    pub fn resume(
        position: Position,
        held: impl IntoIterator<Item = AggregateKey>,
        limits: Limits,
        on_dead: OnDead,
    ) -> Self {
        let mut lanes = Lanes::default();
        lanes.set_held(held);
        Self {
            lanes,
            progress: Progress::resume(position, Ticket(0)),
            breaker: Breaker::new(),
            window: Window::new(limits),
            on_dead,
        }
    }

    /// How much may be fetched now; nothing while memory is full, and while the breaker is open no
    /// more than something to probe with.
    pub fn room(&self) -> Room {
        let room = self.window.room(self.lanes.len(), self.lanes.bytes());
        let closed = self.breaker.cause().is_some() && !self.lanes.is_empty();
        if closed || self.progress.unsettled() >= UNSETTLED_MAX {
            return Room { events: 0, bytes: 0 };
        }
        match self.breaker.cause() {
            None => room,
            Some(_) => Room { events: room.events.min(PROBE_EVENTS), ..room },
        }
    }

    /// Where the next page begins.
    pub fn cursor(&self) -> Position {
        self.progress.cursor()
    }

    /// Starts on the rows that became visible since the last target.
    ///
    /// What begins after the target has a higher `seq` than `floor`.
    pub fn begin(&mut self, target: Snapshot, floor: Seq) {
        self.progress.begin(target, floor);
    }

    /// Takes in a page of rows in the order of their `seq`.
    pub fn admit(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            let ticket = self.progress.admit(event.seq);
            if self.lanes.is_held(event.key.as_ref()) {
                self.progress.resolve(ticket, Verdict::Held);
            } else {
                self.lanes.admit(ticket, event);
            }
        }
    }

    /// The last page up to the target was taken in.
    pub fn exhausted(&mut self) {
        self.progress.exhausted();
    }

    /// The next event to send, if any may go now.
    ///
    /// The caller says what became of it: [`Delivery::sent`], [`Delivery::refuse`] or
    /// [`Delivery::give_back`].
    pub fn next(&mut self, now: Instant) -> Option<Ticket> {
        match self.breaker.permit(now) {
            Permit::No(_) => None,
            Permit::Flow if !self.window.has_room() => None,
            Permit::Flow | Permit::Probe => self.lanes.take_ready(now),
        }
    }

    /// The event of a ticket, and whether it may be in the stream already.
    pub fn event(&self, ticket: Ticket) -> Option<(&Event, bool)> {
        self.lanes.event(ticket)
    }

    /// The event was handed to the broker.
    pub fn sent(&mut self, ticket: Ticket, now: Instant) {
        let bytes = self.lanes.event(ticket).map_or(0, |(event, _)| event.payload.len());
        self.lanes.sent(ticket);
        self.window.take(bytes);
        if self.breaker.permit(now) == Permit::Probe {
            self.breaker.probing();
        }
    }

    /// The event could not be handed over just now.
    pub fn give_back(&mut self, ticket: Ticket) {
        self.lanes.again(ticket);
    }

    /// The event cannot become a message, so it is rejected without a network.
    pub fn refuse(&mut self, ticket: Ticket, rejection: Rejection) {
        self.die(ticket, rejection);
    }

    /// Judges what the broker told us about an event on its way.
    pub fn resolve(&mut self, ticket: Ticket, outcome: Outcome, now: Instant) -> Transition {
        let Some((event, _)) = self.lanes.event(ticket) else { return Transition::None };
        self.window.release(event.payload.len());
        match outcome {
            Outcome::Acked { stream_seq, .. } => {
                self.window.acked();
                self.lanes.leave(ticket);
                self.progress.resolve(ticket, Verdict::Published { stream_seq });
                self.breaker.succeed()
            }
            Outcome::Rejected(rejection) => {
                self.die(ticket, rejection);
                self.breaker.succeed()
            }
            Outcome::Unconfirmed => {
                self.lanes.again(ticket);
                self.breaker.probe_unanswered(now);
                Transition::None
            }
            Outcome::Busy { .. } => {
                self.lanes.again_later(ticket, now);
                self.breaker.succeed()
            }
            Outcome::Unavailable(closure) => {
                self.lanes.again(ticket);
                self.close_gate(closure, now)
            }
        }
    }

    /// Nothing can be published just now, whatever the event.
    pub fn close_gate(&mut self, closure: Closure, now: Instant) -> Transition {
        self.window.slow_start();
        self.breaker.fail(closure, now)
    }

    /// The stream was found sound while there is nothing to probe it with.
    pub fn open_gate(&mut self) -> Transition {
        self.breaker.reset()
    }

    /// A new connection: what it carries has to prove itself before the window is full again.
    pub fn slow_start(&mut self) {
        self.window.slow_start();
    }

    /// Why nothing is published just now.
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// When something may go that may not go now.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        match self.breaker.permit(now) {
            Permit::No(until) => until,
            Permit::Flow | Permit::Probe => self.lanes.next_due(),
        }
    }

    /// Events in memory, those on their way included.
    pub fn events(&self) -> usize {
        self.lanes.len()
    }

    /// Events on their way.
    pub fn in_flight(&self) -> usize {
        self.window.in_flight()
    }

    /// Keys that wait behind a dead letter.
    pub fn held_keys(&self) -> usize {
        self.lanes.held_keys()
    }

    /// Rows that the next settlement would settle.
    pub fn settleable(&self) -> usize {
        self.progress.settleable()
    }

    /// Whether the next settlement is as large as one may be.
    pub fn is_full(&self) -> bool {
        self.progress.is_full()
    }

    /// Whether anything is to be written back.
    pub fn has_moved(&self) -> bool {
        self.progress.has_moved()
    }

    /// What to write back, when anything moved. The caller keeps it until it is committed.
    pub fn take_settlement(&mut self) -> Option<Settlement> {
        self.progress.take_settlement()
    }

    fn die(&mut self, ticket: Ticket, rejection: Rejection) {
        match self.on_dead {
            OnDead::Skip => self.lanes.leave(ticket),
            OnDead::Hold => {
                for behind in self.lanes.leave_and_hold(ticket) {
                    self.progress.resolve(behind, Verdict::Held);
                }
            }
        }
        self.progress.resolve(ticket, Verdict::Dead(rejection));
    }
}
