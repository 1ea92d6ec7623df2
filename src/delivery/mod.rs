//! The decisions: order, retry, breaker, window and what is settled. No I/O, no clock, no tokio.
//!
//! All state is plain values that the relay's one task owns. Time comes in as `now`. The calls are
//! `admit` → `next` → `resolve` → `take_settlement`, in the order of the walk of one row (see the
//! crate's documentation). The simulation in `sim` drives the same calls.

mod lease;
mod letters;
mod order;
mod outcome;
mod pace;
#[cfg(test)]
pub(crate) mod sim;
mod uncertainty;

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use crate::event::{Event, Payload, Position, Seq, Snapshot};
use letters::run::LetterRuns;
use order::{batching::Batcher, blocked::Blocked, lanes::RemovedLane};
use uncertainty::predecessor::Predecessor;

pub use lease::{HEARD_WITHIN, LEASE_MAX, Lease, trusted_for};
pub use letters::run::{
    KeyLetters, LETTERS_MAX, LetterChange, LetterId, LetterReadiness, Mark, Record, Records,
    RecordsPart, StoredLetter,
};
pub use order::{
    batching::{BATCH_EVENTS_MAX, BatchKind, BatchOutcome, BatchSupport, Batching, Grouping},
    blocked::{BlockedBounds, Certainty},
    lanes::{Lanes, Ticket},
    progress::Progress,
};
pub use outcome::{
    Attempt, Closure, ClosureKind, Fate, NewLetter, Outcome, PartEnd, Rejection, Retry, Settlement,
    StreamMark, Verdict,
};
pub use pace::{
    backoff::{Backoff, Growth, RetryPolicy},
    breaker::{Breaker, Permit, Transition},
    trial::TrialResult,
    window::{Window, WindowLimits},
};
pub use uncertainty::{
    capabilities::Capabilities,
    last_values::LastValues,
    predecessor::EarlierRun,
    scan_result::{SCANNED_IDS_MAX, ScanResult},
};

/// The consequence of a dead letter for the later events of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDead {
    /// The later events wait, as held letters, until the dead one is redriven or discarded.
    Hold,
    /// The later events are published; the dead letter records the gap.
    Skip,
}

/// Most rows that may be fetched and not yet settled, decided ones included. At the bound nothing
/// is fetched until the oldest row is decided.
pub const UNSETTLED_MAX: usize = 65_536;

/// Most rows fetched while the breaker is open and memory has no event to probe with.
const PROBE_EVENTS: usize = 16;

/// Longest wait before a retry that an event spends in memory, inclusive. For a longer wait it
/// becomes a letter, so that the position can move on.
const STAY_MAX: Duration = Duration::from_millis(500);

/// Rules of a route: the treatment of dead letters and of retries.
#[derive(Debug, Clone, Copy)]
pub struct DeliveryRules {
    /// Consequence of a dead letter for the later events of its key.
    pub on_dead: OnDead,
    /// Retry of a message that the broker refused for now, while it may accept others.
    pub retry: RetryPolicy,
}

/// State with which a holding starts, as read from the database and the log.
#[derive(Debug)]
pub struct Resume {
    /// Position up to which everything is settled.
    pub position: Position,
    /// Rows not yet settled by the position that have a letter already.
    pub lettered: HashSet<Seq>,
    /// Stream sequences that the relay knew at the last settlement.
    pub stream: StreamMark,
    /// Earlier runs that may have sent unsettled rows.
    pub earlier: EarlierRun,
    /// Highest `seq` that may be sent, inclusive: the sent bound that the database has recorded.
    pub sent_to: Seq,
}

/// Decisions of one relay flow, and the state of all its events in memory.
#[derive(Debug)]
pub struct Delivery {
    lanes: Lanes,
    blocked: Blocked,
    progress: Progress,
    letters: LetterRuns,
    breaker: Breaker,
    window: Window,
    rules: DeliveryRules,
    stream: StreamMark,
    /// Unsettled events that scans have found in the log.
    scan_result: ScanResult,
    last_values: LastValues,
    lettered: HashSet<Seq>,
    /// Ticket below which every event is settled in the database.
    settled_up_to: Ticket,
    /// How long an event may be sent again without a scan, because the log recognises its id.
    recognised_for: Duration,
    /// Longest time after the relay has given up waiting for a message's answer in which that
    /// message may still reach the log.
    late_max: Duration,
    /// Whether the log can be scanned.
    is_scannable: bool,
    /// Rows and letters that an earlier run may have sent and that are not read again yet.
    predecessor: Predecessor,
    /// Verdicts that wait for a scan. A verdict applies if the scan does not find its event in the
    /// log.
    deferred: FxHashMap<Ticket, DeferredVerdict>,
    /// Events that became dead letters since the last [`Delivery::take_dead_events`].
    dead_events: Vec<DeadEvent>,
    batcher: Batcher,
    /// Highest `seq` that was read.
    read_to: Seq,
    /// Highest `seq` that may be sent, inclusive: the sent bound that the database has recorded.
    sent_to: Seq,
}

/// Verdict that waits for a scan. Once the scan shows that the log does not contain the event, the
/// event leaves the fast path.
#[derive(Debug)]
enum DeferredVerdict {
    Dead { reason: Rejection, attempts: u32 },
    Retrying(Retry),
}

/// An event that becomes a dead letter.
#[derive(Debug, Clone)]
pub struct DeadEvent {
    /// The event's place in the outbox.
    pub seq: Seq,
    /// Reason for which the event is dead.
    pub reason: Rejection,
}

/// Room for a fetch: how much may be read into memory now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchBudget {
    /// Most events that may be read.
    pub events: usize,
    /// Most bytes of payload that may be read.
    pub bytes: usize,
}

impl Delivery {
    /// Resumes from the state in the database. The caller passes the blocked keys to
    /// [`Delivery::block_keys`] before it admits events.
    pub fn resume(
        resume: Resume,
        limits: WindowLimits,
        rules: DeliveryRules,
        now: Instant,
    ) -> Self {
        let Resume { position, lettered, stream, earlier, sent_to } = resume;
        Self {
            lanes: Lanes::default(),
            blocked: Blocked::new(BlockedBounds::default()),
            progress: Progress::resume(position, Ticket(0)),
            letters: LetterRuns::default(),
            breaker: Breaker::new(),
            window: Window::new(limits),
            rules,
            stream,
            scan_result: ScanResult::default(),
            last_values: LastValues::default(),
            lettered,
            settled_up_to: Ticket(0),
            recognised_for: Duration::MAX,
            late_max: Duration::ZERO,
            is_scannable: true,
            predecessor: Predecessor::of(earlier, stream.floor, now),
            deferred: FxHashMap::default(),
            dead_events: Vec::new(),
            batcher: Batcher::default(),
            read_to: Seq(0),
            sent_to,
        }
    }

    /// Room for a fetch. It is zero while memory is full, too many rows are unsettled or a scan has
    /// to come first. While the breaker is open it is enough for a probe, and zero once memory has
    /// an event to probe with.
    pub fn room(&self) -> FetchBudget {
        let room = self.window.room(self.lanes.len(), self.lanes.bytes());
        let closed = self.breaker.cause().is_some() && !self.lanes.is_empty();
        let closed = closed || self.scan_again_at().is_some();
        if closed || self.progress.unsettled() >= UNSETTLED_MAX {
            return FetchBudget { events: 0, bytes: 0 };
        }
        match self.breaker.cause() {
            None => room,
            Some(_) => FetchBudget { events: room.events.min(PROBE_EVENTS), ..room },
        }
    }

    /// Position at which the next page begins.
    pub fn cursor(&self) -> Position {
        self.progress.cursor()
    }

    /// Begins a new target: the rows that became visible since the last one.
    ///
    /// `floor` is an exclusive lower bound for the `seq` of rows whose transaction begins after the
    /// target was taken.
    pub fn begin(&mut self, target: Snapshot, floor: Seq) {
        self.predecessor.target_begun();
        self.progress.begin(target, floor);
    }

    /// Admits a page of rows, in the order of their `seq`.
    pub fn admit<E: Into<Box<Event>>>(&mut self, events: impl IntoIterator<Item = E>) {
        for event in events.into_iter().map(Into::into) {
            self.predecessor.row_read(event.seq);
            self.read_to = self.read_to.max(event.seq);
            let ticket = self.progress.admit(event.seq, self.floor_now());
            if self.lettered.contains(&event.seq) {
                self.progress.resolve(ticket, Verdict::Lettered);
            } else if self.is_found(&event) {
                self.progress.resolve(ticket, Verdict::Published);
            } else if let Payload::Unreadable { reason } = &event.payload {
                let text = format!("the database cannot read this row: {reason}");
                self.dead_letter_at_once(
                    ticket,
                    &event,
                    Rejection { code: "unreadable_row", text },
                );
            } else if let Some(certainty) =
                self.blocked.check_event(ticket, &event, self.settled_up_to)
            {
                self.progress.resolve(ticket, Verdict::Held(certainty));
            } else {
                let since =
                    self.uncertain_since().filter(|_| self.predecessor.may_have_sent(event.seq));
                let uncertain = since.map(|since| (since, self.predecessor.scanned_to()));
                self.lanes.admit(ticket, event, 0, uncertain);
            }
        }
    }

    /// Notes that rows up to `seq`, inclusive, were read. Rows among them that were not admitted
    /// belong to other flows.
    pub fn filtered_to(&mut self, seq: Seq) {
        self.progress.filtered_to(seq);
    }

    /// Notes that the last page up to the target was admitted.
    pub fn exhausted(&mut self) {
        self.progress.exhausted();
        self.predecessor.target_exhausted();
        self.drop_scan_result();
    }

    /// Exclusive lower bound for the stream sequence of any event that is admitted now.
    fn floor_now(&self) -> u64 {
        self.predecessor.stream_floor().unwrap_or(self.stream.acked)
    }

    /// Next event to send; `None` while none may be sent.
    ///
    /// The caller then reports the result: [`Delivery::sent`], [`Delivery::refuse`] or
    /// [`Delivery::give_back`].
    pub fn next(&mut self, now: Instant) -> Option<Ticket> {
        if self.is_beyond_sent_to() {
            return None;
        }
        match self.breaker.permit(now) {
            Permit::No(_) => None,
            Permit::Flow if !self.window.has_room() => None,
            Permit::Flow | Permit::Probe => self.next_ready(now),
        }
    }

    /// Whether memory has an event that was read without its payload, as too large, and that fits
    /// the limit of `message_bytes_max` bytes.
    pub fn has_left_out(&self, message_bytes_max: u64) -> bool {
        self.lanes.events().any(|event| {
            matches!(event.payload, Payload::Oversize { bytes } if bytes <= message_bytes_max)
        })
    }

    /// Events that are in flight as single messages, not in a batch, and that meet a condition.
    pub fn in_flight_matching(&self, condition: impl Fn(&Event) -> bool) -> Vec<Ticket> {
        self.lanes.in_flight_matching(condition)
    }

    /// Event of a ticket, and whether it was sent before.
    pub fn event(&self, ticket: Ticket) -> Option<(&Event, bool)> {
        self.lanes.event(ticket)
    }

    /// Notes that the event was handed to the broker.
    pub fn sent(&mut self, ticket: Ticket, now: Instant) {
        let bytes = self.lanes.event(ticket).map_or(0, |(event, _)| event.payload.len());
        self.lanes.sent(ticket, self.stream.acked, now);
        self.window.take(bytes);
        if self.breaker.permit(now) == Permit::Probe {
            self.breaker.probing();
        }
    }

    /// Puts back an event that could not be handed over just now.
    pub fn give_back(&mut self, ticket: Ticket) {
        self.lanes.requeue(ticket);
    }

    /// Rejects an event that cannot be encoded as a message; the broker never sees it.
    pub fn refuse(&mut self, ticket: Ticket, rejection: Rejection, now: Instant) {
        let attempts = self.lanes.attempts(ticket) + 1;
        self.dead_letter(ticket, rejection, attempts, now);
    }

    /// Judges the broker's answer about an event in flight.
    pub fn resolve(&mut self, ticket: Ticket, outcome: Outcome, now: Instant) -> Transition {
        let Some((event, _)) = self.lanes.event(ticket) else { return Transition::None };
        let id = event.id;
        if !self.lanes.is_in_flight(ticket) {
            return Transition::None;
        }
        self.window.release(event.payload.len());
        match outcome {
            Outcome::Acked { stream_seq, duplicate } => {
                self.window.acked();
                let went_back = !duplicate && stream_seq <= self.lanes.sent_above(ticket);
                self.note_stream_seq(stream_seq, id);
                self.mark_published(ticket, stream_seq);
                let transition = self.breaker.succeed();
                if went_back { Transition::WentBack } else { transition }
            }
            Outcome::Rejected(rejection) => {
                let attempts = self.lanes.attempts(ticket) + 1;
                self.dead_letter(ticket, rejection, attempts, now);
                self.breaker.succeed()
            }
            Outcome::Unconfirmed => {
                self.lanes.unconfirmed(ticket, now);
                self.breaker.probe_unanswered(now);
                Transition::None
            }
            Outcome::Busy { reason, attempt } => {
                self.retry_later(ticket, reason, attempt, now);
                self.breaker.succeed()
            }
            Outcome::Unavailable(closure) => {
                self.lanes.requeue(ticket);
                self.close_gate(closure, now)
            }
        }
    }

    /// Stream sequences that the relay knows now. Every sent and unsettled event is stored above
    /// the `floor` among them, so a scan begins there.
    pub fn stream_mark(&self) -> StreamMark {
        let floors = [self.progress.stream_floor(), self.letters.stream_floor()];
        let floor = floors.into_iter().flatten().min().unwrap_or(self.stream.acked);
        StreamMark { floor: floor.min(self.floor_now()), ..self.stream }
    }

    /// Closes the publishing gate: no event can be published just now.
    pub fn close_gate(&mut self, closure: Closure, now: Instant) -> Transition {
        self.window.slow_start();
        self.breaker.fail(closure, now)
    }

    /// Opens the publishing gate: the log was verified while memory has no event to probe with.
    pub fn open_gate(&mut self) -> Transition {
        self.breaker.reset()
    }

    /// Narrows the window after a new connection; acknowledgements widen it again.
    pub fn slow_start(&mut self) {
        self.window.slow_start();
    }

    /// Breaker of the log, which says whether and why publishing pauses.
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Time at which the next delayed event or probe may be sent.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        match self.breaker.permit(now) {
            Permit::No(until) => until,
            Permit::Flow | Permit::Probe => self.lanes.next_due(),
        }
    }

    /// Number of events in memory, those in flight included.
    pub fn events(&self) -> usize {
        self.lanes.len()
    }

    /// Number of events in flight.
    pub fn in_flight(&self) -> usize {
        self.window.in_flight()
    }

    /// Number of rows that the next settlement would settle.
    pub fn settleable(&self) -> usize {
        self.progress.settleable()
    }

    /// Whether the next settlement has as many letters as a settlement may have.
    pub fn is_full(&self) -> bool {
        self.progress.is_full()
    }

    /// Whether the position moved since the last settlement was taken.
    pub fn has_moved(&self) -> bool {
        self.progress.has_moved()
    }

    /// Next settlement, if the position moved. The caller keeps it until it is committed.
    pub fn take_settlement(&mut self) -> Option<Settlement> {
        self.progress.take_settlement(self.stream_mark())
    }

    /// Notes that a settlement is committed.
    pub fn settled(&mut self, settlement: &Settlement) {
        self.settled_up_to = self.settled_up_to.max(settlement.up_to);
        self.forget_last_values();
    }

    /// Ticket below which every event is settled in the database.
    pub fn settled_up_to(&self) -> Ticket {
        self.settled_up_to
    }

    /// Events that became dead letters since the last call; their records may not be written yet.
    pub fn take_dead_events(&mut self) -> Vec<DeadEvent> {
        std::mem::take(&mut self.dead_events)
    }

    /// Makes the event a dead letter after `attempts` tries. For an uncertain event this waits
    /// until a conclusive scan has not found it.
    fn dead_letter(&mut self, ticket: Ticket, reason: Rejection, attempts: u32, now: Instant) {
        if self.has_to_be_scanned_for(ticket, now) {
            self.deferred.insert(ticket, DeferredVerdict::Dead { reason, attempts });
            return;
        }
        self.leave_as_dead(ticket, reason, attempts);
    }

    fn leave_as_dead(&mut self, ticket: Ticket, reason: Rejection, attempts: u32) {
        if let Some((event, _)) = self.lanes.event(ticket) {
            self.dead_events.push(DeadEvent { seq: event.seq, reason: reason.clone() });
        }
        let on_dead = self.rules.on_dead;
        if let Some(tried) = self.letters.loaded(ticket) {
            let holds = tried.holds && on_dead == OnDead::Hold;
            self.set_back(ticket, LetterChange::Dead { reason, attempts, holds });
            return;
        }
        match on_dead {
            OnDead::Hold => self.leave_and_hold(ticket, Verdict::Dead { reason, attempts }),
            OnDead::Skip => {
                self.lanes.leave(ticket);
                self.progress.resolve(ticket, Verdict::Dead { reason, attempts });
            }
        }
    }

    /// Removes the event and its lane from the fast path; the events behind it become held letters.
    fn leave_and_hold(&mut self, ticket: Ticket, verdict: Verdict) {
        if let Some(RemovedLane { key, last, behind }) = self.lanes.leave_with_lane(ticket) {
            self.blocked.block(key, last);
            for behind in behind {
                if behind.is_letter() {
                    // This event of the lane is a loaded letter. It goes back to the table of
                    // letters, and is published in turn with the others of its key.
                    drop(self.letters.set_back(behind, LetterChange::Held));
                } else {
                    self.progress.resolve(behind, Verdict::Held(Certainty::Known));
                }
            }
        }
        self.progress.resolve(ticket, verdict);
    }
}
