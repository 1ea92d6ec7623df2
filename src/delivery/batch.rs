//! When events go together in a batch, which ones, and what its answer means for each.
//!
//! A batch is stored as a whole and in order, or not at all. It lifts the round trip that each event
//! of a key waits for, and a broker that syncs before it acknowledges does so once a batch.

use std::time::{Duration, Instant};

use super::{
    Delivery, Permit, Switch, Ticket, Transition,
    lanes::{BatchRoom, Doubt},
    pace::{Load, Pace},
    retry::Backoff,
};

/// Events of one batch at most, by the protocol.
pub const BATCH_EVENTS_MAX: usize = 1000;

/// Fewer events are no batch that is worth its cost.
const WORTH: usize = if cfg!(test) { 2 } else { 16 };

/// Batches on their way at most: while one is stored, the next is sent.
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

/// Whether a stream takes batches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Batching {
    /// It does, and they are wanted whether or not they are faster.
    Wanted,
    /// It does.
    Taken,
    /// It would, if its `allow_atomic` were set.
    Off,
    /// Its server does not know of them, or nothing is known of it.
    #[default]
    Unknown,
}

/// What is known of batches.
#[derive(Debug, Default)]
pub(super) struct Batches {
    stream: Batching,
    failures: u32,
    not_before: Option<Instant>,
    on_their_way: usize,
    /// Whether batches are faster.
    pace: Pace,
}

impl Batches {
    fn may_go(&self, now: Instant) -> bool {
        let is_wanted = match self.stream {
            Batching::Wanted => true,
            Batching::Taken => self.pace.is_batched(),
            Batching::Off | Batching::Unknown => false,
        };
        is_wanted && self.not_before.is_none_or(|at| at <= now)
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
    pub fn set_batches(&mut self, stream: Batching) {
        self.batches.stream = stream;
    }

    /// Measures whether batches are faster than single messages. Returns it when that
    /// has changed.
    pub fn measure(&mut self, now: Instant) -> Option<Switch> {
        if self.batches.stream != Batching::Taken {
            return None;
        }
        let is_busy = self.lanes.len() >= 2 * self.window.in_flight_max()
            && self.breaker.permit(now) == Permit::Flow;
        let load = if is_busy { Load::Full } else { Load::Light };
        self.batches.pace.measure(self.window.acked_total(), load, now)
    }

    /// A new connection, perhaps to another server.
    pub fn measure_anew(&mut self) {
        self.batches.pace = Pace::default();
    }

    /// How an event goes that may go now. The caller says what became of a batch, with
    /// [`Delivery::sent_together`], [`Delivery::give_back_together`] or [`Delivery::refuse`].
    pub fn company(&mut self, first: Ticket, now: Instant) -> Company {
        if !self.batches.may_go(now) || self.breaker.permit(now) != Permit::Flow {
            return Company::Alone;
        }
        let (room, whole) = (self.window.room_for_batch(), self.window.whole());
        let on_their_way = self.batches.on_their_way;
        // A lane that is all there is has one on its way at a time.
        let parts = if self.lanes.is_nothing_ready() { 1 } else { PIPELINED };
        let most = (whole.events / parts).min(BATCH_EVENTS_MAX);
        let waiting = self.lanes.len() - self.window.in_flight().min(self.lanes.len());
        // What goes alone gives its room back message by message, and no batch would fit in that.
        let is_cramped = room.events < most.min(waiting) / 2;
        if on_their_way >= PIPELINED || is_cramped {
            self.lanes.again(first);
            return Company::Later;
        }
        let recognised_since = now.checked_sub(self.recognised_for);
        let events = room.events.min(most);
        let room = BatchRoom { events, recognised_since, ..room };
        let batch = self.lanes.batch(first, room);
        if batch.len() >= WORTH {
            return Company::Together(batch);
        }
        if on_their_way == 0 || batch.is_empty() {
            self.lanes.give_back_together(batch.get(1..).unwrap_or_default());
            return Company::Alone;
        }
        self.lanes.give_back_together(&batch);
        Company::Later
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
        self.apart(batch, Doubt::Earlier, now);
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
            // What is refused is not stored; but that rests on all of the broker's servers, and looking
            // costs little.
            BatchOutcome::Refused { .. } => self.apart(batch, Doubt::Earlier, now),
            BatchOutcome::Unconfirmed => self.apart(batch, Doubt::Unanswered, now),
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

    fn apart(&mut self, batch: &[Ticket], doubt: Doubt, now: Instant) -> Transition {
        self.batches.failed(now);
        self.batches.answered();
        for ticket in batch {
            let Some((event, _)) = self.lanes.event(*ticket) else { continue };
            self.window.release(event.payload.len());
        }
        self.lanes.apart(batch, doubt);
        Transition::None
    }
}
