//! An instance that lost its session and has not noticed: it goes on for a moment beside the next one.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use super::{
    Random,
    database::{Database, aggregate},
    stream::{LATE_MAX, Stream},
    world::{Sent, World, rejected, resumed},
};
use crate::delivery::{Delivery, Outcome};

pub(super) struct Other {
    delivery: Delivery,
    in_flight: Vec<Sent>,
    until: Instant,
}

impl Other {
    /// It goes on until then, with what it had in its hands.
    pub(super) fn new(delivery: Delivery, mut in_flight: Vec<Sent>, until: Instant) -> Self {
        in_flight.retain(|sent| !sent.given_up);
        Self { delivery, in_flight, until }
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }

    /// One of its messages is answered, and what may go then is sent. Returns whether something was
    /// stored.
    pub(super) fn go_on(
        &mut self,
        stream: &mut Stream,
        poison: &HashSet<i64>,
        random: &mut Random,
        now: Instant,
    ) -> bool {
        let mut is_stored = false;
        if !self.in_flight.is_empty() {
            let index = usize::try_from(random.below(self.in_flight.len() as u64)).unwrap();
            let Sent { ticket, seq, .. } = self.in_flight.swap_remove(index);
            let outcome = if poison.contains(&seq) {
                rejected()
            } else {
                let (stream_seq, duplicate) = stream.store(seq, now);
                is_stored = !duplicate;
                Outcome::Acked { stream_seq, duplicate }
            };
            self.delivery.resolve(ticket, outcome, now);
        }
        while let Some(ticket) = self.delivery.next(now) {
            if self.delivery.is_stale(ticket, now) {
                self.delivery.give_back(ticket);
                break;
            }
            let seq = self.delivery.event(ticket).unwrap().0.seq.0;
            self.delivery.sent(ticket, now);
            self.in_flight.push(Sent { ticket, seq, at: now, given_up: false });
        }
        is_stored
    }
}

impl World {
    /// The process dies, and the next one resumes from what was committed.
    pub(super) fn kill(&mut self) {
        self.sometimes.killed_in_flight += u64::from(!self.in_flight.is_empty());
        let in_flight = std::mem::take(&mut self.in_flight);
        let goes_on = self.random.chance(30);
        for Sent { seq, given_up, .. } in in_flight.iter().filter(|_| !goes_on) {
            // What was on its way may arrive all the same.
            if !given_up && self.may_arrive_late(*seq) && self.random.chance(50) {
                self.stream.store(*seq, self.now);
            }
        }
        self.kill_batches();
        self.settling = None;
        self.recording = None;
        self.scan_above = Some(self.database.resume().stream.floor);
        self.is_start = true;
        self.note_what_may_repeat();
        let next = resumed(&self.database, (self.rules, self.bounds, self.kind), self.now);
        self.sometimes.overflown += u64::from(next.blocks_every_key());
        let before = std::mem::replace(&mut self.delivery, next);
        // For no longer than what it sends may be on its way.
        let until = self.now + Duration::from_millis(LATE_MAX);
        self.other = goes_on.then(|| Other::new(before, in_flight, until));
    }

    /// Events that are not settled when a process dies go again, whether or not they were answered.
    fn note_what_may_repeat(&mut self) {
        let position = self.database.resume().position;
        let is_open = |seq: i64| {
            let letter = self.database.letters.get(&seq);
            letter.is_some_and(|letter| letter.resolution.is_none())
        };
        for row in &self.database.rows {
            if !Database::is_settled(&position, *row) || is_open(row.seq) {
                self.may_repeat.insert(row.seq);
            }
        }
    }

    /// Some key has the fingerprint of a blocked one. At the start it has none: what an earlier run has
    /// sent may be on its way, and the odds of both at once are those of a miracle.
    pub(super) fn suspect(&mut self) {
        if !self.delivery.before.may_come() {
            let key = aggregate(self.random.below(6) + 100 * self.random.below(2));
            self.delivery.blocked.suspect(&key);
        }
    }

    pub(super) fn go_on_beside(&mut self) {
        let Some(other) = &mut self.other else { return };
        let stored = other.go_on(&mut self.stream, &self.poison, &mut self.random, self.now);
        self.sometimes.stored_beside += u64::from(stored);
    }
}
