//! Publishes that are not answered yet, each by its number.
//!
//! Answers come nearly in order, so that a queue serves: the place of a publish in it follows from
//! its number. One answer that stays away must not keep all later ones in the queue. Beyond
//! [`QUEUE_MAX`] places the oldest unanswered publish is kept apart, of which there are no more
//! than may be on their way at all.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use crate::delivery::Ticket;

/// Places of the queue at most, answered ones included, before its oldest unanswered one is kept
/// apart.
const QUEUE_MAX: usize = 8_192;

/// Publish that was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct SentMessage {
    pub(super) ticket: Ticket,
    pub(super) at: Instant,
}

/// Publishes that are not answered.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    /// In the order of their numbers; `None` once answered. A batch is one of them, by its first
    /// event.
    queue: VecDeque<Option<SentMessage>>,
    /// The number of the first in the queue.
    first: u64,
    /// Unanswered publishes before it.
    apart: BTreeMap<u64, SentMessage>,
}

impl Unanswered {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.apart.is_empty()
    }

    /// The number of the next publish.
    pub(super) fn next_number(&self) -> u64 {
        self.first + self.queue.len() as u64
    }

    /// A publish went under the next number.
    pub(super) fn push(&mut self, ticket: Ticket, at: Instant) {
        self.queue.push_back(Some(SentMessage { ticket, at }));
        self.shorten();
    }

    /// The next number is not used: what was handed over in part only may be answered under it.
    pub(super) fn skip(&mut self) {
        self.queue.push_back(None);
        self.shorten();
    }

    /// The publish of a number is answered, or nobody waits for its answer any more.
    pub(super) fn take(&mut self, number: u64) -> Option<SentMessage> {
        let sent = match number.checked_sub(self.first) {
            None => self.apart.remove(&number),
            Some(place) => {
                let place = usize::try_from(place).ok()?;
                self.queue.get_mut(place)?.take()
            }
        };
        self.shorten();
        sent
    }

    /// Drops the publish of an event, whose answer is given up.
    pub(super) fn take_ticket(&mut self, ticket: Ticket) {
        let is_it = |sent: &SentMessage| sent.ticket == ticket;
        let apart = self.apart.iter().find(|(_, sent)| is_it(sent)).map(|(number, _)| *number);
        let queued = || self.queue.iter().position(|sent| sent.as_ref().is_some_and(is_it));
        if let Some(number) = apart.or_else(|| queued().map(|place| self.first + place as u64)) {
            self.take(number);
        }
    }

    /// When the oldest was sent.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let apart = self.apart.first_key_value().map(|(_, sent)| sent.at);
        apart.or_else(|| self.queue.front().copied().flatten().map(|sent| sent.at))
    }

    /// Takes out the oldest when it was sent so long ago.
    pub(super) fn overdue(&mut self, now: Instant, after: Duration) -> Option<(u64, Ticket)> {
        if self.oldest()? + after > now {
            return None;
        }
        let number = self.apart.first_key_value().map_or(self.first, |(number, _)| *number);
        self.take(number).map(|sent| (number, sent.ticket))
    }

    /// Takes out all of them, in order.
    pub(super) fn take_all(&mut self) -> Vec<(u64, Ticket)> {
        let first = self.first;
        self.first = self.next_number();
        let apart = std::mem::take(&mut self.apart).into_iter();
        let queued = (first..).zip(self.queue.drain(..));
        let queued = queued.filter_map(|(number, sent)| Some((number, sent?)));
        apart.chain(queued).map(|(number, sent)| (number, sent.ticket)).collect()
    }

    /// Forgets what is answered at the front, and keeps the queue within its bound.
    fn shorten(&mut self) {
        while let Some(sent) = self.queue.front().copied() {
            if let Some(sent) = sent {
                if self.queue.len() <= QUEUE_MAX {
                    return;
                }
                self.apart.insert(self.first, sent);
            }
            self.queue.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a long `ack_timeout` one lost answer kept an entry of each later publish: millions.
    #[test]
    fn an_answer_that_stays_away_keeps_only_itself() {
        let (now, wait) = (Instant::now(), Duration::from_mins(5));
        let mut unanswered = Unanswered::default();
        unanswered.push(Ticket(0), now);
        for number in 1..100_000 {
            assert_eq!(unanswered.next_number(), number);
            unanswered.push(Ticket(number), now);
            assert_eq!(unanswered.take(number).map(|sent| sent.ticket), Some(Ticket(number)));
            assert!(unanswered.queue.len() + unanswered.apart.len() <= QUEUE_MAX + 1);
        }
        assert_eq!(unanswered.overdue(now, wait), None);
        assert_eq!(unanswered.oldest(), Some(now));
        assert_eq!(unanswered.overdue(now + wait, wait), Some((0, Ticket(0))));
        assert!(unanswered.is_empty() && unanswered.oldest().is_none());
    }

    #[test]
    fn what_is_kept_apart_is_answered_given_up_and_taken_out_in_order() {
        let now = Instant::now();
        let fill = || {
            let mut unanswered = Unanswered::default();
            for number in 0..2 * QUEUE_MAX as u64 {
                unanswered.push(Ticket(number), now);
            }
            assert_eq!(unanswered.apart.len(), QUEUE_MAX);
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
