//! Transfer between the fast path and the letters: events that become letters, and letters that are
//! loaded to be published.

use std::time::Instant;

use crate::{
    delivery::{
        Attempt, DeadEvent, DeferredVerdict, Delivery, KeyLetters, LETTERS_MAX, LetterChange,
        LetterId, OnDead, Records, Rejection, Retry, STAY_MAX, Ticket, Verdict,
    },
    event::{AggregateKey, Event},
};

impl Delivery {
    /// Blocks these keys, which have unresolved letters.
    pub fn block_keys(&mut self, keys: impl IntoIterator<Item = AggregateKey>) {
        for key in keys {
            self.blocked.block(key, None);
        }
    }

    /// Number of blocked keys.
    pub fn blocked_keys(&self) -> usize {
        self.blocked.len()
    }

    /// Whether the bounds on blocked keys were exceeded, so that every key counts as blocked.
    pub fn blocks_every_key(&self) -> bool {
        self.blocked.is_overflown()
    }

    /// Whether every key counts as blocked although so few blocked keys are left that memory has
    /// room for them. Then the caller should reload the blocked keys from the database.
    pub fn wants_blocked_keys(&self) -> bool {
        self.blocked.wants_reload()
    }

    /// Retries a message that the broker refused for now. The event spends a short wait in memory;
    /// for a long one it becomes a letter.
    pub(in crate::delivery) fn retry_later(
        &mut self,
        ticket: Ticket,
        reason: Rejection,
        attempt: Attempt,
        now: Instant,
    ) {
        let Some((event, _)) = self.lanes.event(ticket) else { return };
        let draw = event.seq.0.unsigned_abs();
        let half = self.rules.retry.attempts / 2;
        let (attempts, tries) = self.lanes.count_attempt(ticket, attempt, half);
        if attempt == Attempt::Counts && self.rules.retry.is_exhausted(attempts) {
            let text = format!("{} (tried {attempts} times)", reason.text);
            self.dead_letter(ticket, Rejection { text, ..reason }, attempts, now);
            return;
        }
        let wait = self.rules.retry.wait(tries, draw);
        if wait <= STAY_MAX {
            self.lanes.requeue_at(ticket, now + wait);
            return;
        }
        let retry = Retry { reason, attempts, wait };
        if self.has_to_be_scanned_for(ticket, now) {
            self.deferred.insert(ticket, DeferredVerdict::Retrying(retry));
            return;
        }
        self.leave_as_retrying(ticket, retry);
    }

    /// Makes an event with an unreadable row a dead letter at once, even while earlier events of
    /// its key wait. A held letter is a copy of its row, and this row cannot be copied.
    pub(in crate::delivery) fn dead_letter_at_once(
        &mut self,
        ticket: Ticket,
        event: &Event,
        reason: Rejection,
    ) {
        if self.rules.on_dead == OnDead::Hold
            && let Some(key) = event.lane()
        {
            self.blocked.block(key.clone(), Some(ticket));
        }
        self.dead_events.push(DeadEvent { seq: event.seq, reason: reason.clone() });
        self.progress.resolve(ticket, Verdict::Dead { reason, attempts: 0 });
    }

    /// Makes the event a letter that is tried again.
    fn leave_as_retrying(&mut self, ticket: Ticket, retry: Retry) {
        if self.letters.loaded(ticket).is_some() {
            self.set_back(ticket, LetterChange::Retrying(retry));
        } else {
            // The key is blocked whatever `on_dead` says: the event is not dead, so the order of
            // its key is kept.
            self.leave_and_hold(ticket, Verdict::Retrying(retry));
        }
    }

    /// Applies the deferred verdict about an event that the log certainly does not contain.
    pub(in crate::delivery) fn apply_deferred(&mut self, ticket: Ticket) {
        match self.deferred.remove(&ticket) {
            Some(DeferredVerdict::Dead { reason, attempts }) => {
                self.leave_as_dead(ticket, reason, attempts);
            }
            Some(DeferredVerdict::Retrying(retry)) => self.leave_as_retrying(ticket, retry),
            None => {}
        }
    }

    /// Whether memory has room for more letters.
    pub fn has_room_for_letters(&self) -> bool {
        self.letters.len() < LETTERS_MAX && self.room().bytes > 0
    }

    /// Whether letters of this key are in memory or have unwritten records, so that loading them
    /// would be in vain.
    pub fn is_active(&self, key: Option<&AggregateKey>, id: LetterId) -> bool {
        self.letters.is_active(key, id)
    }

    /// Takes the loaded letters of one key. When the load began, every event with a ticket below
    /// `settled_up_to` was settled.
    pub fn take_letters(&mut self, loaded: KeyLetters, settled_up_to: Ticket) {
        let floor = self.floor_now();
        let blocked = &mut self.blocked;
        let free = |key: &AggregateKey| blocked.release(key, settled_up_to);
        for (ticket, letter) in self.letters.take(loaded, floor, free) {
            let known = self.is_found(&letter.event);
            let since = self.uncertain_since();
            let uncertain = since.map(|since| (since, self.predecessor.scanned_to()));
            self.lanes.admit(ticket, letter.event, letter.attempts, uncertain);
            if known {
                self.take_as_published(ticket);
            }
        }
    }

    /// Notes that the relay has loaded all letters that were due.
    pub fn letters_read(&mut self) {
        self.predecessor.letters_read();
        self.drop_scan_result();
    }

    /// Number of letters in memory.
    pub fn letters(&self) -> usize {
        self.letters.len()
    }

    /// Whether there are records about letters to write.
    pub fn has_records(&self) -> bool {
        self.letters.has_records()
    }

    /// Takes the records about letters. The caller keeps them until all are committed.
    pub fn take_records(&mut self) -> Records {
        self.blocked.being_recorded();
        self.letters.take_records()
    }

    /// Notes that all of these records are committed.
    pub fn letters_recorded(&mut self, records: &Records) {
        self.letters.recorded(records);
        self.blocked.recorded();
    }

    /// Removes a letter and the rest of its run from memory, and records this change of the letter.
    pub(in crate::delivery) fn set_back(&mut self, ticket: Ticket, change: LetterChange) {
        let mut leaving = self.letters.set_back(ticket, change);
        leaving.push(ticket);
        self.lanes.abandon(&leaving);
    }
}
