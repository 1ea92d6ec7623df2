//! The simulated stream: it recognises an id for a while, and may store what it gave no answer for.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use uuid::Uuid;

use crate::{
    delivery::{BatchKind, Found},
    event::Seq,
};

/// For how long the stream recognises an id.
pub(super) const WINDOW: Duration = Duration::from_secs(2);

/// How long an answer is waited for, and how long a message may be on its way after nobody waits
/// for it any more.
pub(super) const LATE_MAX: u64 = 300;

/// What is stored, in order; the sequence is the place, counted from 1.
#[derive(Default)]
pub(super) struct Stream {
    pub(super) stored: Vec<i64>,
    recognised: HashMap<i64, (Instant, u64)>,
    /// Messages that are on their way although nobody waits for their answers.
    late: Vec<(Instant, BatchKind, Vec<i64>)>,
    /// Batches that came too late: some of it had been sent again and was stored.
    pub(super) refused_late: u64,
}

impl Stream {
    /// Stores an event unless it is recognised. Returns its sequence, and whether it was.
    pub(super) fn store(&mut self, seq: i64, now: Instant) -> (u64, bool) {
        if let Some((at, stream_seq)) = self.recognised.get(&seq)
            && now.duration_since(*at) < WINDOW
        {
            return (*stream_seq, true);
        }
        self.stored.push(seq);
        let stream_seq = self.stored.len() as u64;
        self.recognised.insert(seq, (now, stream_seq));
        (stream_seq, false)
    }

    /// Stores a batch, or none of it when one is recognised. Returns the sequence of its last.
    pub(super) fn store_together(&mut self, batch: &[i64], now: Instant) -> Option<u64> {
        let recognised = |seq: &i64| {
            self.recognised.get(seq).is_some_and(|(at, _)| now.duration_since(*at) < WINDOW)
        };
        if batch.iter().any(recognised) {
            return None;
        }
        for seq in batch {
            self.store(*seq, now);
        }
        Some(self.stored.len() as u64)
    }

    /// Stores a batch as its kind is stored. Returns whether the stream holds all of it then.
    pub(super) fn store_batch(&mut self, kind: BatchKind, batch: &[i64], now: Instant) -> bool {
        match kind {
            BatchKind::Atomic => self.store_together(batch, now).is_some(),
            BatchKind::Fast => {
                for seq in batch {
                    self.store(*seq, now);
                }
                true
            }
        }
    }

    /// Whether it is stored.
    pub(super) fn holds(&self, seq: i64) -> bool {
        // Recognised or not: what was stored once has its time here.
        self.recognised.contains_key(&seq)
    }

    /// They arrive later.
    pub(super) fn delay(&mut self, kind: BatchKind, batch: Vec<i64>, until: Instant) {
        self.late.push((until, kind, batch));
    }

    /// What is on its way arrives when it is time to; returns how many did.
    pub(super) fn arrive(&mut self, now: Instant) -> u64 {
        let (due, late): (Vec<_>, Vec<_>) = self.late.drain(..).partition(|(at, ..)| *at <= now);
        self.late = late;
        let arrived = due.len() as u64;
        for (at, kind, batch) in due {
            self.refused_late += u64::from(!self.store_batch(kind, &batch, at));
        }
        arrived
    }

    /// The events above a sequence, and the last sequence.
    pub(super) fn look_up(&self, above: u64) -> (Found, u64) {
        let above = usize::try_from(above).unwrap();
        let ids = self.stored.iter().skip(above);
        let ids = ids.map(|seq| (Uuid::from_u128(u128::try_from(*seq).unwrap()), Seq(*seq)));
        (Found::new(ids.collect()), self.stored.len() as u64)
    }
}
