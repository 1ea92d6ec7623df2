//! Events that are tried again: after a short wait in memory, after a long one as letters.

use std::time::Instant;

use super::{
    Attempt, Change, Death, Delivery, KeyLetters, LETTERS_MAX, Leaving, LetterId, OnDead, Records,
    Rejection, Retry, STAY_MAX, Ticket, Verdict,
};
use crate::event::{AggregateKey, Event};

impl Delivery {
    /// Blocks these keys: letters of theirs are unresolved.
    pub fn block_keys(&mut self, keys: impl IntoIterator<Item = AggregateKey>) {
        for key in keys {
            self.blocked.block(key, None);
        }
    }

    /// Keys that wait behind a letter.
    pub fn blocked_keys(&self) -> usize {
        self.blocked.len()
    }

    /// Whether there were more blocked keys than memory may hold, so that every key counts as one.
    pub fn blocks_every_key(&self) -> bool {
        self.blocked.is_overflown()
    }

    /// Whether every key counts as blocked although there are few enough again: the keys are to be
    /// loaded anew.
    pub fn wants_blocked_keys(&self) -> bool {
        self.blocked.wants_reload()
    }

    /// The broker does not take this message just now: it goes again after a wait of its own, in
    /// memory when that is short, and as a letter when it is long.
    pub(super) fn be_patient(
        &mut self,
        ticket: Ticket,
        reason: Rejection,
        attempt: Attempt,
        now: Instant,
    ) {
        let Some((event, _)) = self.lanes.event(ticket) else { return };
        let draw = event.seq.0.unsigned_abs();
        let half = self.rules.retry.attempts / 2;
        let (attempts, tries) = self.lanes.tried(ticket, attempt, half);
        if attempt == Attempt::Counts && self.rules.retry.is_exhausted(attempts) {
            let text = format!("{} (tried {attempts} times)", reason.text);
            self.die(ticket, Rejection { text, ..reason }, attempts, now);
            return;
        }
        let wait = self.rules.retry.wait(tries, draw);
        if wait <= STAY_MAX {
            self.lanes.again_at(ticket, now + wait);
            return;
        }
        let retry = Retry { reason, attempts, wait };
        if self.has_to_be_scanned_for(ticket, now) {
            self.leaving.insert(ticket, Leaving::Retrying(retry));
            return;
        }
        self.leave_retrying(ticket, retry);
    }

    /// The event becomes a dead letter at once, whether or not others of its key stand before it: what
    /// waits for its turn is copied from the outbox, and this event cannot be.
    pub(super) fn bury(&mut self, ticket: Ticket, event: &Event, reason: Rejection) {
        if self.rules.on_dead == OnDead::Hold
            && let Some(key) = event.lane()
        {
            self.blocked.block(key.clone(), Some(ticket));
        }
        self.deaths.push(Death { seq: event.seq, reason: reason.clone() });
        self.progress.resolve(ticket, Verdict::Dead { reason, attempts: 0 });
    }

    /// The event is tried again as a letter.
    fn leave_retrying(&mut self, ticket: Ticket, retry: Retry) {
        if self.letters.tried(ticket).is_some() {
            self.set_back(ticket, Change::Retrying(retry));
        } else {
            // Whatever `on_dead` says: it is not dead, and order is kept while it may still go.
            self.leave_and_hold(ticket, Verdict::Retrying(retry));
        }
    }

    /// The stream does not hold the event for certain: what was decided about it is done.
    pub(super) fn leave_as_decided(&mut self, ticket: Ticket) {
        match self.leaving.remove(&ticket) {
            Some(Leaving::Dead { reason, attempts }) => self.leave_dead(ticket, reason, attempts),
            Some(Leaving::Retrying(retry)) => self.leave_retrying(ticket, retry),
            None => {}
        }
    }

    /// Whether there is room for letters to be tried again.
    pub fn has_room_for_letters(&self) -> bool {
        self.letters.len() < LETTERS_MAX && self.room().bytes > 0
    }

    /// Whether loading this letter's key would only find what is in memory.
    pub fn is_active(&self, key: Option<&AggregateKey>, id: LetterId) -> bool {
        self.letters.is_active(key, id)
    }

    /// Takes in the loaded letters of one key. The load began when everything below `recorded` was
    /// settled.
    pub fn take_letters(&mut self, loaded: KeyLetters, recorded: Ticket) {
        let floor = self.floor_now();
        let blocked = &mut self.blocked;
        let free = |key: &AggregateKey| blocked.release(key, recorded);
        for (ticket, letter) in self.letters.take(loaded, floor, free) {
            let known = self.is_found(&letter.event);
            let since = self.uncertain_since();
            let uncertain = since.map(|since| (since, self.before.scanned_to()));
            self.lanes.admit(ticket, letter.event, letter.attempts, uncertain);
            if known {
                self.take_as_published(ticket);
            }
        }
    }

    /// All letters that were due are read.
    pub fn letters_read(&mut self) {
        self.before.letters_read();
        self.forget_found();
    }

    /// Letters in memory.
    pub fn letters(&self) -> usize {
        self.letters.len()
    }

    /// Whether anything is to be recorded about letters.
    pub fn has_records(&self) -> bool {
        self.letters.has_records()
    }

    /// What is to be recorded about letters. The caller keeps it until it is committed.
    pub fn take_records(&mut self) -> Records {
        self.blocked.being_recorded();
        self.letters.take_records()
    }

    /// These records are committed.
    pub fn letters_recorded(&mut self, records: &Records) {
        self.letters.recorded(records);
        self.blocked.recorded();
    }

    /// A letter goes back to its table, and the rest of its run leaves memory with it.
    pub(super) fn set_back(&mut self, ticket: Ticket, change: Change) {
        let mut leaving = self.letters.set_back(ticket, change);
        leaving.push(ticket);
        self.lanes.abandon(&leaving);
    }
}
