//! An instance that lost its session and has not noticed: it goes on for a moment beside the next one.

use std::{collections::HashSet, time::Instant};

use super::{
    Random,
    stream::Stream,
    world::{Sent, rejected},
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
