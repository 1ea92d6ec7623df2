//! Batching: when events go in a batch, which ones, and the meaning of its answer for each.
//!
//! A batch spares the round trip that each event of a key waits for. An atomic batch is stored as a
//! whole and in order, or not at all, and a broker that syncs before it acknowledges syncs once. A
//! fast batch is stored message by message, in order, up to the first gap or fault.

use std::time::{Duration, Instant};

use crate::delivery::{
    Backoff, Delivery, Permit, Ticket, Transition, TrialResult,
    order::lanes::{BatchRoom, MissingAnswer},
    pace::trial::{Load, Trial},
};

/// Most events of one batch, by the protocol of JetStream.
pub const BATCH_EVENTS_MAX: usize = 1000;

/// Fewest events that are worth a batch; fewer are sent alone.
const BATCH_EVENTS_MIN: usize = if cfg!(test) { 2 } else { 16 };

/// Most atomic batches in flight: while one is stored, the next is sent.
const PIPELINED: usize = 2;

/// Most fast batches in flight: the server stores their messages while the next ones arrive.
const PIPELINED_FAST: usize = 4;

/// Age, inclusive, from which an unanswered batch is late. While one is late, events that would
/// wait for room in a batch are sent alone.
const LATE_AFTER: Duration = Duration::from_millis(250);

/// Waits before the next batch of a kind, after a batch of that kind was refused or not answered.
const AFTER_FAILURE: Backoff =
    Backoff { first: Duration::from_millis(100), longest: Duration::from_mins(1) };

/// Decision about how the next event is sent: alone, in a batch, or later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grouping {
    /// The event is sent as a message of its own.
    Single,
    /// The event is sent in one batch with these events, as the first of them.
    Batch(BatchKind, Vec<Ticket>),
    /// The event is not sent now: it went back to the queue until the window has room for a batch.
    Wait,
}

/// Kind of a batch: how the log stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchKind {
    /// Stored as a whole, or not at all.
    Atomic,
    /// Stored message by message, in order, up to the first gap or fault.
    Fast,
}

/// Answer of the broker to a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchOutcome {
    /// The log contains the whole batch, in order and without a gap.
    Committed {
        /// Stream sequence of the last message.
        last_seq: u64,
    },
    /// The log has counted each message of a fast batch. The count includes messages whose id it
    /// recognised, and which it did not store again.
    Seen {
        /// Stream sequence of the last message that was stored.
        last_seq: u64,
    },
    /// The log stored no message of the batch.
    Refused {
        /// Answer of the broker, in words for people.
        text: String,
    },
    /// The log stored at most the first messages of a fast batch.
    Broken {
        /// Answer of the broker, in words for people.
        text: String,
    },
    /// No answer, or one without meaning: each message may or may not be stored.
    Unconfirmed,
}

/// Kinds of batches that a log supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchSupport {
    /// Atomic batches only.
    Atomic,
    /// Fast batches only.
    Fast,
    /// Atomic and fast batches.
    Both,
}

impl BatchSupport {
    /// Whether the log supports this kind.
    pub fn has(self, kind: BatchKind) -> bool {
        match kind {
            BatchKind::Atomic => self != Self::Fast,
            BatchKind::Fast => self != Self::Atomic,
        }
    }
}

/// Whether events go in batches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Batching {
    /// Always use batches of this kind.
    Always(BatchKind),
    /// Use a supported kind where it helps: fast batches while the broker limits the rate, atomic
    /// ones while they are measured to be faster.
    IfFaster(BatchSupport),
    /// No batches: the configuration or the settings of the log exclude them.
    Off,
    /// No batches: the server does not support them, or its support is not known yet.
    #[default]
    Unknown,
}

/// State of batching: support, failures, batches in flight and the measured rates.
#[derive(Debug, Default)]
pub(in crate::delivery) struct Batcher {
    stream: Batching,
    atomic: FailureStreak,
    fast: FailureStreak,
    in_flight: Vec<BatchInFlight>,
    /// Measurement that shows whether atomic batches are faster than the other ways of sending.
    trial: Trial,
    /// Load: whether the broker limits the rate of publishing, so that events pile up in memory.
    load: Load,
    /// Last sequence of the log, as measured while nothing was in flight.
    known: u64,
}

/// Recent failures in a row of one kind of batch.
#[derive(Debug, Default)]
struct FailureStreak {
    failures: u32,
    failed_at: Option<Instant>,
}

impl FailureStreak {
    /// Whether a batch may be sent again, because the wait after the last failed one is over.
    fn may_go(&self, now: Instant) -> bool {
        self.failed_at.is_none_or(|at| at + AFTER_FAILURE.after(self.failures) <= now)
    }
}

#[derive(Debug)]
struct BatchInFlight {
    kind: BatchKind,
    first: Ticket,
    sent: Instant,
}

impl Batcher {
    /// Kind of batch in which events may be sent now; `None` when they are sent as single messages.
    fn kind(&self, now: Instant) -> Option<BatchKind> {
        let (atomic, fast) = match self.stream {
            Batching::Always(kind) => (kind == BatchKind::Atomic, kind == BatchKind::Fast),
            // A fast batch has one answer instead of one for each event. But few batches are in
            // flight at a time, so under light load an event would wait for one to be answered.
            Batching::IfFaster(taken) => (
                taken.has(BatchKind::Atomic) && self.trial.is_batched(),
                taken.has(BatchKind::Fast) && self.load == Load::Full,
            ),
            Batching::Off | Batching::Unknown => (false, false),
        };
        let atomic = (atomic && self.atomic.may_go(now)).then_some(BatchKind::Atomic);
        atomic.or_else(|| (fast && self.fast.may_go(now)).then_some(BatchKind::Fast))
    }

    fn streak_of(&mut self, kind: BatchKind) -> &mut FailureStreak {
        match kind {
            BatchKind::Atomic => &mut self.atomic,
            BatchKind::Fast => &mut self.fast,
        }
    }

    fn failed(&mut self, kind: BatchKind, now: Instant) {
        let streak = self.streak_of(kind);
        streak.failures += 1;
        streak.failed_at = Some(now);
    }

    fn succeeded(&mut self, batch: &BatchInFlight) {
        let streak = self.streak_of(batch.kind);
        // A batch that was sent before the last failure proves nothing about the time after it.
        if streak.failed_at.is_none_or(|at| batch.sent > at) {
            *streak = FailureStreak::default();
        }
    }

    fn sent(&mut self, kind: BatchKind, batch: &[Ticket], now: Instant) {
        let first = batch.first().copied();
        self.in_flight.extend(first.map(|first| BatchInFlight { kind, first, sent: now }));
    }

    /// Removes a batch from those in flight, because it is answered or given up.
    fn answered(&mut self, batch: &[Ticket]) -> Option<BatchInFlight> {
        let is_it = |sent: &BatchInFlight| Some(&sent.first) == batch.first();
        let index = self.in_flight.iter().position(is_it)?;
        Some(self.in_flight.swap_remove(index))
    }

    /// Whether any batch in flight is late: unanswered for [`LATE_AFTER`] or longer.
    fn is_one_late(&self, now: Instant) -> bool {
        self.in_flight.iter().any(|batch| batch.sent + LATE_AFTER <= now)
    }
}

impl Delivery {
    /// Sets how events go in batches.
    pub fn set_batches(&mut self, stream: Batching) {
        self.batcher.stream = stream;
    }

    /// Measures whether atomic batches are faster than single messages or fast batches. Returns the
    /// result of the measurement when it has changed.
    pub fn measure(&mut self, now: Instant) -> Option<TrialResult> {
        let Batching::IfFaster(taken) = self.batcher.stream else { return None };
        // Full load begins only when events take half of the memory budget, and ends when they take
        // less than a quarter. So one late page does not end it.
        let part = if self.batcher.load == Load::Full { 4 } else { 2 };
        let is_busy = self.window.is_in_memory(part, self.lanes.len(), self.lanes.bytes())
            && self.breaker.permit(now) == Permit::Flow;
        let load = if is_busy { Load::Full } else { Load::Light };
        self.batcher.load = load;
        if !taken.has(BatchKind::Atomic) {
            return None;
        }
        self.batcher.trial.measure(self.window.acked_total(), load, now)
    }

    /// Interrupts the measurement while nothing may be sent.
    pub fn interrupt_trial(&mut self) {
        self.batcher.trial.interrupt();
    }

    /// Restarts the measurement after a new connection, perhaps to another server.
    pub fn restart_trial(&mut self) {
        self.batcher.trial = Trial::default();
    }

    /// Notes the last sequence of the log. It is ignored while anything is in flight, because a
    /// message in flight may have raised it.
    pub fn stream_reaches(&mut self, last_seq: u64) {
        if self.window.in_flight() == 0 {
            self.batcher.known = last_seq;
        }
    }

    /// Chooses how a ready event is sent. The caller reports the result of a batch with
    /// [`Delivery::batch_sent`], [`Delivery::give_back_batch`] or [`Delivery::refuse`].
    pub fn choose_grouping(&mut self, first: Ticket, now: Instant) -> Grouping {
        let Some(kind) = self.batcher.kind(now) else { return Grouping::Single };
        // In a log of last values each event is first compared with the newest one of its key and
        // subject, so it is sent alone.
        if !self.last_values.is_empty() {
            return Grouping::Single;
        }
        if self.breaker.permit(now) != Permit::Flow {
            return Grouping::Single;
        }
        let (room, whole) = (self.window.room_for_batch(), self.window.whole());
        let in_flight = self.batcher.in_flight.len();
        let is_held_up = self.batcher.is_one_late(now);
        // A lane has one batch in flight at a time. So while no other lane is ready, a batch may
        // fill the whole window.
        let pipelined = match kind {
            BatchKind::Atomic => PIPELINED,
            BatchKind::Fast => PIPELINED_FAST,
        };
        let parts = if self.lanes.is_nothing_ready() { 1 } else { pipelined };
        let most = (whole.events / parts).min(BATCH_EVENTS_MAX);
        let waiting = self.lanes.len() - self.window.in_flight().min(self.lanes.len());
        // Single messages in flight free the window one by one, so a batch that takes the free room
        // at once would stay small.
        let is_cramped = room.events < most.min(waiting) / 2;
        if in_flight >= pipelined || is_cramped {
            if is_held_up {
                return Grouping::Single;
            }
            self.lanes.requeue(first);
            return Grouping::Wait;
        }
        let recognised_since = match kind {
            BatchKind::Atomic => now.checked_sub(self.recognised_for),
            // In a fast batch the log skips a message whose id it recognises, and counts it as
            // stored. So no uncertain event goes in one.
            BatchKind::Fast => Some(now),
        };
        let events = room.events.min(most);
        let room = BatchRoom { events, recognised_since, ..room };
        let batch = self.lanes.batch(first, room);
        if batch.len() >= BATCH_EVENTS_MIN {
            return Grouping::Batch(kind, batch);
        }
        if in_flight == 0 || is_held_up || batch.is_empty() {
            self.lanes.give_back_batch(batch.get(1..).unwrap_or_default());
            return Grouping::Single;
        }
        self.lanes.give_back_batch(&batch);
        Grouping::Wait
    }

    /// Notes that a whole batch was handed to the broker.
    pub fn batch_sent(&mut self, kind: BatchKind, batch: &[Ticket], now: Instant) {
        for ticket in batch {
            let bytes = self.lanes.event(*ticket).map_or(0, |(event, _)| event.payload.len());
            self.window.take(bytes);
        }
        self.batcher.sent(kind, batch, now);
        self.lanes.batch_sent(batch, self.stream.acked, now);
    }

    /// Puts back the events of a batch of which the broker has received no message.
    pub fn give_back_batch(&mut self, batch: &[Ticket]) {
        self.lanes.give_back_batch(batch);
    }

    /// Notes that only the first part of a batch was handed over, and the rest will not follow. Of
    /// an atomic batch the broker stores nothing then, of a fast one the part that it received. The
    /// events are sent again one by one.
    pub fn batch_cut_short(&mut self, kind: BatchKind, batch: &[Ticket], now: Instant) {
        self.batch_sent(kind, batch, now);
        let missing_answer = match kind {
            BatchKind::Atomic => MissingAnswer::Possibly,
            BatchKind::Fast => MissingAnswer::Certainly,
        };
        self.split_batch(batch, missing_answer, now);
    }

    /// Stream sequence of the last message, if the answer proves that the log contains the whole
    /// batch.
    ///
    /// The answer to a fast batch counts messages, also those whose id was recognised. A stored
    /// message takes a sequence of its own. So the whole batch was stored if the log has grown by
    /// the number of its events.
    pub fn all_stored(&self, batch: &[Ticket], outcome: &BatchOutcome) -> Option<u64> {
        match outcome {
            BatchOutcome::Committed { last_seq } => Some(*last_seq),
            BatchOutcome::Seen { last_seq } => {
                (*last_seq == self.expected(batch)).then_some(*last_seq)
            }
            BatchOutcome::Refused { .. }
            | BatchOutcome::Broken { .. }
            | BatchOutcome::Unconfirmed => None,
        }
    }

    /// Stream sequence that the last message of the batch gets if the log stores the whole batch
    /// and nothing else.
    fn expected(&self, batch: &[Ticket]) -> u64 {
        self.stream.acked.max(self.batcher.known) + batch.len() as u64
    }

    /// Judges the broker's answer about a batch.
    pub fn resolve_batch(
        &mut self,
        batch: &[Ticket],
        outcome: &BatchOutcome,
        now: Instant,
    ) -> Transition {
        if let Some(last_seq) = self.all_stored(batch, outcome) {
            return self.stored(batch, last_seq);
        }
        match outcome {
            // A refusal should mean "not stored", but only if every server of the cluster behaves.
            // A scan is cheap, so these events count as possibly stored.
            BatchOutcome::Refused { .. } | BatchOutcome::Committed { .. } => {
                self.split_batch(batch, MissingAnswer::Possibly, now)
            }
            // The log has grown by another number than that of the events: other programs wrote, it
            // recognised an id, or it lost messages. Each event is sent again, and a duplicate is
            // compared with the stored message.
            BatchOutcome::Seen { last_seq } => {
                let is_more = *last_seq > self.expected(batch);
                self.batcher.known = if is_more { *last_seq } else { 0 };
                let transition = self.split_batch(batch, MissingAnswer::Possibly, now);
                if is_more { transition } else { Transition::WentBack }
            }
            BatchOutcome::Broken { .. } | BatchOutcome::Unconfirmed => {
                self.split_batch(batch, MissingAnswer::Certainly, now)
            }
        }
    }

    fn stored(&mut self, batch: &[Ticket], last_seq: u64) -> Transition {
        if let Some(sent) = self.batcher.answered(batch) {
            self.batcher.succeeded(&sent);
        }
        let first_seq = (last_seq + 1).saturating_sub(batch.len() as u64);
        let went_back =
            batch.first().is_some_and(|first| first_seq <= self.lanes.sent_above(*first));
        for (stream_seq, ticket) in (first_seq..).zip(batch) {
            let Some((event, _)) = self.lanes.event(*ticket) else { continue };
            let id = event.id;
            self.window.release(event.payload.len());
            self.window.acked();
            self.note_stream_seq(stream_seq, id);
            self.mark_published(*ticket, stream_seq);
        }
        // The batch counts as answered only now, so that none of its events became ready in its
        // lane before.
        self.lanes.batch_answered(batch);
        let transition = self.breaker.succeed();
        if went_back { Transition::WentBack } else { transition }
    }

    fn split_batch(
        &mut self,
        batch: &[Ticket],
        missing_answer: MissingAnswer,
        now: Instant,
    ) -> Transition {
        if let Some(sent) = self.batcher.answered(batch) {
            self.batcher.failed(sent.kind, now);
        }
        for ticket in batch {
            let Some((event, _)) = self.lanes.event(*ticket) else { continue };
            self.window.release(event.payload.len());
        }
        self.lanes.split_batch(batch, missing_answer, now);
        Transition::None
    }
}

#[cfg(test)]
mod tests;
