//! Order: the events in memory, each behind the earlier ones of its key, one of a key on its way.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, VecDeque, hash_map::Entry},
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use crate::{
    delivery::retry::Backoff,
    event::{AggregateKey, Event},
};

/// The number of an event in memory: it rises with each one admitted, and is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// The waits after a busy answer.
const BUSY: Backoff = Backoff { first: Duration::from_millis(50), longest: Duration::from_secs(5) };

/// The events in memory. One FIFO a key; a queue of what may go; a heap of what may go later.
#[derive(Debug, Default)]
pub struct Lanes {
    waiting: FxHashMap<Ticket, Waiting>,
    by_key: HashMap<AggregateKey, VecDeque<Ticket>>,
    /// Keys with a dead letter that holds the later events.
    held: HashSet<AggregateKey>,
    /// Heads of lanes and events without a key, in the order in which they may go.
    ready: VecDeque<Ticket>,
    delayed: BinaryHeap<Reverse<(Instant, Ticket)>>,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    event: Event,
    busy: u32,
    /// Whether a publish of it may already have reached the stream.
    sent: bool,
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

    /// How many keys wait behind a dead letter.
    pub fn held_keys(&self) -> usize {
        self.held.len()
    }

    /// Takes over the keys that wait behind a dead letter, as the database knows them.
    pub fn set_held(&mut self, keys: impl IntoIterator<Item = AggregateKey>) {
        self.held = keys.into_iter().collect();
    }

    /// Whether the later events of a key wait behind a dead letter.
    pub fn is_held(&self, key: Option<&AggregateKey>) -> bool {
        key.is_some_and(|key| self.held.contains(key))
    }

    /// Queues an event behind the earlier ones of its key.
    pub fn admit(&mut self, ticket: Ticket, event: Event) {
        match event.key.clone().map(|key| self.by_key.entry(key)) {
            None => self.ready.push_back(ticket),
            Some(Entry::Occupied(lane)) => lane.into_mut().push_back(ticket),
            Some(Entry::Vacant(lane)) => {
                lane.insert(VecDeque::from([ticket]));
                self.ready.push_back(ticket);
            }
        }
        self.bytes += event.footprint();
        self.waiting.insert(ticket, Waiting { event, busy: 0, sent: false });
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
        self.ready.pop_front()
    }

    /// The event of a ticket, and whether it may be in the stream already.
    pub fn event(&self, ticket: Ticket) -> Option<(&Event, bool)> {
        self.waiting.get(&ticket).map(|waiting| (&waiting.event, waiting.sent))
    }

    /// It was handed to the broker.
    pub fn sent(&mut self, ticket: Ticket) {
        if let Some(waiting) = self.waiting.get_mut(&ticket) {
            waiting.sent = true;
        }
    }

    /// It goes again as soon as something may go, before everything else.
    pub fn again(&mut self, ticket: Ticket) {
        self.ready.push_front(ticket);
    }

    /// It goes again after a wait that grows with each busy answer.
    pub fn again_later(&mut self, ticket: Ticket, now: Instant) {
        let Some(waiting) = self.waiting.get_mut(&ticket) else { return };
        waiting.busy += 1;
        self.delayed.push(Reverse((now + BUSY.after(waiting.busy), ticket)));
    }

    /// When the next delayed event may go.
    pub fn next_due(&self) -> Option<Instant> {
        self.delayed.peek().map(|Reverse((due, _))| *due)
    }

    /// Whether an event may go without waiting for an answer or a moment.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The event leaves; the next of its key may go.
    ///
    /// # Panics
    /// When it was not at the head of its lane: order is lost, and nothing may go on (invariant 3).
    pub fn leave(&mut self, ticket: Ticket) {
        let Some(Waiting { event, .. }) = self.waiting.remove(&ticket) else { return };
        self.bytes -= event.footprint();
        let Some(key) = event.key else { return };
        let Entry::Occupied(mut lane) = self.by_key.entry(key) else { return };
        assert_eq!(lane.get_mut().pop_front(), Some(ticket), "an event left out of turn");
        match lane.get().front() {
            Some(next) => self.ready.push_back(*next),
            None => drop(lane.remove()),
        }
    }

    /// The event leaves as a dead letter, and with it everything queued behind it: from now on its
    /// key is held. Returns what was queued, in order.
    pub fn leave_and_hold(&mut self, ticket: Ticket) -> Vec<Ticket> {
        let key = self.waiting.get(&ticket).and_then(|waiting| waiting.event.key.clone());
        let Some(key) = key else {
            self.leave(ticket);
            return Vec::new();
        };
        let lane = self.by_key.remove(&key).unwrap_or_default();
        for member in &lane {
            if let Some(Waiting { event, .. }) = self.waiting.remove(member) {
                self.bytes -= event.footprint();
            }
        }
        self.held.insert(key);
        lane.into_iter().filter(|member| *member != ticket).collect()
    }
}
