//! Order: the events in memory, each behind the earlier ones of its key, one of a key on its way.

mod batch;
mod lane;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque, hash_map::Entry},
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use super::Attempt;
use crate::event::{AggregateKey, Event};
use lane::Lane;

pub(super) use batch::Room as BatchRoom;

/// The number of an event in memory: it rises with each one admitted, and is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

impl Ticket {
    const LETTER: u64 = 1 << 63;

    /// The ticket of a letter that is tried again: these have numbers of their own.
    pub(super) fn letter(number: u64) -> Self {
        Self(number | Self::LETTER)
    }

    /// Whether it is a letter's.
    pub fn is_letter(self) -> bool {
        self.0 & Self::LETTER != 0
    }
}

/// The events in memory. One FIFO a key; a queue of what may go; a heap of what may go later.
#[derive(Debug, Default)]
pub struct Lanes {
    waiting: FxHashMap<Ticket, Waiting>,
    /// There are no more of them than events in memory, so keys that were chosen to collide cost little.
    by_key: FxHashMap<AggregateKey, Lane>,
    /// Heads of lanes and events without a key, in the order in which they may go.
    ready: VecDeque<Ticket>,
    delayed: BinaryHeap<Reverse<(Instant, Ticket)>>,
    /// Events on their way in batches.
    in_batches: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    event: Box<Event>,
    /// Attempts used up.
    attempts: u32,
    /// Requests for patience that use up no attempt.
    patience: u32,
    /// How often it was handed to the broker.
    sends: u32,
    way: Way,
    /// Since when a publish of it may be in the stream without our knowing.
    uncertain_since: Option<Instant>,
    /// Exclusive lower bound for the stream sequence of such a publish: what is below was scanned
    /// for it, or was in use when it was sent first.
    stored_above: u64,
    doubt: Doubt,
    /// Whether a scan has searched the log for it and not found it.
    was_scanned_for: bool,
    /// When it was sent last, or may have been, or nobody waited for its answer any more.
    last_sent: Option<Instant>,
    /// The highest stream sequence known when it was last sent: it is stored above.
    sent_above: u64,
}

/// Whether an event is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    NotSent,
    Alone,
    /// With others, which are answered together.
    InBatch,
}

/// Whether a publish of an event may still arrive, or have arrived: no answer to another one settles
/// that, only a scan of the log some time after the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Every publish of it was answered.
    No,
    /// An earlier run may have sent it, or a scan came too early to tell.
    Earlier,
    /// One stayed without an answer.
    Unanswered,
    /// The event may not go before a scan has searched for it.
    ToBeScannedFor,
}

/// A lane that left memory with its first event.
#[derive(Debug)]
pub struct Left {
    /// Its key.
    pub key: AggregateKey,
    /// The last row among its events.
    pub last: Option<Ticket>,
    /// What was queued behind the first, in order.
    pub behind: Vec<Ticket>,
}

impl Lanes {
    /// How many events are in memory.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What they take in memory, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Queues an event behind the earlier ones of its key.
    ///
    /// `uncertain` says that an earlier run may have sent it, and that a scan at that time has not
    /// found it in the stream up to that sequence: it may have been on its way.
    pub fn admit(
        &mut self,
        ticket: Ticket,
        event: Box<Event>,
        attempts: u32,
        uncertain: Option<(Instant, u64)>,
    ) {
        let uncertain_since = uncertain.map(|(since, _)| since);
        match event.lane().cloned().map(|key| self.by_key.entry(key)) {
            None => self.ready.push_back(ticket),
            Some(Entry::Occupied(lane)) => lane.into_mut().push(ticket),
            Some(Entry::Vacant(lane)) => {
                lane.insert(Lane::new(ticket));
                self.ready.push_back(ticket);
            }
        }
        self.bytes += event.footprint();
        let waiting = Waiting {
            event,
            attempts,
            patience: 0,
            sends: 0,
            way: Way::NotSent,
            uncertain_since,
            stored_above: uncertain.map_or(0, |(_, scanned_to)| scanned_to),
            was_scanned_for: uncertain_since.is_some(),
            doubt: if uncertain_since.is_some() { Doubt::Earlier } else { Doubt::No },
            last_sent: uncertain_since,
            sent_above: 0,
        };
        self.waiting.insert(ticket, waiting);
    }

    /// The next event that may go. The caller sends it, or gives it back.
    pub fn take_ready(&mut self, now: Instant) -> Option<Ticket> {
        while let Some(Reverse((due, _))) = self.delayed.peek() {
            if *due > now {
                break;
            }
            if let Some(Reverse((_, ticket))) = self.delayed.pop() {
                self.ready.push_back(ticket);
            }
        }
        // One that left while it waited for its turn has left its number here.
        while let Some(ticket) = self.ready.pop_front() {
            if self.waiting.contains_key(&ticket) {
                return Some(ticket);
            }
        }
        None
    }

    /// The event of a ticket, and whether it may be in the stream already.
    pub fn event(&self, ticket: Ticket) -> Option<(&Event, bool)> {
        self.waiting.get(&ticket).map(|waiting| (&*waiting.event, waiting.sends > 0))
    }

    /// Whether it has to be scanned for before it may go: it may be there, and has been
    /// for longer than the stream recognises what is sent again.
    pub fn is_stale(&self, ticket: Ticket, recognised_for: Duration, now: Instant) -> bool {
        self.waiting.get(&ticket).is_some_and(|waiting| {
            let old = |since| now.duration_since(since) >= recognised_for;
            waiting.doubt == Doubt::ToBeScannedFor || waiting.uncertain_since.is_some_and(old)
        })
    }

    /// When a scan is certain to tell whether the log contains the event: its message has arrived
    /// by then. `None` when it cannot be there without our knowing.
    pub fn conclusive_at(&self, ticket: Ticket, late_max: Duration) -> Option<Instant> {
        let waiting = self.waiting.get(&ticket)?;
        waiting.uncertain_since.and(waiting.last_sent).map(|sent| sent + late_max)
    }

    /// The stream sequence above which it is stored, if it is.
    pub fn sent_above(&self, ticket: Ticket) -> u64 {
        self.waiting.get(&ticket).map_or(0, |waiting| waiting.sent_above)
    }

    /// It was handed to the broker, which had told of stream sequences up to `above`.
    pub fn sent(&mut self, ticket: Ticket, above: u64, now: Instant) {
        self.on_its_way(ticket, Way::Alone, (above, now));
    }

    fn on_its_way(&mut self, ticket: Ticket, way: Way, (above, now): (u64, Instant)) {
        if let Some(waiting) = self.waiting.get_mut(&ticket) {
            waiting.sends = waiting.sends.saturating_add(1);
            waiting.last_sent = Some(now);
            if waiting.uncertain_since.is_none() {
                waiting.uncertain_since = Some(now);
                waiting.stored_above = above;
            }
            waiting.sent_above = above;
            waiting.way = way;
        }
    }

    /// Whatever may be in the stream without our knowing is scanned for before it goes again.
    pub fn expire_doubt(&mut self) {
        for waiting in self.waiting.values_mut() {
            if waiting.uncertain_since.is_some() {
                waiting.doubt = Doubt::ToBeScannedFor;
            }
        }
    }

    /// Those that are not on their way, and may be in the stream without our knowing.
    pub fn uncertain(&self) -> Vec<Ticket> {
        let uncertain =
            |waiting: &Waiting| waiting.uncertain_since.is_some() && waiting.way == Way::NotSent;
        let waiting = self.waiting.iter().filter(|(_, waiting)| uncertain(waiting));
        waiting.map(|(ticket, _)| *ticket).collect()
    }

    /// Exclusive lower bound for the stream sequences of what may be in the stream without our
    /// knowing; `None` when nothing in memory may.
    pub fn uncertain_above(&self) -> Option<u64> {
        let uncertain = self.waiting.values().filter(|waiting| waiting.uncertain_since.is_some());
        uncertain.map(|waiting| waiting.stored_above).min()
    }

    /// The stream did not hold it at `at`, up to the sequence `scanned_to`. It may have been on its
    /// way all the same, for at most `late_max`: if that is not over, the time in which it is
    /// recognised counts from then.
    pub fn not_stored(
        &mut self,
        ticket: Ticket,
        (at, scanned_to): (Instant, u64),
        late_max: Duration,
    ) {
        if let Some(waiting) = self.waiting.get_mut(&ticket) {
            waiting.was_scanned_for = true;
            waiting.stored_above = scanned_to;
            let arrived = |sent: Instant| at.saturating_duration_since(sent) >= late_max;
            if waiting.last_sent.is_none_or(arrived) {
                waiting.uncertain_since = None;
                waiting.doubt = Doubt::No;
            } else {
                waiting.uncertain_since = Some(at);
                if waiting.doubt == Doubt::Unanswered {
                    waiting.doubt = Doubt::Earlier;
                }
            }
        }
    }

    /// Whether a scan has searched the log for it and not found it.
    pub fn was_scanned_for(&self, ticket: Ticket) -> bool {
        self.waiting.get(&ticket).is_some_and(|waiting| waiting.was_scanned_for)
    }

    /// Whether a scan has searched for any event in memory.
    pub fn has_scanned_for(&self) -> bool {
        self.waiting.values().any(|waiting| waiting.was_scanned_for)
    }

    /// Whether a publish of it stayed without an answer.
    pub fn is_unconfirmed(&self, ticket: Ticket) -> bool {
        self.waiting.get(&ticket).is_some_and(|waiting| waiting.doubt == Doubt::Unanswered)
    }

    /// All that is in memory.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.waiting.values().map(|waiting| &*waiting.event)
    }

    /// Whether a publish of it may have been stored, or may still be.
    pub fn is_in_doubt(&self, ticket: Ticket) -> bool {
        self.waiting.get(&ticket).is_some_and(|waiting| waiting.doubt != Doubt::No)
    }

    /// Whether it is on its way alone.
    pub fn is_in_flight(&self, ticket: Ticket) -> bool {
        self.waiting.get(&ticket).is_some_and(|waiting| waiting.way == Way::Alone)
    }

    /// An answer that may be about another publish than the last one of it: it may be stored.
    pub fn doubt(&mut self, ticket: Ticket) {
        if let Some(waiting) = self.waiting.get_mut(&ticket) {
            waiting.doubt = Doubt::Unanswered;
        }
    }

    /// What is on its way alone and meets a condition.
    pub fn on_their_way(&self, condition: impl Fn(&Event) -> bool) -> Vec<Ticket> {
        let meets = |waiting: &Waiting| waiting.way == Way::Alone && condition(&waiting.event);
        let waiting = self.waiting.iter().filter(|(_, waiting)| meets(waiting));
        waiting.map(|(ticket, _)| *ticket).collect()
    }

    /// A publish of it stayed without an answer: it goes again.
    pub fn unconfirmed(&mut self, ticket: Ticket, now: Instant) {
        if let Some(waiting) = self.waiting.get_mut(&ticket) {
            waiting.doubt = Doubt::Unanswered;
            waiting.last_sent = Some(now);
        }
        self.again(ticket);
    }

    /// Before it leaves for the letters: may an earlier publish of it have been stored? Then it is
    /// scanned for first, as soon as that is certain to tell.
    pub fn scan_first(&mut self, ticket: Ticket, late_max: Duration, now: Instant) -> bool {
        let in_doubt = |waiting: &&mut Waiting| waiting.doubt != Doubt::No;
        let Some(waiting) = self.waiting.get_mut(&ticket).filter(in_doubt) else { return false };
        waiting.way = Way::NotSent;
        waiting.doubt = Doubt::ToBeScannedFor;
        let at = waiting.last_sent.map_or(now, |sent| sent + late_max);
        self.again_at(ticket, at);
        true
    }

    /// It goes again as soon as something may go, before everything else.
    pub fn again(&mut self, ticket: Ticket) {
        if let Some(waiting) = self.waiting.get_mut(&ticket) {
            waiting.way = Way::NotSent;
            self.ready.push_front(ticket);
        }
    }

    /// Attempts that it has used up.
    pub fn attempts(&self, ticket: Ticket) -> u32 {
        self.waiting.get(&ticket).map_or(0, |waiting| waiting.attempts)
    }

    /// It is asked to be patient once more. Returns how many attempts that has used up, and how often it
    /// was asked while it is in memory. [`Attempt::CountsAsWait`] uses up `most` of them at most.
    pub fn tried(&mut self, ticket: Ticket, attempt: Attempt, most: u32) -> (u32, u32) {
        let Some(waiting) = self.waiting.get_mut(&ticket) else { return (0, 0) };
        waiting.way = Way::NotSent;
        if waiting.doubt == Doubt::No {
            // Every publish of it was answered: it is not in the stream.
            waiting.uncertain_since = None;
        }
        match attempt {
            Attempt::Counts => waiting.attempts = waiting.attempts.saturating_add(1),
            Attempt::CountsAsWait if waiting.attempts < most => waiting.attempts += 1,
            Attempt::IsFree | Attempt::CountsAsWait => {
                waiting.patience = waiting.patience.saturating_add(1);
            }
        }
        (waiting.attempts, waiting.attempts.saturating_add(waiting.patience))
    }

    /// It goes again then.
    pub fn again_at(&mut self, ticket: Ticket, at: Instant) {
        self.delayed.push(Reverse((at, ticket)));
    }

    /// When the next delayed event may go.
    pub fn next_due(&self) -> Option<Instant> {
        self.delayed.peek().map(|Reverse((due, _))| *due)
    }

    /// The event leaves; the next of its key may go.
    ///
    /// # Panics
    /// When it was not at the head of its lane: order is lost, and nothing may go on (invariant 3).
    pub fn leave(&mut self, ticket: Ticket) {
        let Some(Waiting { event, .. }) = self.waiting.remove(&ticket) else { return };
        self.bytes -= event.footprint();
        let Some(key) = event.lane().cloned() else { return };
        let Entry::Occupied(mut lane) = self.by_key.entry(key) else { return };
        assert_eq!(lane.get().first(), ticket, "an event left out of turn");
        match lane.get_mut().advance() {
            Some(next) => self.next_in_lane(next),
            None => drop(lane.remove()),
        }
    }

    /// The event leaves for the letters, and with it everything queued behind it: its key is to be
    /// blocked. Without a key only the event leaves.
    pub fn leave_with_lane(&mut self, ticket: Ticket) -> Option<Left> {
        let key = self.waiting.get(&ticket).and_then(|waiting| waiting.event.lane().cloned());
        let Some(key) = key else {
            self.leave(ticket);
            return None;
        };
        let lane = self.by_key.remove(&key);
        let lane: Vec<Ticket> = lane.iter().flat_map(Lane::iter).collect();
        for member in &lane {
            self.forget(*member);
        }
        // A letter in the lane goes its own way; only rows are held from here.
        let last = lane.iter().rev().find(|member| !member.is_letter()).copied();
        let behind = lane.into_iter().filter(|member| *member != ticket).collect();
        Some(Left { key, last, behind })
    }

    /// These leave, whether or not it is their turn: as letters, or because the stream holds them.
    pub fn abandon(&mut self, tickets: &[Ticket]) {
        for ticket in tickets {
            let Some(key) = self.forget(*ticket) else { continue };
            let Entry::Occupied(mut lane) = self.by_key.entry(key) else { continue };
            if lane.get().first() != *ticket {
                lane.get_mut().forget(*ticket);
            } else if let Some(next) = lane.get_mut().advance() {
                self.ready.push_back(next);
            } else {
                lane.remove();
            }
        }
    }

    /// Takes an event out of memory. Returns its key.
    fn forget(&mut self, ticket: Ticket) -> Option<AggregateKey> {
        let Waiting { event, .. } = self.waiting.remove(&ticket)?;
        self.bytes -= event.footprint();
        event.lane().cloned()
    }
}
