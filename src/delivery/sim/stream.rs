//! The simulated log: it may recognise an id for a while, may be scanned, and may store what
//! it gave no answer for.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use uuid::Uuid;

use crate::{
    delivery::{BatchKind, Capabilities, Outcome, Rejection, ScanResult},
    event::Seq,
};

/// Time for which a log that recognises ids recognises one.
const WINDOW: Duration = Duration::from_secs(2);

/// Milliseconds for which the relay waits for an answer. The message may arrive for as long again
/// after that.
pub(super) const LATE_MAX: u64 = 300;

/// The kinds of log that brokers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogKind {
    /// A log that recognises ids for a while, and can be scanned: JetStream.
    Remembers,
    /// A log that recognises nothing, and can be scanned: Kafka, Redis Streams.
    Forgets,
    /// A log that recognises nothing, and cannot be read back: standard output, an AMQP exchange.
    OutOfReach,
}

impl LogKind {
    /// Capabilities of this kind of log, as a relay learns them.
    pub(super) fn capabilities(self) -> Capabilities {
        Capabilities {
            recognises: if self == Self::Remembers { WINDOW } else { Duration::ZERO },
            is_scannable: self != Self::OutOfReach,
            ack_timeout: Duration::from_millis(LATE_MAX),
        }
    }
}

/// Simulated log: the stored events in order. A sequence is a place, counted from 1.
pub(super) struct SimulatedStream {
    kind: LogKind,
    pub(super) stored: Vec<i64>,
    recognised: HashMap<i64, (Instant, u64)>,
    /// Batches and messages that arrive later, with the time at which they do. The relay gets no
    /// answer about them.
    late: Vec<(Instant, BatchKind, Vec<i64>)>,
    /// Number of atomic batches that arrived late and were refused, because one of their events had
    /// been sent again and stored meanwhile.
    pub(super) refused_late: u64,
}

impl SimulatedStream {
    pub(super) fn new(kind: LogKind) -> Self {
        let (stored, recognised, late) = (Vec::new(), HashMap::new(), Vec::new());
        Self { kind, stored, recognised, late, refused_late: 0 }
    }

    fn recognises(&self, seq: i64, now: Instant) -> Option<u64> {
        let (at, stream_seq) = self.recognised.get(&seq)?;
        (now.duration_since(*at) < self.kind.capabilities().recognises).then_some(*stream_seq)
    }

    /// Stores an event unless the log recognises its id. Returns its stream sequence, and whether
    /// the id was recognised.
    pub(super) fn store(&mut self, seq: i64, now: Instant) -> (u64, bool) {
        if let Some(stream_seq) = self.recognises(seq, now) {
            return (stream_seq, true);
        }
        self.stored.push(seq);
        let stream_seq = self.stored.len() as u64;
        self.recognised.insert(seq, (now, stream_seq));
        (stream_seq, false)
    }

    /// Stores an atomic batch, or nothing when the log recognises the id of one of its events.
    /// Returns the stream sequence of the last event.
    pub(super) fn store_atomic(&mut self, batch: &[i64], now: Instant) -> Option<u64> {
        if batch.iter().any(|seq| self.recognises(*seq, now).is_some()) {
            return None;
        }
        for seq in batch {
            self.store(*seq, now);
        }
        Some(self.stored.len() as u64)
    }

    /// Stores a batch as its kind is stored. Returns whether the stream contains all of it then.
    pub(super) fn store_batch(&mut self, kind: BatchKind, batch: &[i64], now: Instant) -> bool {
        match kind {
            BatchKind::Atomic => self.store_atomic(batch, now).is_some(),
            BatchKind::Fast => {
                for seq in batch {
                    self.store(*seq, now);
                }
                true
            }
        }
    }

    /// Whether the log contains the event.
    pub(super) fn contains(&self, seq: i64) -> bool {
        // Every event that was ever stored is in `recognised`, even if its window is over.
        self.recognised.contains_key(&seq)
    }

    /// Lets these messages arrive at `until`, without an answer to the relay.
    pub(super) fn delay(&mut self, kind: BatchKind, batch: Vec<i64>, until: Instant) {
        self.late.push((until, kind, batch));
    }

    /// Delivers the delayed messages that are due, and returns their number.
    pub(super) fn arrive(&mut self, now: Instant) -> u64 {
        let (due, late): (Vec<_>, Vec<_>) = self.late.drain(..).partition(|(at, ..)| *at <= now);
        self.late = late;
        let arrived = due.len() as u64;
        for (at, kind, batch) in due {
            self.refused_late += u64::from(!self.store_batch(kind, &batch, at));
        }
        arrived
    }

    /// Scans the log above a stream sequence. Returns the events found, and the last sequence of
    /// the log.
    pub(super) fn scan(&self, above: u64) -> (ScanResult, u64) {
        if !self.kind.capabilities().is_scannable {
            return (ScanResult::default(), self.stored.len() as u64);
        }
        let above = usize::try_from(above).unwrap();
        let ids = self.stored.iter().skip(above);
        let ids = ids.map(|seq| (Uuid::from_u128(u128::try_from(*seq).unwrap()), Seq(*seq)));
        (ScanResult::new(ids.collect()), self.stored.len() as u64)
    }
}

/// The answer to a message that the log never stores.
pub(super) fn rejected() -> Outcome {
    Outcome::Rejected(Rejection { code: "rejected", text: "poison".into() })
}
