//! Order with batches: the first events of a lane go together, and are answered together.

use std::time::Instant;

use super::{Doubt, Lanes, Ticket, Waiting, Way};

/// Events passed over at most in search of those that may go in a batch.
const ASIDE_MAX: usize = 64;

/// Larger payloads gain nothing from going with others.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// How much may go in one batch.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Room {
    pub(in super::super) events: usize,
    pub(in super::super) bytes: usize,
    /// What may have been sent before that is left out; `None` when nothing is.
    pub(in super::super) recognised_since: Option<Instant>,
}

impl Lanes {
    /// It is the first of its lane now: it may go, unless it is on its way with the one before it.
    pub(super) fn next_in_lane(&mut self, next: Ticket) {
        let is_with_others = |waiting: &Waiting| waiting.way == Way::InBatch;
        if self.in_batches == 0 || !self.waiting.get(&next).is_some_and(is_with_others) {
            self.ready.push_back(next);
        }
    }

    /// Whether anything else may go.
    pub(in super::super) fn is_nothing_ready(&self) -> bool {
        self.ready.is_empty()
    }

    /// A batch of this event and of whatever may go besides, as far as we never sent it: of each lane its
    /// part, so that none waits for another.
    pub(in super::super) fn batch(&mut self, first: Ticket, mut room: Room) -> Vec<Ticket> {
        let mut batch = Vec::with_capacity(room.events);
        let most = (room.events / (self.ready.len() + 1)).max(1);
        if self.add_lane(&mut batch, first, most, &mut room) == 0 {
            return batch;
        }
        let mut aside = Vec::new();
        while room.events > 0
            && aside.len() < ASIDE_MAX
            && let Some(next) = self.ready.pop_front()
        {
            if self.add_lane(&mut batch, next, most, &mut room) == 0 {
                aside.push(next);
            }
        }
        for ticket in aside.into_iter().rev() {
            self.ready.push_front(ticket);
        }
        batch
    }

    /// Adds the first event of a lane and up to `most` in all that follow it. Returns how many.
    fn add_lane(
        &self,
        batch: &mut Vec<Ticket>,
        first: Ticket,
        most: usize,
        room: &mut Room,
    ) -> usize {
        let Some(waiting) = self.waiting.get(&first) else { return 0 };
        let before = batch.len();
        match waiting.event.lane().and_then(|key| self.by_key.get(key)) {
            None => drop(self.add(batch, first, room)),
            // One that left while it waited for its turn has left its number behind.
            Some(lane) if lane.first() != first => {}
            Some(lane) => {
                for ticket in lane.iter().take(most) {
                    if self.add(batch, ticket, room).is_none() {
                        break;
                    }
                }
            }
        }
        batch.len() - before
    }

    fn add(&self, batch: &mut Vec<Ticket>, ticket: Ticket, room: &mut Room) -> Option<()> {
        let waiting = self.waiting.get(&ticket)?;
        let bytes = waiting.event.payload.len();
        // An earlier run may have sent it: as long as the stream recognises it, that only spoils an
        // atomic batch.
        let is_recognised = match waiting.doubt {
            Doubt::No => true,
            Doubt::Earlier => waiting.uncertain_since > room.recognised_since,
            Doubt::Unanswered | Doubt::ToBeScannedFor => false,
        };
        let is_fresh = waiting.sends == 0 && is_recognised;
        let fits = room.events > 0 && bytes <= room.bytes && bytes <= PAYLOAD_BYTES_MAX;
        if !is_fresh || !fits || ticket.is_letter() || waiting.attempts > 0 {
            return None;
        }
        room.events -= 1;
        room.bytes -= bytes;
        batch.push(ticket);
        Some(())
    }

    /// These were handed to the broker as a batch, when it had told of stream sequences up to `above`.
    pub(in super::super) fn sent_together(&mut self, batch: &[Ticket], above: u64, now: Instant) {
        for ticket in batch {
            self.on_its_way(*ticket, Way::InBatch, (above, now));
        }
        self.in_batches += batch.len();
    }

    /// These are answered, or nobody waits for their answer any more.
    pub(in super::super) fn answered_together(&mut self, batch: &[Ticket]) {
        self.in_batches = self.in_batches.saturating_sub(batch.len());
    }

    /// A batch was not taken, or nobody knows whether it was: its events go one by one.
    pub(in super::super) fn apart(&mut self, batch: &[Ticket], doubt: Doubt, now: Instant) {
        self.answered_together(batch);
        for ticket in batch {
            if let Some(waiting) = self.waiting.get_mut(ticket) {
                waiting.way = Way::NotSent;
                waiting.doubt = doubt;
                if doubt == Doubt::Unanswered {
                    waiting.last_sent = Some(now);
                }
            }
        }
        self.give_back_together(batch);
    }

    /// These may go again as soon as something may, before everything else: the first of each lane.
    pub(in super::super) fn give_back_together(&mut self, batch: &[Ticket]) {
        for ticket in batch.iter().rev() {
            let Some(waiting) = self.waiting.get(ticket) else { continue };
            let lane = waiting.event.lane().and_then(|key| self.by_key.get(key));
            if lane.is_none_or(|lane| lane.first() == *ticket) {
                self.ready.push_front(*ticket);
            }
        }
    }
}
