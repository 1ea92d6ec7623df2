//! When events go together in a batch, which ones, and what its answer means for each.
//!
//! A batch lifts the round trip that each event of a key waits for. An atomic one is stored as a whole
//! and in order, or not at all, and a broker that syncs before it acknowledges does so once. Of
//! a fast one the stream takes what comes, in order, up to the first gap or fault.

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

/// Atomic batches on their way at most: while one is stored, the next is sent.
const PIPELINED: usize = 2;

/// Fast ones, of which the server stores what it has while the next messages come.
const PIPELINED_FAST: usize = 4;

/// A batch that is not answered by then holds nobody up: what cannot go in another one goes alone.
const PROMPT: Duration = Duration::from_millis(250);

/// The waits before another batch, when batches are refused or not answered.
const AFTER_FAILURE: Backoff =
    Backoff { first: Duration::from_millis(100), longest: Duration::from_mins(1) };

/// How an event may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Company {
    /// By itself.
    Alone,
    /// With these, of which it is the first.
    Together(BatchKind, Vec<Ticket>),
    /// Not yet: what is on its way has to make room. The event was given back.
    Later,
}

/// How a batch is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchKind {
    /// As a whole, or not at all.
    Atomic,
    /// Message by message, up to the first gap or fault.
    Fast,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchOutcome {
    /// The stream holds all of it, in order and without a gap.
    Committed {
        /// The stream sequence of its last message.
        last_seq: u64,
    },
    /// The stream has seen each message of a fast batch. Those whose id it recognised count too.
    Seen {
        /// The stream sequence of the last that was stored.
        last_seq: u64,
    },
    /// The stream took none of it.
    Refused {
        /// What the broker said.
        text: String,
    },
    /// The stream took no more than the first messages of a fast batch.
    Broken {
        /// What the broker said.
        text: String,
    },
    /// No answer, or one that says nothing.
    Unconfirmed,
}

/// Which batches a stream takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Atomic ones.
    Atomic,
    /// Fast ones.
    Fast,
    /// Either.
    Both,
}

impl Taken {
    /// Whether it takes such ones.
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
    /// In such ones, whether or not they are faster.
    Wanted(BatchKind),
    /// In one of those that the stream takes, where that is faster.
    Taken(Taken),
    /// They do not: the stream could take some, but is not set up to, or they are not wanted.
    Off,
    /// Its server does not know of them, or nothing is known of it.
    #[default]
    Unknown,
}

/// What is known of batches.
#[derive(Debug, Default)]
pub(super) struct Batches {
    stream: Batching,
    atomic: Trials,
    fast: Trials,
    on_their_way: Vec<OnItsWay>,
    /// Whether atomic batches are faster.
    pace: Pace,
    /// Whether the broker is what limits the rate.
    load: Load,
    /// The stream's last sequence, as it was seen when nothing was on its way.
    known: u64,
}

/// How those of one kind went of late.
#[derive(Debug, Default)]
struct Trials {
    failures: u32,
    failed_at: Option<Instant>,
}

impl Trials {
    /// They are never needed: what does not work is left alone for a while.
    fn may_go(&self, now: Instant) -> bool {
        self.failed_at.is_none_or(|at| at + AFTER_FAILURE.after(self.failures) <= now)
    }
}

#[derive(Debug)]
struct OnItsWay {
    kind: BatchKind,
    first: Ticket,
    sent: Instant,
}

impl Batches {
    /// Which batches may go now.
    fn kind(&self, now: Instant) -> Option<BatchKind> {
        let (atomic, fast) = match self.stream {
            Batching::Wanted(kind) => (kind == BatchKind::Atomic, kind == BatchKind::Fast),
            // A fast one spares an answer to each event. But few are on their way at a time: as long as
            // there is little to do, an event should not wait for its turn.
            Batching::Taken(taken) => (
                taken.has(BatchKind::Atomic) && self.pace.is_batched(),
                taken.has(BatchKind::Fast) && self.load == Load::Full,
            ),
            Batching::Off | Batching::Unknown => (false, false),
        };
        let atomic = (atomic && self.atomic.may_go(now)).then_some(BatchKind::Atomic);
        atomic.or_else(|| (fast && self.fast.may_go(now)).then_some(BatchKind::Fast))
    }

    fn trials(&mut self, kind: BatchKind) -> &mut Trials {
        match kind {
            BatchKind::Atomic => &mut self.atomic,
            BatchKind::Fast => &mut self.fast,
        }
    }

    fn failed(&mut self, kind: BatchKind, now: Instant) {
        let trials = self.trials(kind);
        trials.failures += 1;
        trials.failed_at = Some(now);
    }

    fn succeeded(&mut self, batch: &OnItsWay) {
        let trials = self.trials(batch.kind);
        // One that was sent before the last failure says nothing about what came after.
        if trials.failed_at.is_none_or(|at| batch.sent > at) {
            *trials = Trials::default();
        }
    }

    fn sent(&mut self, kind: BatchKind, batch: &[Ticket], now: Instant) {
        let first = batch.first().copied();
        self.on_their_way.extend(first.map(|first| OnItsWay { kind, first, sent: now }));
    }

    /// Nobody waits for its answer any more.
    fn answered(&mut self, batch: &[Ticket]) -> Option<OnItsWay> {
        let is_it = |sent: &OnItsWay| Some(&sent.first) == batch.first();
        let index = self.on_their_way.iter().position(is_it)?;
        Some(self.on_their_way.swap_remove(index))
    }

    /// Whether one of them should have been answered by now.
    fn is_one_late(&self, now: Instant) -> bool {
        self.on_their_way.iter().any(|batch| batch.sent + PROMPT <= now)
    }
}

impl Delivery {
    /// Whether the stream takes batches.
    pub fn set_batches(&mut self, stream: Batching) {
        self.batches.stream = stream;
    }

    /// Measures whether atomic batches are faster than what goes otherwise. Returns it when that
    /// has changed.
    pub fn measure(&mut self, now: Instant) -> Option<Switch> {
        let Batching::Taken(taken) = self.batches.stream else { return None };
        // It takes less to go on than to begin: a page that is late is no lack of events.
        let part = if self.batches.load == Load::Full { 4 } else { 2 };
        let is_busy = self.window.is_in_memory(part, self.lanes.len(), self.lanes.bytes())
            && self.breaker.permit(now) == Permit::Flow;
        let load = if is_busy { Load::Full } else { Load::Light };
        self.batches.load = load;
        if !taken.has(BatchKind::Atomic) {
            return None;
        }
        self.batches.pace.measure(self.window.acked_total(), load, now)
    }

    /// Nothing may go at present, which says nothing about the broker's speed.
    pub fn interrupt_measuring(&mut self) {
        self.batches.pace.interrupt();
    }

    /// A new connection, perhaps to another server.
    pub fn measure_anew(&mut self) {
        self.batches.pace = Pace::default();
    }

    /// The stream was seen to reach up to this sequence. That counts while nothing is on its way.
    pub fn stream_reaches(&mut self, last_seq: u64) {
        if self.window.in_flight() == 0 {
            self.batches.known = last_seq;
        }
    }

    /// How an event goes that may go now. The caller says what became of a batch, with
    /// [`Delivery::sent_together`], [`Delivery::give_back_together`] or [`Delivery::refuse`].
    pub fn company(&mut self, first: Ticket, now: Instant) -> Company {
        let Some(kind) = self.batches.kind(now) else { return Company::Alone };
        // Each is compared with the last values of the stream first.
        if !self.latest.is_empty() {
            return Company::Alone;
        }
        if self.breaker.permit(now) != Permit::Flow {
            return Company::Alone;
        }
        let (room, whole) = (self.window.room_for_batch(), self.window.whole());
        let on_their_way = self.batches.on_their_way.len();
        let is_held_up = self.batches.is_one_late(now);
        // A lane that is all there is has one on its way at a time.
        let pipelined = match kind {
            BatchKind::Atomic => PIPELINED,
            BatchKind::Fast => PIPELINED_FAST,
        };
        let parts = if self.lanes.is_nothing_ready() { 1 } else { pipelined };
        let most = (whole.events / parts).min(BATCH_EVENTS_MAX);
        let waiting = self.lanes.len() - self.window.in_flight().min(self.lanes.len());
        // What goes alone gives its room back message by message, and no batch would fit in that.
        let is_cramped = room.events < most.min(waiting) / 2;
        if on_their_way >= pipelined || is_cramped {
            if is_held_up {
                return Company::Alone;
            }
            self.lanes.again(first);
            return Company::Later;
        }
        let recognised_since = match kind {
            BatchKind::Atomic => now.checked_sub(self.recognised_for),
            // What is recognised is passed over, and counted as if it were stored.
            BatchKind::Fast => Some(now),
        };
        let events = room.events.min(most);
        let room = BatchRoom { events, recognised_since, ..room };
        let batch = self.lanes.batch(first, room);
        if batch.len() >= WORTH {
            return Company::Together(kind, batch);
        }
        if on_their_way == 0 || is_held_up || batch.is_empty() {
            self.lanes.give_back_together(batch.get(1..).unwrap_or_default());
            return Company::Alone;
        }
        self.lanes.give_back_together(&batch);
        Company::Later
    }

    /// These were handed to the broker, all of them.
    pub fn sent_together(&mut self, kind: BatchKind, batch: &[Ticket], now: Instant) {
        for ticket in batch {
            let bytes = self.lanes.event(*ticket).map_or(0, |(event, _)| event.payload.len());
            self.window.take(bytes);
        }
        self.batches.sent(kind, batch, now);
        self.lanes.sent_together(batch, self.stream.acked, now);
    }

    /// These go later: the broker has none of them.
    pub fn give_back_together(&mut self, batch: &[Ticket]) {
        self.lanes.give_back_together(batch);
    }

    /// These could be handed over in part only, and the rest will not follow. Of an atomic batch the
    /// broker stores none then, of a fast one what it got; they go again one by one.
    pub fn broke_off(&mut self, kind: BatchKind, batch: &[Ticket], now: Instant) {
        self.sent_together(kind, batch, now);
        let doubt = match kind {
            BatchKind::Atomic => Doubt::Earlier,
            BatchKind::Fast => Doubt::Unanswered,
        };
        self.apart(batch, doubt, now);
    }

    /// The stream sequence of the last message, when the answer says that the stream holds all of the
    /// batch.
    ///
    /// Of a fast batch only the messages are counted, recognised ones too, and one of those may be
    /// somebody else's. But each that was stored took a sequence of its own: when there are
    /// as many new ones as events, and nobody else has stored anything, all of them were stored.
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

    /// The stream sequence of the last of a batch when all of it is stored and nothing else is.
    fn expected(&self, batch: &[Ticket]) -> u64 {
        self.stream.acked.max(self.batches.known) + batch.len() as u64
    }

    /// Judges what the broker told us about a batch.
    pub fn resolve_together(
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
            // Scanning costs little.
            BatchOutcome::Refused { .. } | BatchOutcome::Committed { .. } => {
                self.apart(batch, Doubt::Earlier, now)
            }
            // Others have written into the stream, or it has recognised some, or it lost what it had:
            // each goes again, and what is a duplicate then is compared.
            BatchOutcome::Seen { last_seq } => {
                let is_more = *last_seq > self.expected(batch);
                self.batches.known = if is_more { *last_seq } else { 0 };
                let transition = self.apart(batch, Doubt::Earlier, now);
                if is_more { transition } else { Transition::WentBack }
            }
            BatchOutcome::Broken { .. } | BatchOutcome::Unconfirmed => {
                self.apart(batch, Doubt::Unanswered, now)
            }
        }
    }

    fn stored(&mut self, batch: &[Ticket], last_seq: u64) -> Transition {
        if let Some(sent) = self.batches.answered(batch) {
            self.batches.succeeded(&sent);
        }
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
        // Not before: as long as they count as a batch, none of them is taken for one that may go.
        self.lanes.answered_together(batch);
        let transition = self.breaker.succeed();
        if went_back { Transition::WentBack } else { transition }
    }

    fn apart(&mut self, batch: &[Ticket], doubt: Doubt, now: Instant) -> Transition {
        if let Some(sent) = self.batches.answered(batch) {
            self.batches.failed(sent.kind, now);
        }
        for ticket in batch {
            let Some((event, _)) = self.lanes.event(*ticket) else { continue };
            self.window.release(event.payload.len());
        }
        self.lanes.apart(batch, doubt, now);
        Transition::None
    }
}

#[cfg(test)]
mod tests;
