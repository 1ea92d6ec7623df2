//! A zombie: an instance that lost its session, has not noticed, and goes on beside its successor.

use std::{collections::HashSet, time::Instant};

use super::{
    SimulationRandom,
    in_flight::InFlight,
    stream::{SimulatedStream, rejected},
};
use crate::delivery::{Delivery, Outcome};

pub(super) struct Zombie {
    delivery: Delivery,
    in_flight: Vec<InFlight>,
    until: Instant,
}

impl Zombie {
    /// A zombie that goes on until a time, with its messages in flight.
    pub(super) fn new(delivery: Delivery, mut in_flight: Vec<InFlight>, until: Instant) -> Self {
        in_flight.retain(|sent| !sent.given_up);
        Self { delivery, in_flight, until }
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }

    /// Answers one of the zombie's messages, and sends the events that are ready then. Returns
    /// whether the message was stored.
    pub(super) fn go_on(
        &mut self,
        stream: &mut SimulatedStream,
        poison: &HashSet<i64>,
        random: &mut SimulationRandom,
        now: Instant,
    ) -> bool {
        let mut is_stored = false;
        if !self.in_flight.is_empty() {
            let index = usize::try_from(random.below(self.in_flight.len() as u64)).unwrap();
            let InFlight { ticket, seq, .. } = self.in_flight.swap_remove(index);
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
            self.in_flight.push(InFlight { ticket, seq, at: now, given_up: false });
        }
        is_stored
    }
}
