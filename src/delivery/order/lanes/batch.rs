//! Lanes with batches: the first events of a lane are sent and answered together.

use std::time::Instant;

use super::{Lanes, MissingAnswer, Ticket, Transit, Waiting};

/// Most ready events that the search for a batch skips, because they cannot go in it.
const ASIDE_MAX: usize = 64;

/// Largest payload that goes in a batch, inclusive; a larger one gains nothing from it.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// Room of one batch: how many events and bytes may go in it.
#[derive(Debug, Clone, Copy)]
pub(in crate::delivery) struct BatchRoom {
    pub(in crate::delivery) events: usize,
    pub(in crate::delivery) bytes: usize,
    /// Events that became uncertain at this time or earlier are left out of the batch. `None`
    /// leaves none out.
    pub(in crate::delivery) recognised_since: Option<Instant>,
}

impl Lanes {
    /// Makes the new first event of a lane ready, unless it is in flight in a batch.
    pub(super) fn next_in_lane(&mut self, next: Ticket) {
        let is_with_others = |waiting: &Waiting| waiting.transit == Transit::InBatch;
        if self.in_batches == 0 || !self.waiting.get(&next).is_some_and(is_with_others) {
            self.ready.push_back(next);
        }
    }

    /// Whether no event is ready.
    pub(in crate::delivery) fn is_nothing_ready(&self) -> bool {
        self.ready.is_empty()
    }

    /// Batch of this event, of other ready events, and of those behind them in their lanes. None of
    /// them was ever sent. Each lane gets its share, so that none waits for another.
    pub(in crate::delivery) fn batch(&mut self, first: Ticket, mut room: BatchRoom) -> Vec<Ticket> {
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

    /// Adds up to `most` events from the head of a lane, and returns their number.
    fn add_lane(
        &self,
        batch: &mut Vec<Ticket>,
        first: Ticket,
        most: usize,
        room: &mut BatchRoom,
    ) -> usize {
        let Some(waiting) = self.waiting.get(&first) else { return 0 };
        let before = batch.len();
        match waiting.event.lane().and_then(|key| self.by_key.get(key)) {
            None => drop(self.add(batch, first, room)),
            // An event that left memory before its turn may have left its ticket in the queue, so
            // that ticket is skipped.
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

    fn add(&self, batch: &mut Vec<Ticket>, ticket: Ticket, room: &mut BatchRoom) -> Option<()> {
        let waiting = self.waiting.get(&ticket)?;
        let bytes = waiting.event.payload.len();
        // An atomic batch with an event that an earlier run has sent is refused, as long as the log
        // recognises the id. After that time the event would be stored twice.
        let is_recognised = match waiting.missing_answer {
            MissingAnswer::None => true,
            MissingAnswer::Possibly => waiting.uncertain_since > room.recognised_since,
            MissingAnswer::Certainly | MissingAnswer::ScanFirst => false,
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

    /// Notes a batch handed to the broker when stream sequences up to `above` were in use.
    pub(in crate::delivery) fn batch_sent(&mut self, batch: &[Ticket], above: u64, now: Instant) {
        for ticket in batch {
            self.on_its_way(*ticket, Transit::InBatch, (above, now));
        }
        self.in_batches += batch.len();
    }

    /// Notes that a batch is answered or given up.
    pub(in crate::delivery) fn batch_answered(&mut self, batch: &[Ticket]) {
        self.in_batches = self.in_batches.saturating_sub(batch.len());
    }

    /// Splits a batch that was refused or not answered: its events are sent one by one.
    pub(in crate::delivery) fn split_batch(
        &mut self,
        batch: &[Ticket],
        missing_answer: MissingAnswer,
        now: Instant,
    ) {
        self.batch_answered(batch);
        for ticket in batch {
            if let Some(waiting) = self.waiting.get_mut(ticket) {
                waiting.transit = Transit::NotSent;
                waiting.missing_answer = missing_answer;
                if missing_answer == MissingAnswer::Certainly {
                    waiting.last_sent = Some(now);
                }
            }
        }
        self.give_back_batch(batch);
    }

    /// Requeues those events of the batch that are first in their lane, in front of the other ready
    /// events.
    pub(in crate::delivery) fn give_back_batch(&mut self, batch: &[Ticket]) {
        for ticket in batch.iter().rev() {
            let Some(waiting) = self.waiting.get(ticket) else { continue };
            let lane = waiting.event.lane().and_then(|key| self.by_key.get(key));
            if lane.is_none_or(|lane| lane.first() == *ticket) {
                self.ready.push_front(*ticket);
            }
        }
    }
}
