//! Lanes: the events in memory, each behind the earlier ones of its key, one of a key in flight.

mod batch;
mod lane;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque, hash_map::Entry},
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use crate::{
    delivery::Attempt,
    event::{AggregateKey, Event},
};
use lane::Lane;

pub(in crate::delivery) use self::batch::BatchRoom;

/// Number of an event in memory. It rises with each admitted event and is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

impl Ticket {
    const LETTER: u64 = 1 << 63;

    /// Ticket of a letter. Letters have a range of numbers of their own.
    pub(in crate::delivery) fn letter(number: u64) -> Self {
        Self(number | Self::LETTER)
    }

    /// Whether the ticket is that of a letter.
    pub fn is_letter(self) -> bool {
        self.0 & Self::LETTER != 0
    }
}

/// Events in memory: a FIFO queue for each key, a queue of ready events, a heap of delayed events.
#[derive(Debug, Default)]
pub struct Lanes {
    waiting: FxHashMap<Ticket, Waiting>,
    /// Lanes by key. There are at most as many as events in memory, so keys with colliding hashes
    /// cost little.
    by_key: FxHashMap<AggregateKey, Lane>,
    /// Ready events: heads of lanes and events without a key, in the order of sending.
    ready: VecDeque<Ticket>,
    delayed: BinaryHeap<Reverse<(Instant, Ticket)>>,
    /// Number of events in flight in batches.
    in_batches: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    event: Box<Event>,
    /// Number of attempts to publish that the event has used up.
    attempts: u32,
    /// Number of refusals of the kind "not now" that used up no attempt.
    free_tries: u32,
    /// How often the event was handed to the broker.
    sends: u32,
    transit: Transit,
    /// Time since which the log may contain the event without our knowing.
    uncertain_since: Option<Instant>,
    /// Exclusive lower bound for the event's stream sequence, if the log contains the event.
    /// Sequences up to this one were scanned, or in use before the event was first sent.
    stored_above: u64,
    missing_answer: MissingAnswer,
    /// Whether a scan has searched the log for the event and not found it.
    was_scanned_for: bool,
    /// Latest time at which the event was sent, may have been sent, or its answer was given up.
    last_sent: Option<Instant>,
    /// Highest stream sequence known when the event was last sent. That message has a higher one.
    sent_above: u64,
}

/// Transit of an event: whether it is in flight, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transit {
    NotSent,
    Alone,
    /// In flight in a batch, whose events are answered together.
    InBatch,
}

/// Whether a message of an event stayed without an answer, so that the log may contain it. The
/// answer to another message of the event does not end that; a scan some time after the last send
/// does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delivery) enum MissingAnswer {
    /// Every message of the event was answered.
    None,
    /// An earlier run may have sent the event, a scan for it came too early, or a batch with it was
    /// refused.
    Possibly,
    /// A message of the event stayed without an answer.
    Certainly,
    /// A message stayed without an answer, possibly or certainly, and a scan has to search for the
    /// event before it is sent again.
    ScanFirst,
}

/// Lane that was removed from memory with its first event.
#[derive(Debug)]
pub struct RemovedLane {
    /// Key of the lane.
    pub key: AggregateKey,
    /// Last event of the lane that is a row of the outbox and not a letter; `None` without such an
    /// event.
    pub last: Option<Ticket>,
    /// Events of the lane behind the first one, in order.
    pub behind: Vec<Ticket>,
}

impl Lanes {
    /// Number of events in memory.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether memory has no event.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Bytes of memory that the events take, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Queues an event behind the earlier ones of its key.
    ///
    /// `uncertain` is set for an event that an earlier run may have sent: the time of a scan that
    /// has not found it, and the sequence up to which that scan has read.
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
            free_tries: 0,
            sends: 0,
            transit: Transit::NotSent,
            uncertain_since,
            stored_above: uncertain.map_or(0, |(_, scanned_to)| scanned_to),
            was_scanned_for: uncertain_since.is_some(),
            missing_answer: if uncertain_since.is_some() {
                MissingAnswer::Possibly
            } else {
                MissingAnswer::None
            },
            last_sent: uncertain_since,
            sent_above: 0,
        };
        self.waiting.insert(ticket, waiting);
    }

    /// Takes the next ready event. The caller sends it, or gives it back.
    pub fn take_ready(&mut self, now: Instant) -> Option<Ticket> {
        while let Some(Reverse((due, _))) = self.delayed.peek() {
            if *due > now {
                break;
            }
            if let Some(Reverse((_, ticket))) = self.delayed.pop() {
                self.ready.push_back(ticket);
            }
        }
        // An event that left memory before its turn may have left its ticket in the queue, so that
        // ticket is skipped.
        while let Some(ticket) = self.ready.pop_front() {
            if self.waiting.contains_key(&ticket) {
                return Some(ticket);
            }
        }
        None
    }

    /// Event that has this ticket, and whether it was sent before.
    pub fn event(&self, ticket: Ticket) -> Option<(&Event, bool)> {
        self.waiting.get(&ticket).map(|waiting| (&*waiting.event, waiting.sends > 0))
    }

    /// Whether the event is stale, so that a scan comes before it is sent again. The log may
    /// contain it for longer than the log recognises an id.
    pub fn is_stale(&self, ticket: Ticket, recognised_for: Duration, now: Instant) -> bool {
        self.waiting.get(&ticket).is_some_and(|waiting| {
            let old = |since| now.duration_since(since) >= recognised_for;
            waiting.missing_answer == MissingAnswer::ScanFirst
                || waiting.uncertain_since.is_some_and(old)
        })
    }

    /// Earliest time of a conclusive scan for the event: its message has arrived by then. `None`
    /// for an event that is not uncertain.
    pub fn conclusive_at(&self, ticket: Ticket, late_max: Duration) -> Option<Instant> {
        let waiting = self.waiting.get(&ticket)?;
        waiting.uncertain_since.and(waiting.last_sent).map(|sent| sent + late_max)
    }

    /// Exclusive lower bound for the stream sequence of the event's last message.
    pub fn sent_above(&self, ticket: Ticket) -> u64 {
        self.waiting.get(&ticket).map_or(0, |waiting| waiting.sent_above)
    }

    /// Notes that the event was handed to the broker, when stream sequences up to `above` were in
    /// use.
    pub fn sent(&mut self, ticket: Ticket, above: u64, now: Instant) {
        self.on_its_way(ticket, Transit::Alone, (above, now));
    }

    fn on_its_way(&mut self, ticket: Ticket, transit: Transit, (above, now): (u64, Instant)) {
        if let Some(waiting) = self.waiting.get_mut(&ticket) {
            waiting.sends = waiting.sends.saturating_add(1);
            waiting.last_sent = Some(now);
            if waiting.uncertain_since.is_none() {
                waiting.uncertain_since = Some(now);
                waiting.stored_above = above;
            }
            waiting.sent_above = above;
            waiting.transit = transit;
        }
    }

    /// Requires a scan for every uncertain event before it is sent again.
    pub fn require_scan(&mut self) {
        for waiting in self.waiting.values_mut() {
            if waiting.uncertain_since.is_some() {
                waiting.missing_answer = MissingAnswer::ScanFirst;
            }
        }
    }

    /// Uncertain events that are not in flight.
    pub fn uncertain(&self) -> Vec<Ticket> {
        let uncertain = |waiting: &Waiting| {
            waiting.uncertain_since.is_some() && waiting.transit == Transit::NotSent
        };
        let waiting = self.waiting.iter().filter(|(_, waiting)| uncertain(waiting));
        waiting.map(|(ticket, _)| *ticket).collect()
    }

    /// Exclusive lower bound for the stream sequences of uncertain events. `None` when memory has
    /// no uncertain event.
    pub fn uncertain_above(&self) -> Option<u64> {
        let uncertain = self.waiting.values().filter(|waiting| waiting.uncertain_since.is_some());
        uncertain.map(|waiting| waiting.stored_above).min()
    }

    /// Notes that a scan at `at`, up to the sequence `scanned_to`, has not found the event. Its
    /// message may still arrive within `late_max` of the last send. Until then it stays uncertain,
    /// and the time in which its id is recognised counts from the scan.
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
                waiting.missing_answer = MissingAnswer::None;
            } else {
                waiting.uncertain_since = Some(at);
                if waiting.missing_answer == MissingAnswer::Certainly {
                    waiting.missing_answer = MissingAnswer::Possibly;
                }
            }
        }
    }

    /// Whether a scan has searched the log for the event and not found it.
    pub fn was_scanned_for(&self, ticket: Ticket) -> bool {
        self.waiting.get(&ticket).is_some_and(|waiting| waiting.was_scanned_for)
    }

    /// Whether a scan has searched for any event in memory.
    pub fn has_scanned_for(&self) -> bool {
        self.waiting.values().any(|waiting| waiting.was_scanned_for)
    }

    /// Whether a message of the event stayed without an answer.
    pub fn is_unconfirmed(&self, ticket: Ticket) -> bool {
        self.waiting
            .get(&ticket)
            .is_some_and(|waiting| waiting.missing_answer == MissingAnswer::Certainly)
    }

    /// All events in memory.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.waiting.values().map(|waiting| &*waiting.event)
    }

    /// Whether a message of the event may be stored already, or may still arrive and be stored.
    pub fn has_unanswered(&self, ticket: Ticket) -> bool {
        self.waiting
            .get(&ticket)
            .is_some_and(|waiting| waiting.missing_answer != MissingAnswer::None)
    }

    /// Whether the event is in flight as a single message, not in a batch.
    pub fn is_in_flight(&self, ticket: Ticket) -> bool {
        self.waiting.get(&ticket).is_some_and(|waiting| waiting.transit == Transit::Alone)
    }

    /// Marks the event as unanswered, because the broker's complaint that ended its publish may
    /// concern another message.
    pub fn mark_unanswered(&mut self, ticket: Ticket) {
        if let Some(waiting) = self.waiting.get_mut(&ticket) {
            waiting.missing_answer = MissingAnswer::Certainly;
        }
    }

    /// Events that are in flight as single messages, not in a batch, and that meet a condition.
    pub fn in_flight_matching(&self, condition: impl Fn(&Event) -> bool) -> Vec<Ticket> {
        let meets =
            |waiting: &Waiting| waiting.transit == Transit::Alone && condition(&waiting.event);
        let waiting = self.waiting.iter().filter(|(_, waiting)| meets(waiting));
        waiting.map(|(ticket, _)| *ticket).collect()
    }

    /// Notes that a message of the event stayed without an answer, and requeues it.
    pub fn unconfirmed(&mut self, ticket: Ticket, now: Instant) {
        if let Some(waiting) = self.waiting.get_mut(&ticket) {
            waiting.missing_answer = MissingAnswer::Certainly;
            waiting.last_sent = Some(now);
        }
        self.requeue(ticket);
    }

    /// Delays an uncertain event until a conclusive scan, before it leaves for the letters. Returns
    /// whether it was uncertain.
    pub fn scan_first(&mut self, ticket: Ticket, late_max: Duration, now: Instant) -> bool {
        let was_unanswered = |waiting: &&mut Waiting| waiting.missing_answer != MissingAnswer::None;
        let Some(waiting) = self.waiting.get_mut(&ticket).filter(was_unanswered) else {
            return false;
        };
        waiting.transit = Transit::NotSent;
        waiting.missing_answer = MissingAnswer::ScanFirst;
        let at = waiting.last_sent.map_or(now, |sent| sent + late_max);
        self.requeue_at(ticket, at);
        true
    }

    /// Requeues the event in front of the other ready events.
    pub fn requeue(&mut self, ticket: Ticket) {
        if let Some(waiting) = self.waiting.get_mut(&ticket) {
            waiting.transit = Transit::NotSent;
            self.ready.push_front(ticket);
        }
    }

    /// Attempts that the event has used up.
    pub fn attempts(&self, ticket: Ticket) -> u32 {
        self.waiting.get(&ticket).map_or(0, |waiting| waiting.attempts)
    }

    /// Counts a refusal of the kind "not now". Returns the attempts used up, and the number of
    /// tries while the event is in memory. [`Attempt::CountsAsWait`] uses up at most `most`
    /// attempts.
    pub fn count_attempt(&mut self, ticket: Ticket, attempt: Attempt, most: u32) -> (u32, u32) {
        let Some(waiting) = self.waiting.get_mut(&ticket) else { return (0, 0) };
        waiting.transit = Transit::NotSent;
        if waiting.missing_answer == MissingAnswer::None {
            // Every message of the event was answered, so the log does not contain it.
            waiting.uncertain_since = None;
        }
        match attempt {
            Attempt::Counts => waiting.attempts = waiting.attempts.saturating_add(1),
            Attempt::CountsAsWait if waiting.attempts < most => waiting.attempts += 1,
            Attempt::IsFree | Attempt::CountsAsWait => {
                waiting.free_tries = waiting.free_tries.saturating_add(1);
            }
        }
        (waiting.attempts, waiting.attempts.saturating_add(waiting.free_tries))
    }

    /// Delays the event until `at`.
    pub fn requeue_at(&mut self, ticket: Ticket, at: Instant) {
        self.delayed.push(Reverse((at, ticket)));
    }

    /// Time at which the next delayed event is ready.
    pub fn next_due(&self) -> Option<Instant> {
        self.delayed.peek().map(|Reverse((due, _))| *due)
    }

    /// Removes the event; the next of its key becomes ready.
    ///
    /// # Panics
    /// If the event was not at the head of its lane: order is lost, so the program ends (invariant
    /// 3 in `src/lib.rs`).
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

    /// Removes the event and everything queued behind it, because they become letters. The caller
    /// blocks the key. An event without a key is removed alone.
    pub fn leave_with_lane(&mut self, ticket: Ticket) -> Option<RemovedLane> {
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
        // A loaded letter in the lane only goes back to the table of letters; rows become new, held
        // letters. So the last row is searched for here.
        let last = lane.iter().rev().find(|member| !member.is_letter()).copied();
        let behind = lane.into_iter().filter(|member| *member != ticket).collect();
        Some(RemovedLane { key, last, behind })
    }

    /// Removes events from memory, also from the middle of their lane: letters that go back to
    /// their table, or events found in the log.
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

    /// Removes an event from memory and returns its key.
    fn forget(&mut self, ticket: Ticket) -> Option<AggregateKey> {
        let Waiting { event, .. } = self.waiting.remove(&ticket)?;
        self.bytes -= event.footprint();
        event.lane().cloned()
    }
}
