//! Batches in the simulation: stored as a whole or not at all, or in order up to a fault; answered
//! or not, in time or late.

use std::time::{Duration, Instant};

use super::{in_flight::InFlightBatch, stream::LATE_MAX, world::World};
use crate::{
    delivery::{BatchKind, BatchOutcome, Batching, Grouping, StreamMark, Ticket},
    event::EventId,
};

impl World {
    pub(super) fn choose_grouping(&mut self, first: Ticket) -> Grouping {
        // The kind changes now and then, as if a trial had found another way of sending faster.
        let kind = if self.random.chance(50) { BatchKind::Atomic } else { BatchKind::Fast };
        let are_wanted = self.takes_batches && self.random.chance(80);
        self.delivery.set_batches(if are_wanted { Batching::Always(kind) } else { Batching::Off });
        self.delivery.choose_grouping(first, self.now)
    }

    /// Hands a batch over. Sometimes its last event is left out, as one that cannot be encoded.
    /// Sometimes the batch is cut short on its way.
    pub(super) fn send_batch(&mut self, kind: BatchKind, batch: &[Ticket]) {
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
        if self.random.chance(self.failure_percent / 4) {
            self.delivery.batch_cut_short(kind, goes, self.now);
            self.sometimes.broken_off += 1;
            if kind == BatchKind::Fast {
                let part = self.part(&seqs[..goes.len()]);
                self.delay_batch(kind, part, self.now);
            }
        } else {
            self.delivery.batch_sent(kind, goes, self.now);
            let seqs = seqs[..goes.len()].to_vec();
            let several = seqs
                .iter()
                .any(|seq| self.database.row(*seq).key != self.database.row(seqs[0]).key);
            self.sometimes.of_several_keys += u64::from(several);
            let (tickets, at) = (goes.to_vec(), self.now);
            self.batches.push(InFlightBatch { kind, tickets, seqs, at, given_up: false });
        }
        self.delivery.give_back_batch(waits);
    }

    /// Asserts that no other event of this event's key is in flight.
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

    /// Asserts that the acknowledged sequence in the mark exists in the simulated log, and that the
    /// event of the mark is stored there.
    pub(super) fn assert_known(&self, mark: &StreamMark) {
        let acked = usize::try_from(mark.acked).unwrap();
        assert!(acked <= self.stream.stored.len(), "{acked} is no sequence of the stream");
        let Some(EventId(id)) = mark.event_id else { return };
        let held = self.stream.stored[acked - 1];
        assert_eq!(id.as_u128(), u128::try_from(held).unwrap(), "another event under {acked}");
    }

    /// Answers a batch in flight, well or badly. Returns `false` when no batch is in flight, or
    /// when chance picks a single message instead.
    pub(super) fn answer_batch(&mut self) -> bool {
        let all = (self.batches.len() + self.in_flight.len()) as u64;
        if all == 0 || self.random.below(all) >= self.batches.len() as u64 {
            return false;
        }
        let index = usize::try_from(self.random.below(self.batches.len() as u64)).unwrap();
        let InFlightBatch { kind, tickets, seqs, given_up, .. } = self.batches.swap_remove(index);
        let outcome = if given_up {
            BatchOutcome::Unconfirmed
        } else if self.random.chance(self.failure_percent) {
            self.bad_batch_outcome(kind, seqs)
        } else if kind == BatchKind::Fast {
            self.store_in_order(&seqs)
        } else if self.is_refused(&seqs) {
            refused()
        } else if let Some(last_seq) = self.stream.store_atomic(&seqs, self.now) {
            self.sometimes.committed += 1;
            BatchOutcome::Committed { last_seq }
        } else {
            // An earlier run had sent an event of the batch, and its message arrived after the
            // scan.
            self.sometimes.refused_for_a_duplicate += 1;
            refused()
        };
        self.sometimes.refused += u64::from(outcome == refused());
        self.delivery.resolve_batch(&tickets, &outcome, self.now);
        true
    }

    /// Whether the broker refuses the whole batch, because it refuses one of its events.
    fn is_refused(&mut self, seqs: &[i64]) -> bool {
        let busy = self.random.chance(80);
        seqs.iter().any(|seq| self.poison.contains(seq) || busy && self.tough.contains(seq))
    }

    /// First events of a batch, a random number of them, up to the first that the broker refuses
    /// for good.
    fn part(&mut self, seqs: &[i64]) -> Vec<i64> {
        let most = usize::try_from(self.random.below(seqs.len() as u64 + 1)).unwrap();
        let is_good = |seq: &&i64| !self.poison.contains(seq);
        seqs[..most].iter().take_while(is_good).copied().collect()
    }

    /// Stores a fast batch message by message, up to a fault. Asserts that no id is recognised,
    /// because the log would skip such a message without a notice.
    fn store_in_order(&mut self, seqs: &[i64]) -> BatchOutcome {
        let busy = self.random.chance(80);
        let mut last_seq = 0;
        for seq in seqs {
            if self.poison.contains(seq) || busy && self.tough.contains(seq) {
                self.sometimes.stored_in_part += 1;
                return BatchOutcome::Unconfirmed;
            }
            let (stream_seq, duplicate) = self.stream.store(*seq, self.now);
            assert!(!duplicate, "{seq} was sent before");
            last_seq = stream_seq;
        }
        self.sometimes.seen += 1;
        BatchOutcome::Seen { last_seq }
    }

    fn bad_batch_outcome(&mut self, kind: BatchKind, seqs: Vec<i64>) -> BatchOutcome {
        let seqs = if kind == BatchKind::Fast { self.part(&seqs) } else { seqs };
        let is_good = !seqs.iter().any(|seq| self.poison.contains(seq));
        match self.random.below(4) {
            0 if kind == BatchKind::Atomic => return refused(),
            1 if is_good => {
                let is_stored = self.stream.store_batch(kind, &seqs, self.now);
                self.sometimes.stored_unanswered += u64::from(is_stored);
            }
            2 if is_good => self.delay_batch(kind, seqs, self.now),
            _ => self.sometimes.lost_unanswered += 1,
        }
        BatchOutcome::Unconfirmed
    }

    fn delay_batch(&mut self, kind: BatchKind, seqs: Vec<i64>, from: Instant) {
        let late = Duration::from_millis(self.random.below(LATE_MAX));
        self.stream.delay(kind, seqs, from + late);
        self.sometimes.batch_late += 1;
    }

    /// Gives up batches that were sent long ago; some of them still arrive.
    pub(super) fn give_up_batches(&mut self) {
        let late_max = Duration::from_millis(LATE_MAX);
        for index in 0..self.batches.len() {
            let sent = &mut self.batches[index];
            if sent.given_up || self.now.duration_since(sent.at) < late_max {
                continue;
            }
            sent.given_up = true;
            let (kind, seqs, at) = (sent.kind, sent.seqs.clone(), sent.at);
            let seqs = if kind == BatchKind::Fast { self.part(&seqs) } else { seqs };
            if !seqs.iter().any(|seq| self.poison.contains(seq)) && self.random.chance(50) {
                self.delay_batch(kind, seqs, at);
            }
        }
    }

    /// Drops the batches of a process that dies; some of them still arrive.
    pub(super) fn kill_batches(&mut self) {
        self.sometimes.killed_with_a_batch += u64::from(!self.batches.is_empty());
        for InFlightBatch { kind, seqs, given_up, .. } in std::mem::take(&mut self.batches) {
            let seqs = if kind == BatchKind::Fast { self.part(&seqs) } else { seqs };
            let is_good = !seqs.iter().any(|seq| self.poison.contains(seq));
            if !given_up && is_good && self.random.chance(50) {
                self.stream.store_batch(kind, &seqs, self.now);
            }
        }
    }
}

fn refused() -> BatchOutcome {
    BatchOutcome::Refused { text: "refused".into() }
}
