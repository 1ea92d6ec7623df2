//! The death of the simulated process, and what it leaves behind.

use std::time::Duration;

use super::{
    database::{SimulatedDatabase, aggregate},
    in_flight::InFlight,
    stream::LATE_MAX,
    world::{World, resumed},
    zombie::Zombie,
};

impl World {
    /// Kills the process; the next one resumes from the committed state.
    pub(super) fn kill(&mut self) {
        self.sometimes.killed_in_flight += u64::from(!self.in_flight.is_empty());
        let in_flight = std::mem::take(&mut self.in_flight);
        let goes_on = self.random.chance(30);
        for InFlight { seq, given_up, .. } in in_flight.iter().filter(|_| !goes_on) {
            // A message in flight may still arrive.
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
        // The killed process may go on as a zombie, but for no longer than a message may be in
        // flight.
        let until = self.now + Duration::from_millis(LATE_MAX);
        self.zombie = goes_on.then(|| Zombie::new(before, in_flight, until));
    }

    /// Notes the events that are sent again because they are not settled when a process dies.
    fn note_what_may_repeat(&mut self) {
        let position = self.database.resume().position;
        let is_open = |seq: i64| {
            let letter = self.database.letters.get(&seq);
            letter.is_some_and(|letter| letter.resolution.is_none())
        };
        for row in &self.database.rows {
            if !SimulatedDatabase::is_settled(&position, *row) || is_open(row.seq) {
                self.may_repeat.insert(row.seq);
            }
        }
    }

    /// Makes a random key suspected, as if it shared the fingerprint of a blocked key. Does nothing
    /// while an event of an earlier run may still appear, because both at once are too unlikely.
    pub(super) fn suspect(&mut self) {
        if !self.delivery.predecessor.may_appear() {
            let key = aggregate(self.random.below(6) + 100 * self.random.below(2));
            self.delivery.blocked.suspect(&key);
        }
    }

    pub(super) fn go_on_beside(&mut self) {
        let Some(zombie) = &mut self.zombie else { return };
        let stored = zombie.go_on(&mut self.stream, &self.poison, &mut self.random, self.now);
        self.sometimes.stored_beside += u64::from(stored);
    }
}
