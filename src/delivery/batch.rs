//! When events go together in a batch, which ones, and what its answer means for each.
//!
//! A batch is stored as a whole and in order, or not at all. It lifts the round trip that each event
//! of a key waits for, and a broker that syncs before it acknowledges does so once a batch.

use std::time::{Duration, Instant};

use super::{
    Delivery, Permit, Switch, Ticket, Transition, lanes::BatchRoom, pace::Pace, retry::Backoff,
};

/// Events of one batch at most, by the protocol.
pub const BATCH_EVENTS_MAX: usize = 1000;

/// For so many events a long lane makes others wait, so that its batch is worth its cost.
const WORTH_WAITING: usize = 256;

/// Batches of everything on their way at most.
const PIPELINED: usize = 2;

/// The waits before another batch, when batches are refused or not answered.
const AFTER_FAILURE: Backoff =
    Backoff { first: Duration::from_millis(100), longest: Duration::from_mins(1) };

/// How an event may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Company {
    /// By itself.
    Alone,
    /// With these, of which it is the first.
    Together(Vec<Ticket>),
    /// Not yet: what is on its way has to make room. The event was given back.
    Later,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchOutcome {
    /// The stream holds all of it, in order and without a gap.
    Committed {
        /// The stream sequence of its last message.
        last_seq: u64,
    },
    /// The stream took none of it.
    Refused {
        /// What the broker said.
        text: String,
    },
    /// No answer: all of it is stored, or nothing.
    Unconfirmed,
}

/// What is known of batches.
#[derive(Debug, Default)]
pub(super) struct Batches {
    /// Whether the stream takes them.
    are_taken: bool,
    failures: u32,
    not_before: Option<Instant>,
    on_their_way: usize,
    /// Whether everything goes in batches, not only long lanes.
    pace: Pace,
}

impl Batches {
    fn may_go(&self, now: Instant) -> bool {
        self.are_taken && self.not_before.is_none_or(|at| at <= now)
    }

    /// They are never needed: what does not work is left alone for a while.
    fn failed(&mut self, now: Instant) {
        self.failures += 1;
        self.not_before = Some(now + AFTER_FAILURE.after(self.failures));
    }

    fn answered(&mut self) {
        self.on_their_way = self.on_their_way.saturating_sub(1);
    }

    fn succeeded(&mut self) {
        self.failures = 0;
        self.not_before = None;
    }
}

impl Delivery {
    /// Whether the stream takes batches.
    pub fn set_batches(&mut self, are_taken: bool) {
        self.batches.are_taken = are_taken;
    }

    /// Measures whether batches of everything are faster than single messages. Returns it when that
    /// has changed.
    pub fn measure(&mut self, now: Instant) -> Option<Switch> {
        if !self.batches.may_go(now) {
            return None;
        }
        let is_busy = self.lanes.len() >= 2 * self.window.in_flight_max()
            && self.breaker.permit(now) == Permit::Flow;
        self.batches.pace.measure(self.window.acked_total(), is_busy, now)
    }

    /// As if that had been measured.
    #[cfg(test)]
    pub(super) fn set_batched(&mut self, is_batched: bool, now: Instant) {
        self.batches.pace.set_batched(is_batched, now);
    }

    /// A new connection, perhaps to another server.
    pub fn measure_anew(&mut self) {
        self.batches.pace = Pace::default();
    }

    /// How an event goes that may go now. The caller says what became of a batch, with
    /// [`Delivery::sent_together`], [`Delivery::give_back_together`] or [`Delivery::refuse`].
    pub fn company(&mut self, first: Ticket, now: Instant) -> Company {
        let long = self.lanes.take_long(first);
        if !self.batches.may_go(now) || self.breaker.permit(now) != Permit::Flow {
            return Company::Alone;
        }
        match long {
            Some(length) => self.long_lane(first, length),
            None if self.batches.pace.is_batched() => self.everything(first),
            None => Company::Alone,
        }
    }

    /// Whatever may go, together: while one batch is synced, the next is on its way.
    fn everything(&mut self, first: Ticket) -> Company {
        if self.batches.on_their_way >= PIPELINED {
            self.lanes.again(first);
            return Company::Later;
        }
        let (room, whole) = (self.window.room_for_batch(), self.window.whole());
        let events = room.events.min(whole.events / PIPELINED).min(BATCH_EVENTS_MAX);
        let batch = self.lanes.batch_of_all(first, BatchRoom { events, ..room });
        together(batch)
    }

    fn long_lane(&mut self, first: Ticket, length: usize) -> Company {
        let (room, whole) = (self.window.room_for_batch(), self.window.whole());
        let worth = length.min(WORTH_WAITING).min(whole.events);
        if room.events < worth {
            self.lanes.keep_long(first);
            self.lanes.again(first);
            return Company::Later;
        }
        let events = room.events.min(length).min(BATCH_EVENTS_MAX);
        let batch = self.lanes.batch_of_lane(first, BatchRoom { events, ..room });
        together(batch)
    }

    /// These were handed to the broker, all of them.
    pub fn sent_together(&mut self, batch: &[Ticket], now: Instant) {
        for ticket in batch {
            let bytes = self.lanes.event(*ticket).map_or(0, |(event, _)| event.payload.len());
            self.window.take(bytes);
        }
        self.batches.on_their_way += 1;
        self.lanes.sent_together(batch, self.stream.acked, now);
    }

    /// These go later: the broker has none of them.
    pub fn give_back_together(&mut self, batch: &[Ticket]) {
        self.lanes.give_back_together(batch);
    }

    /// These could be handed over in part only. The rest will not follow, so the broker stores
    /// none; they go again one by one.
    pub fn broke_off(&mut self, batch: &[Ticket], now: Instant) {
        self.sent_together(batch, now);
        self.apart(batch, false, now);
    }

    /// Judges what the broker told us about a batch.
    pub fn resolve_together(
        &mut self,
        batch: &[Ticket],
        outcome: &BatchOutcome,
        now: Instant,
    ) -> Transition {
        match outcome {
            BatchOutcome::Committed { last_seq } => self.committed(batch, *last_seq),
            BatchOutcome::Refused { .. } => self.apart(batch, false, now),
            BatchOutcome::Unconfirmed => self.apart(batch, true, now),
        }
    }

    fn committed(&mut self, batch: &[Ticket], last_seq: u64) -> Transition {
        self.batches.succeeded();
        self.batches.answered();
        self.lanes.answered_together(batch);
        let first_seq = (last_seq + 1).saturating_sub(batch.len() as u64);
        let went_back =
            batch.first().is_some_and(|first| first_seq <= self.lanes.sent_above(*first));
        for (stream_seq, ticket) in (first_seq..).zip(batch) {
            let Some((event, _)) = self.lanes.event(*ticket) else { continue };
            let id = event.id;
            self.window.release(event.payload.len());
            self.window.acked();
            self.raise(stream_seq, id);
            self.publish(*ticket, stream_seq);
        }
        let transition = self.breaker.succeed();
        if went_back { Transition::WentBack } else { transition }
    }

    fn apart(&mut self, batch: &[Ticket], is_unanswered: bool, now: Instant) -> Transition {
        self.batches.failed(now);
        self.batches.answered();
        for ticket in batch {
            let Some((event, _)) = self.lanes.event(*ticket) else { continue };
            self.window.release(event.payload.len());
        }
        self.lanes.apart(batch, is_unanswered);
        Transition::None
    }
}

/// One alone is no batch: that is the first, or none because the first may not go in one.
fn together(batch: Vec<Ticket>) -> Company {
    if batch.len() < 2 { Company::Alone } else { Company::Together(batch) }
}
