//! Keeps the publishes that have no answer yet, each by its number.
//!
//! Answers come nearly in order, so the publishes are kept in a queue: the number of a publish
//! gives its place in the queue. One missing answer must not keep all later publishes in the queue.
//! Beyond [`QUEUE_MAX`] places the oldest unanswered publish moves to a map. The map never has more
//! entries than publishes may be in flight.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use crate::delivery::Ticket;

/// Maximum number of places of the queue, those of answered publishes included. Above it the oldest
/// unanswered publish moves to the map.
const QUEUE_MAX: usize = 8_192;

/// Publish that was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct SentMessage {
    pub(super) ticket: Ticket,
    pub(super) at: Instant,
}

/// Messages that were sent to the server and are not answered yet.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    /// Sent messages in the order in which they were sent; `None` once a message is answered. A
    /// batch is one entry, which has the ticket of the first event of the batch.
    queue: VecDeque<Option<SentMessage>>,
    /// Number of the message at the front of the queue. Messages are numbered as they are sent.
    first: u64,
    /// Unanswered messages with lower numbers than those in the queue, each by its number.
    overflow: BTreeMap<u64, SentMessage>,
}

impl Unanswered {
    /// Whether every publish is answered.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.overflow.is_empty()
    }

    /// The number of the next publish.
    pub(super) fn next_number(&self) -> u64 {
        self.first + self.queue.len() as u64
    }

    /// Adds a publish under the next number.
    pub(super) fn push(&mut self, ticket: Ticket, at: Instant) {
        self.queue.push_back(Some(SentMessage { ticket, at }));
        self.shorten();
    }

    /// Skips the next number. A batch that was handed over in part may be answered under it.
    pub(super) fn skip(&mut self) {
        self.queue.push_back(None);
        self.shorten();
    }

    /// Removes the publish with this number; `None` when it was answered or given up before.
    pub(super) fn take(&mut self, number: u64) -> Option<SentMessage> {
        let sent = match number.checked_sub(self.first) {
            None => self.overflow.remove(&number),
            Some(place) => {
                let place = usize::try_from(place).ok()?;
                self.queue.get_mut(place)?.take()
            }
        };
        self.shorten();
        sent
    }

    /// Removes the publish of an event, because the publisher no longer waits for its answer.
    pub(super) fn take_ticket(&mut self, ticket: Ticket) {
        let is_it = |sent: &SentMessage| sent.ticket == ticket;
        let overflow =
            self.overflow.iter().find(|(_, sent)| is_it(sent)).map(|(number, _)| *number);
        let queued = || self.queue.iter().position(|sent| sent.as_ref().is_some_and(is_it));
        if let Some(number) = overflow.or_else(|| queued().map(|place| self.first + place as u64)) {
            self.take(number);
        }
    }

    /// When the oldest unanswered publish was sent.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let overflow = self.overflow.first_key_value().map(|(_, sent)| sent.at);
        overflow.or_else(|| self.queue.front().copied().flatten().map(|sent| sent.at))
    }

    /// Takes out the oldest publish when it has been unanswered for at least `after`.
    pub(super) fn overdue(&mut self, now: Instant, after: Duration) -> Option<(u64, Ticket)> {
        if self.oldest()? + after > now {
            return None;
        }
        let number = self.overflow.first_key_value().map_or(self.first, |(number, _)| *number);
        self.take(number).map(|sent| (number, sent.ticket))
    }

    /// Takes out all publishes, in order.
    pub(super) fn take_all(&mut self) -> Vec<(u64, Ticket)> {
        let first = self.first;
        self.first = self.next_number();
        let overflow = std::mem::take(&mut self.overflow).into_iter();
        let queued = (first..).zip(self.queue.drain(..));
        let queued = queued.filter_map(|(number, sent)| Some((number, sent?)));
        overflow.chain(queued).map(|(number, sent)| (number, sent.ticket)).collect()
    }

    /// Removes answered publishes at the front, and keeps the queue within its bound.
    fn shorten(&mut self) {
        while let Some(sent) = self.queue.front().copied() {
            if let Some(sent) = sent {
                if self.queue.len() <= QUEUE_MAX {
                    return;
                }
                self.overflow.insert(self.first, sent);
            }
            self.queue.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: with a long `ack_timeout`, one lost answer kept millions of later publishes in
    /// memory.
    #[test]
    fn an_answer_that_stays_away_keeps_only_itself() {
        let (now, wait) = (Instant::now(), Duration::from_mins(5));
        let mut unanswered = Unanswered::default();
        unanswered.push(Ticket(0), now);
        for number in 1..100_000 {
            assert_eq!(unanswered.next_number(), number);
            unanswered.push(Ticket(number), now);
            assert_eq!(unanswered.take(number).map(|sent| sent.ticket), Some(Ticket(number)));
            assert!(unanswered.queue.len() + unanswered.overflow.len() <= QUEUE_MAX + 1);
        }
        assert_eq!(unanswered.overdue(now, wait), None);
        assert_eq!(unanswered.oldest(), Some(now));
        assert_eq!(unanswered.overdue(now + wait, wait), Some((0, Ticket(0))));
        assert!(unanswered.is_empty() && unanswered.oldest().is_none());
    }

    #[test]
    fn what_overflows_is_answered_given_up_and_taken_out_in_order() {
        let now = Instant::now();
        let fill = || {
            let mut unanswered = Unanswered::default();
            for number in 0..2 * QUEUE_MAX as u64 {
                unanswered.push(Ticket(number), now);
            }
            assert_eq!(unanswered.overflow.len(), QUEUE_MAX);
            unanswered
        };
        let mut unanswered = fill();
        assert_eq!(unanswered.take(7).map(|sent| sent.ticket), Some(Ticket(7)));
        assert!(unanswered.take(7).is_none());
        unanswered.take_ticket(Ticket(0));
        unanswered.take_ticket(Ticket(2 * QUEUE_MAX as u64 - 1));
        let all = unanswered.take_all();
        assert!(all.is_sorted() && all.len() == 2 * QUEUE_MAX - 3);
        assert!(unanswered.is_empty() && unanswered.next_number() == 2 * QUEUE_MAX as u64);
    }
}
