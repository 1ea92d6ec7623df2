//! The decisions: order, retry, breaker, window and what is settled. No I/O, no clock, no tokio.
//!
//! Everything here is a plain value that the relay's one task owns. Time comes in as `now`. What
//! may happen is `admit` → `next` → `resolve` → `take_settlement`, in the order of the walk of one
//! row (see the crate's documentation), and the simulation in `sim` drives just these.

mod abilities;
mod batch;
mod before;
mod blocked;
mod bound;
mod breaker;
mod doubt;
mod found;
mod lanes;
mod latest;
mod lease;
mod letters;
mod outcome;
mod pace;
mod progress;
mod retry;
mod retrying;
#[cfg(test)]
pub(crate) mod sim;
mod window;

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use crate::event::{Event, Payload, Position, Seq, Snapshot};
use batch::Batches;
use before::Before;
use blocked::Blocked;
use lanes::Left;
use letters::Letters;

pub use abilities::Abilities;
pub use batch::{BATCH_EVENTS_MAX, BatchKind, BatchOutcome, Batching, Company, Taken};
pub use before::Earlier;
pub use blocked::{BlockedBounds, Hold};
pub use breaker::{Breaker, Permit, Transition};
pub use found::{FOUND_MAX, Found};
pub use lanes::{Lanes, Ticket};
pub use latest::Latest;
pub use lease::{HEARD_WITHIN, LEASE_MAX, Lease, trusted_for};
pub use letters::{
    Change, KeyLetters, LETTERS_MAX, LetterId, Mark, Record, Records, Standing, StoredLetter,
};
pub use outcome::{
    Attempt, Closure, ClosureKind, Fate, Letter, Outcome, Rejection, Retry, Settlement, StreamMark,
    Until, Verdict,
};
pub use pace::Switch;
pub use progress::Progress;
pub use retry::{Backoff, Growth, Policy};
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

/// Waits up to this are waited for in memory; for a longer one the event becomes a letter, so that
/// the position can move on.
const STAY_MAX: Duration = Duration::from_millis(500);

/// What a relay does with the events of its route.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// What the later events of a dead event's key do.
    pub on_dead: OnDead,
    /// How a message is tried again that the broker did not take for its own sake.
    pub retry: Policy,
}

/// What the database and the stream say at the start of a holding.
#[derive(Debug)]
pub struct Resume {
    /// How far everything is settled.
    pub position: Position,
    /// Rows that the position has not passed and that are letters already.
    pub lettered: HashSet<Seq>,
    /// What was known of the stream at the last settlement.
    pub stream: StreamMark,
    /// Who may have sent some of what is not settled.
    pub earlier: Earlier,
    /// The database knows that rows up to this `seq` may be sent.
    pub sent_to: Seq,
}

/// Everything the relay knows about the events in its hands.
#[derive(Debug)]
pub struct Delivery {
    lanes: Lanes,
    blocked: Blocked,
    progress: Progress,
    letters: Letters,
    breaker: Breaker,
    window: Window,
    rules: Rules,
    stream: StreamMark,
    /// What the stream was found to hold of what is not settled.
    found: Found,
    latest: Latest,
    lettered: HashSet<Seq>,
    /// Every event with a lower ticket is settled in the database.
    recorded: Ticket,
    /// How long an event may go again without a scan: the log recognises its id.
    recognised_for: Duration,
    /// How long a message may be in flight after nobody waits for it any more.
    late_max: Duration,
    /// Whether a scan tells what the log contains.
    is_scannable: bool,
    /// What an earlier run may have sent, and is not read again yet, is stored above this.
    before: Before,
    /// The fate of an event that is scanned for first, when the log does not contain it.
    leaving: FxHashMap<Ticket, Leaving>,
    /// Dead letters that nobody was told of yet.
    deaths: Vec<Death>,
    batches: Batches,
    /// The highest `seq` that was read.
    read_to: Seq,
    /// The database knows that rows up to this `seq` may be sent.
    sent_to: Seq,
}

/// What becomes of an event that leaves the fast path, once it is certain that it is not stored.
#[derive(Debug)]
enum Leaving {
    Dead { reason: Rejection, attempts: u32 },
    Retrying(Retry),
}

/// An event that becomes a dead letter.
#[derive(Debug, Clone)]
pub struct Death {
    /// Its place in the outbox.
    pub seq: Seq,
    /// Why.
    pub reason: Rejection,
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
    /// Resumes from what the database says. [`Delivery::block_keys`] comes before anything is admitted.
    pub fn resume(resume: Resume, limits: Limits, rules: Rules, now: Instant) -> Self {
        let Resume { position, lettered, stream, earlier, sent_to } = resume;
        Self {
            lanes: Lanes::default(),
            blocked: Blocked::new(BlockedBounds::default()),
            progress: Progress::resume(position, Ticket(0)),
            letters: Letters::default(),
            breaker: Breaker::new(),
            window: Window::new(limits),
            rules,
            stream,
            found: Found::default(),
            latest: Latest::default(),
            lettered,
            recorded: Ticket(0),
            recognised_for: Duration::MAX,
            late_max: Duration::ZERO,
            is_scannable: true,
            before: Before::of(earlier, stream.floor, now),
            leaving: FxHashMap::default(),
            deaths: Vec::new(),
            batches: Batches::default(),
            read_to: Seq(0),
            sent_to,
        }
    }

    /// How much may be fetched now; nothing while memory is full, and while the breaker is open no
    /// more than something to probe with.
    pub fn room(&self) -> Room {
        let room = self.window.room(self.lanes.len(), self.lanes.bytes());
        let closed = self.breaker.cause().is_some() && !self.lanes.is_empty();
        let closed = closed || self.scan_again_at().is_some();
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
        self.before.begun();
        self.progress.begin(target, floor);
    }

    /// Takes in a page of rows in the order of their `seq`.
    pub fn admit<E: Into<Box<Event>>>(&mut self, events: impl IntoIterator<Item = E>) {
        for event in events.into_iter().map(Into::into) {
            self.before.read(event.seq);
            self.read_to = self.read_to.max(event.seq);
            let ticket = self.progress.admit(event.seq, self.floor_now());
            if self.lettered.contains(&event.seq) {
                self.progress.resolve(ticket, Verdict::Lettered);
            } else if self.is_found(&event) {
                self.progress.resolve(ticket, Verdict::Published);
            } else if let Payload::Unreadable { reason } = &event.payload {
                let text = format!("the database cannot read this row: {reason}");
                self.bury(ticket, &event, Rejection { code: "unreadable_row", text });
            } else if let Some(hold) = self.blocked.hold(ticket, &event, self.recorded) {
                self.progress.resolve(ticket, Verdict::Held(hold));
            } else {
                let since = self.uncertain_since().filter(|_| self.before.may_have_sent(event.seq));
                let uncertain = since.map(|since| (since, self.before.scanned_to()));
                self.lanes.admit(ticket, event, 0, uncertain);
            }
        }
    }

    /// The rows up to there were looked at; what was not taken in is none of this flow's.
    pub fn looked_to(&mut self, seq: Seq) {
        self.progress.looked_to(seq);
    }

    /// The last page up to the target was taken in.
    pub fn exhausted(&mut self) {
        self.progress.exhausted();
        self.before.exhausted();
        self.forget_found();
    }

    /// What is taken into memory now is stored above this, if it is.
    fn floor_now(&self) -> u64 {
        self.before.stream_floor().unwrap_or(self.stream.acked)
    }

    /// The next event to send, if any may go now.
    ///
    /// The caller says what became of it: [`Delivery::sent`], [`Delivery::refuse`] or
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

    /// Whether something in memory was left in the database as too large that is not any more.
    pub fn has_left_out(&self, message_bytes_max: u64) -> bool {
        self.lanes.events().any(|event| {
            matches!(event.payload, Payload::Oversize { bytes } if bytes <= message_bytes_max)
        })
    }

    /// What is on its way and meets a condition.
    pub fn on_their_way(&self, condition: impl Fn(&Event) -> bool) -> Vec<Ticket> {
        self.lanes.on_their_way(condition)
    }

    /// The event of a ticket, and whether it may be in the stream already.
    pub fn event(&self, ticket: Ticket) -> Option<(&Event, bool)> {
        self.lanes.event(ticket)
    }

    /// The event was handed to the broker.
    pub fn sent(&mut self, ticket: Ticket, now: Instant) {
        let bytes = self.lanes.event(ticket).map_or(0, |(event, _)| event.payload.len());
        self.lanes.sent(ticket, self.stream.acked, now);
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
    pub fn refuse(&mut self, ticket: Ticket, rejection: Rejection, now: Instant) {
        let attempts = self.lanes.attempts(ticket) + 1;
        self.die(ticket, rejection, attempts, now);
    }

    /// Judges what the broker told us about an event on its way.
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
                self.raise(stream_seq, id);
                self.publish(ticket, stream_seq);
                let transition = self.breaker.succeed();
                if went_back { Transition::WentBack } else { transition }
            }
            Outcome::Rejected(rejection) => {
                let attempts = self.lanes.attempts(ticket) + 1;
                self.die(ticket, rejection, attempts, now);
                self.breaker.succeed()
            }
            Outcome::Unconfirmed => {
                self.lanes.unconfirmed(ticket, now);
                self.breaker.probe_unanswered(now);
                Transition::None
            }
            Outcome::Busy { reason, attempt } => {
                self.be_patient(ticket, reason, attempt, now);
                self.breaker.succeed()
            }
            Outcome::Unavailable(closure) => {
                self.lanes.again(ticket);
                self.close_gate(closure, now)
            }
        }
    }

    /// Where a scan of the log begins: whatever was sent and is not settled is above.
    pub fn stream_mark(&self) -> StreamMark {
        let floors = [self.progress.stream_floor(), self.letters.stream_floor()];
        let floor = floors.into_iter().flatten().min().unwrap_or(self.stream.acked);
        StreamMark { floor: floor.min(self.floor_now()), ..self.stream }
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
        self.progress.take_settlement(self.stream_mark())
    }

    /// A settlement is committed.
    pub fn settled(&mut self, settlement: &Settlement) {
        self.recorded = self.recorded.max(settlement.up_to);
        self.forget_latest();
    }

    /// Every event with a lower ticket is settled in the database.
    pub fn recorded(&self) -> Ticket {
        self.recorded
    }

    /// Events that become dead letters since the last call. Each is one once that is written.
    pub fn take_deaths(&mut self) -> Vec<Death> {
        std::mem::take(&mut self.deaths)
    }

    /// `attempts` is how often it was tried.
    fn die(&mut self, ticket: Ticket, reason: Rejection, attempts: u32, now: Instant) {
        if self.has_to_be_scanned_for(ticket, now) {
            self.leaving.insert(ticket, Leaving::Dead { reason, attempts });
            return;
        }
        self.leave_dead(ticket, reason, attempts);
    }

    fn leave_dead(&mut self, ticket: Ticket, reason: Rejection, attempts: u32) {
        if let Some((event, _)) = self.lanes.event(ticket) {
            self.deaths.push(Death { seq: event.seq, reason: reason.clone() });
        }
        let on_dead = self.rules.on_dead;
        if let Some(tried) = self.letters.tried(ticket) {
            let holds = tried.holds && on_dead == OnDead::Hold;
            self.set_back(ticket, Change::Dead { reason, attempts, holds });
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

    /// The event leaves the fast path, and what is queued behind it is held.
    fn leave_and_hold(&mut self, ticket: Ticket, verdict: Verdict) {
        if let Some(Left { key, last, behind }) = self.lanes.leave_with_lane(ticket) {
            self.blocked.block(key, last);
            for behind in behind {
                if behind.is_letter() {
                    // An older one that holds nothing: it goes with the others of its key, by its turn.
                    drop(self.letters.set_back(behind, Change::Held));
                } else {
                    self.progress.resolve(behind, Verdict::Held(Hold::Known));
                }
            }
        }
        self.progress.resolve(ticket, verdict);
    }
}
