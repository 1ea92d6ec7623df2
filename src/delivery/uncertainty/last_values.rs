//! Last values: the newest event of each key and subject in a log that keeps only the last ones.
//!
//! A stream with `max_msgs_per_subject` replaces a message by later ones of its subject. One event
//! of a key is in flight at a time. So if the log contains a later event of a key, it contained the
//! earlier ones before. Publishing one again would put an old value on top of a new one.

use std::collections::HashMap;

use crate::{
    delivery::{Delivery, SCANNED_IDS_MAX, Ticket},
    event::{AggregateKey, Seq},
};

/// Newest event of each key and subject. At most [`SCANNED_IDS_MAX`] pairs are kept; events of
/// further pairs are published again.
#[derive(Debug, Clone, Default)]
pub struct LastValues {
    newest: HashMap<AggregateKey, HashMap<Box<str>, Seq>>,
    pairs: usize,
}

impl LastValues {
    /// Notes an event that the log contains. Returns whether there was room for it.
    pub fn note(&mut self, key: &AggregateKey, subject: &str, seq: Seq) -> bool {
        let known = self.newest.get_mut(key).and_then(|subjects| subjects.get_mut(subject));
        if let Some(newest) = known {
            *newest = seq.max(*newest);
            return true;
        }
        if self.pairs >= SCANNED_IDS_MAX {
            return false;
        }
        self.pairs += 1;
        self.newest.entry(key.clone()).or_default().insert(subject.into(), seq);
        true
    }

    fn is_newer(&self, key: &AggregateKey, subject: &str, seq: Seq) -> bool {
        let newest = self.newest.get(key).and_then(|subjects| subjects.get(subject));
        newest.is_some_and(|newest| *newest > seq)
    }

    fn extend(&mut self, other: Self) {
        for (key, subjects) in other.newest {
            for (subject, seq) in subjects {
                self.note(&key, &subject, seq);
            }
        }
    }

    /// Whether no last value was noted. Where a log keeps every message of a subject, none ever is.
    pub(in crate::delivery) fn is_empty(&self) -> bool {
        self.pairs == 0
    }
}

impl Delivery {
    /// Whether a later event of the same key and subject has replaced this one in the log. This
    /// event may have been published before.
    pub fn is_replaced(&self, ticket: Ticket, subject: &str) -> bool {
        if self.last_values.is_empty() || !self.lanes.was_scanned_for(ticket) {
            return false;
        }
        let event = self.lanes.event(ticket).map(|(event, _)| event);
        event.is_some_and(|event| {
            let key = event.lane();
            key.is_some_and(|key| self.last_values.is_newer(key, subject, event.seq))
        })
    }

    /// Takes an event as published without sending it, because a later one has replaced it in the
    /// log.
    pub fn pass_over(&mut self, ticket: Ticket) {
        self.deferred.remove(&ticket);
        self.take_as_published(ticket);
    }

    /// Notes the last values that a scan has found.
    pub(in crate::delivery) fn note_last_values(&mut self, latest: LastValues) {
        self.last_values.extend(latest);
    }

    /// Drops the last values that a scan has found, once memory has no event left for which a scan
    /// has searched.
    pub(in crate::delivery) fn forget_last_values(&mut self) {
        if !self.last_values.is_empty()
            && !self.predecessor.may_appear()
            && !self.lanes.has_scanned_for()
        {
            self.last_values = LastValues::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::{
        delivery::{
            EarlierRun, Outcome, ScanResult, WindowLimits,
            sim::{self, aggregate, event, resumed_with},
        },
        event::Snapshot,
    };

    const LIMITS: WindowLimits = WindowLimits {
        in_flight_events: 8,
        in_flight_bytes: 1 << 20,
        memory_events: 64,
        memory_bytes: 1 << 20,
    };

    fn found(seqs: &[i64], key: u64) -> ScanResult {
        let mut latest = LastValues::default();
        for seq in seqs {
            assert!(latest.note(&aggregate(key), "value", Seq(*seq)));
        }
        let ids = seqs.iter().map(|seq| (event(*seq, None).id.0, Seq(*seq))).collect();
        ScanResult::of_last_values(ids, latest)
    }

    fn publish_all(delivery: &mut Delivery, subject: &str, now: Instant) -> Vec<i64> {
        let mut published = Vec::new();
        while let Some(ticket) = delivery.next(now) {
            if delivery.is_replaced(ticket, subject) {
                delivery.pass_over(ticket);
                continue;
            }
            published.push(delivery.event(ticket).unwrap().0.seq.0);
            delivery.sent(ticket, now);
            let stream_seq = 100 + published.len() as u64;
            delivery.resolve(ticket, Outcome::Acked { stream_seq, duplicate: false }, now);
        }
        published
    }

    fn resumed(now: Instant) -> Delivery {
        let mut delivery = resumed_with(LIMITS, EarlierRun::AnyRow { sent_to: Seq(8) }, now);
        delivery
            .set_capabilities(sim::capabilities(Duration::from_mins(1), Duration::from_secs(1)));
        delivery.begin(Snapshot::new("9:9:".to_owned()), Seq(8));
        delivery
    }

    /// Defect of an earlier version: after a broker was restored, the old events 1 to 4 were
    /// published on top of the newer event 5.
    #[test]
    fn of_a_stream_of_last_values_only_what_is_newer_than_what_it_holds_is_published() {
        let now = Instant::now();
        let mut delivery = resumed(now);
        delivery.take_scan_result(found(&[5], 1), 50, now);
        delivery.admit((1..=8).map(|seq| event(seq, Some(1))));
        delivery.exhausted();
        assert_eq!(publish_all(&mut delivery, "value", now), [6, 7, 8]);
        let settlement = delivery.take_settlement().unwrap();
        assert!(settlement.events == 8 && settlement.letters.is_empty());
        delivery.letters_read();
        delivery.settled(&settlement);
        assert!(delivery.last_values.is_empty());
    }

    #[test]
    fn another_key_and_another_subject_are_never_taken_for_replaced() {
        for (key, subject) in [(2, "value"), (1, "other")] {
            let now = Instant::now();
            let mut delivery = resumed(now);
            delivery.take_scan_result(found(&[5], 1), 50, now);
            delivery.admit((1..=4).map(|seq| event(seq, Some(key))));
            delivery.exhausted();
            assert_eq!(publish_all(&mut delivery, subject, now), [1, 2, 3, 4]);
        }
    }
}
