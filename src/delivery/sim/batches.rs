//! Batches in the simulation: stored as a whole or not at all, answered or not, in time or late.

use std::time::{Duration, Instant};

use super::{stream::LATE_MAX, world::World};
use crate::{
    delivery::{BatchOutcome, Batching, Company, StreamMark, Ticket},
    event::EventId,
};

/// A batch on its way; like a single message it arrives within [`LATE_MAX`] or never.
pub(super) struct Sent {
    tickets: Vec<Ticket>,
    seqs: Vec<i64>,
    at: Instant,
    given_up: bool,
}

impl World {
    pub(super) fn company(&mut self, first: Ticket) -> Company {
        // Now and then another way is found faster.
        let are_wanted = self.takes_batches && self.random.chance(80);
        self.delivery.set_batches(if are_wanted { Batching::Wanted } else { Batching::Off });
        self.delivery.company(first, self.now)
    }

    /// Hands a batch over: all of it, its first part, or so much that the rest is missing.
    pub(super) fn send_together(&mut self, batch: &[Ticket]) {
        let seqs: Vec<i64> =
            batch.iter().map(|ticket| self.delivery.event(*ticket).unwrap().0.seq.0).collect();
        assert!(batch.iter().all(|ticket| !self.delivery.event(*ticket).unwrap().1), "sent before");
        for (place, seq) in seqs.iter().enumerate() {
            self.assert_alone(*seq);
            let key = self.database.row(*seq).key;
            let same = |other: &&i64| key.is_some() && self.database.row(**other).key == key;
            let before = seqs[..place].iter().rfind(same);
            assert!(before < Some(seq), "{seq} follows {before:?} in a batch");
        }
        let goes = if self.random.chance(10) { batch.len() - 1 } else { batch.len() };
        let (goes, waits) = batch.split_at(goes);
        if self.random.chance(self.trouble / 4) {
            self.delivery.broke_off(goes, self.now);
            self.sometimes.broken_off += 1;
        } else {
            self.delivery.sent_together(goes, self.now);
            let seqs = seqs[..goes.len()].to_vec();
            let several = seqs
                .iter()
                .any(|seq| self.database.row(*seq).key != self.database.row(seqs[0]).key);
            self.sometimes.of_several_keys += u64::from(several);
            self.batches.push(Sent { tickets: goes.to_vec(), seqs, at: self.now, given_up: false });
        }
        self.delivery.give_back_together(waits);
    }

    /// Nobody else of its key is on its way.
    pub(super) fn assert_alone(&self, seq: i64) {
        let key = self.database.row(seq).key;
        let same =
            |other: &i64| *other == seq || key.is_some() && self.database.row(*other).key == key;
        let alone = self.in_flight.iter().map(|sent| &sent.seq);
        let together = self.batches.iter().flat_map(|sent| &sent.seqs);
        assert!(!alone.chain(together).any(same), "two of a key on their way");
    }

    pub(super) fn assert_within_window(&self, most: usize) {
        let together: usize = self.batches.iter().map(|sent| sent.seqs.len()).sum();
        assert!(self.in_flight.len() + together <= most, "window exceeded");
        assert_eq!(self.in_flight.len() + together, self.delivery.in_flight());
    }

    /// What is known of the stream is so.
    pub(super) fn assert_known(&self, mark: &StreamMark) {
        let acked = usize::try_from(mark.acked).unwrap();
        assert!(acked <= self.stream.stored.len(), "{acked} is no sequence of the stream");
        let Some(EventId(id)) = mark.event_id else { return };
        let held = self.stream.stored[acked - 1];
        assert_eq!(id.as_u128(), u128::try_from(held).unwrap(), "another event under {acked}");
    }

    /// Answers a batch, well or badly. Returns whether it was the turn of one.
    pub(super) fn answer_together(&mut self) -> bool {
        let all = (self.batches.len() + self.in_flight.len()) as u64;
        if all == 0 || self.random.below(all) >= self.batches.len() as u64 {
            return false;
        }
        let index = usize::try_from(self.random.below(self.batches.len() as u64)).unwrap();
        let Sent { tickets, seqs, given_up, .. } = self.batches.swap_remove(index);
        let outcome = if given_up {
            BatchOutcome::Unconfirmed
        } else if self.random.chance(self.trouble) {
            self.bad_outcome_together(seqs)
        } else if self.is_refused(&seqs) {
            refused()
        } else if let Some(last_seq) = self.stream.store_together(&seqs, self.now) {
            self.sometimes.committed += 1;
            BatchOutcome::Committed { last_seq }
        } else {
            // An earlier run had sent one of them, and it arrived after the look.
            self.sometimes.refused_for_a_duplicate += 1;
            refused()
        };
        self.sometimes.refused += u64::from(outcome == refused());
        self.delivery.resolve_together(&tickets, &outcome, self.now);
        true
    }

    /// One that the broker does not take spoils the batch.
    fn is_refused(&mut self, seqs: &[i64]) -> bool {
        let busy = self.random.chance(80);
        seqs.iter().any(|seq| self.poison.contains(seq) || busy && self.tough.contains(seq))
    }

    fn bad_outcome_together(&mut self, seqs: Vec<i64>) -> BatchOutcome {
        let is_good = !seqs.iter().any(|seq| self.poison.contains(seq));
        match self.random.below(4) {
            0 => return refused(),
            1 if is_good => {
                let stored = self.stream.store_together(&seqs, self.now);
                self.sometimes.stored_unanswered += u64::from(stored.is_some());
            }
            2 if is_good => self.delay_batch(seqs, self.now),
            _ => self.sometimes.lost_unanswered += 1,
        }
        BatchOutcome::Unconfirmed
    }

    fn delay_batch(&mut self, seqs: Vec<i64>, from: Instant) {
        let late = Duration::from_millis(self.random.below(LATE_MAX));
        self.stream.delay(seqs, from + late);
        self.sometimes.batch_late += 1;
    }

    /// Nobody waits any more for those that were sent long ago; some arrive.
    pub(super) fn give_up_batches(&mut self) {
        let late_max = Duration::from_millis(LATE_MAX);
        for index in 0..self.batches.len() {
            let sent = &mut self.batches[index];
            if sent.given_up || self.now.duration_since(sent.at) < late_max {
                continue;
            }
            sent.given_up = true;
            let (seqs, at) = (sent.seqs.clone(), sent.at);
            if !seqs.iter().any(|seq| self.poison.contains(seq)) && self.random.chance(50) {
                self.delay_batch(seqs, at);
            }
        }
    }

    /// The process dies; what was on its way may arrive all the same.
    pub(super) fn kill_batches(&mut self) {
        self.sometimes.killed_with_a_batch += u64::from(!self.batches.is_empty());
        for Sent { seqs, given_up, .. } in std::mem::take(&mut self.batches) {
            let is_good = !seqs.iter().any(|seq| self.poison.contains(seq));
            if !given_up && is_good && self.random.chance(50) {
                self.stream.store_together(&seqs, self.now);
            }
        }
    }
}

fn refused() -> BatchOutcome {
    BatchOutcome::Refused { text: "refused".into() }
}
