//! Uncertain events: those that the log may contain without our knowing, and the result of a scan.

use std::time::Instant;

use crate::{
    delivery::{Delivery, ScanResult, Ticket, Verdict},
    event::{Event, EventId},
};

impl Delivery {
    /// Whether an unanswered message of the event explains that the log calls it a duplicate.
    pub fn explains_duplicate(&self, ticket: Ticket) -> bool {
        self.lanes.is_unconfirmed(ticket)
    }

    /// Whether the event is stale: the log may contain it for so long that it would not recognise
    /// the id. Then a scan comes before the event is sent again.
    ///
    /// Where the log cannot be scanned, no event is stale: each is sent again, and may be stored
    /// twice.
    pub fn is_stale(&self, ticket: Ticket, now: Instant) -> bool {
        self.is_scannable && self.lanes.is_stale(ticket, self.recognised_for, now)
    }

    /// Whether the event is uncertain, so that a scan comes before it leaves for the letters. The
    /// event is delayed until a scan is conclusive.
    pub(in crate::delivery) fn has_to_be_scanned_for(
        &mut self,
        ticket: Ticket,
        now: Instant,
    ) -> bool {
        self.is_scannable && self.lanes.scan_first(ticket, self.late_max, now)
    }

    /// Time since which an event of an earlier run that is read now may be in the log without our
    /// knowing. `None` once no such event can appear.
    ///
    /// Where the log never recognises an id, a conclusive scan ends this uncertainty: an event that
    /// it has not found was not sent. Otherwise each page of a backlog would need another scan.
    pub(in crate::delivery) fn uncertain_since(&self) -> Option<Instant> {
        let is_over = self.recognised_for.is_zero()
            && self.predecessor.conclusive_at(self.late_max).is_none();
        self.predecessor.uncertain_since().filter(|_| !is_over)
    }

    /// Marks the event as unanswered, because the broker's complaint that ended its publish may
    /// concern another message.
    pub fn mark_unanswered(&mut self, ticket: Ticket) {
        self.lanes.mark_unanswered(ticket);
    }

    /// Takes the result of a scan that began at `at`: the sent and unsettled events that it has
    /// found. Sequences of the log up to `stream_seq` are in use.
    pub fn take_scan_result(&mut self, mut found: ScanResult, stream_seq: u64, at: Instant) {
        self.predecessor.scanned(at, found.last(), stream_seq);
        self.note_last_values(found.take_last_values());
        for ticket in self.lanes.uncertain() {
            let known = self.lanes.event(ticket).is_some_and(|(event, _)| found.contains(event));
            if known {
                self.deferred.remove(&ticket);
                self.take_as_published(ticket);
            } else {
                self.lanes.not_stored(ticket, (at, stream_seq), self.late_max);
                if !self.lanes.has_unanswered(ticket) {
                    self.apply_deferred(ticket);
                }
            }
        }
        if stream_seq > self.stream.acked {
            self.stream.acked = stream_seq;
            self.stream.event_id = None;
        }
        // Events in memory are compared now. The result is kept only for rows that an earlier run
        // may have sent and this run has not read yet.
        if self.predecessor.may_appear() {
            self.scan_result.extend(found);
        }
    }

    /// Exclusive lower bound for the stream sequences that the next scan has to read.
    ///
    /// The scan goes on where the last one ended, or below it for events that were in flight then.
    /// A scan of the whole log each time could take longer than the log recognises an id, and would
    /// then always be too old.
    pub fn scan_above(&self) -> u64 {
        let to_come = self.predecessor.may_appear().then(|| self.predecessor.scanned_to());
        let above = self.lanes.uncertain_above().into_iter().chain(to_come).min();
        self.stream_mark().floor.max(above.unwrap_or(0))
    }

    /// Time of a further scan that has to come before rows are read; `None` when no such scan is
    /// needed.
    ///
    /// While every key counts as blocked, an event that an earlier run has sent may become a held
    /// letter. A letter does not remember that it may have been sent, so a conclusive scan has to
    /// come first.
    pub fn scan_again_at(&self) -> Option<Instant> {
        let suspects = self.blocked.is_overflown();
        self.predecessor.conclusive_at(self.late_max).filter(|_| suspects && self.is_scannable)
    }

    /// Notes that the log has stored the event `id` at this stream sequence.
    pub(in crate::delivery) fn note_stream_seq(&mut self, stream_seq: u64, id: EventId) {
        if stream_seq > self.stream.acked {
            self.stream.acked = stream_seq;
            self.stream.event_id = Some(id);
        }
    }

    pub(in crate::delivery) fn mark_published(&mut self, ticket: Ticket, stream_seq: u64) {
        self.lanes.leave(ticket);
        self.note_published(ticket, stream_seq);
    }

    pub(in crate::delivery) fn note_published(&mut self, ticket: Ticket, stream_seq: u64) {
        if ticket.is_letter() {
            self.letters.published(ticket, stream_seq);
        } else {
            self.progress.resolve(ticket, Verdict::Published);
        }
    }

    /// Takes an event as published that a scan has found, also out of its turn in the lane. Another
    /// instance may have published it a moment ago.
    pub(in crate::delivery) fn take_as_published(&mut self, ticket: Ticket) {
        self.lanes.abandon(&[ticket]);
        self.note_published(ticket, 0);
    }

    /// Whether scans have found this event in the log, and an earlier run may have sent it.
    pub(in crate::delivery) fn is_found(&self, event: &Event) -> bool {
        self.predecessor.may_appear() && self.scan_result.contains(event)
    }

    /// Drops the scan result once every row and letter of an earlier run was read.
    pub(in crate::delivery) fn drop_scan_result(&mut self) {
        if !self.predecessor.may_appear() {
            self.scan_result = ScanResult::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        delivery::{
            EarlierRun, KeyLetters, LetterChange, LetterId, LetterReadiness, Mark, Outcome,
            StoredLetter, WindowLimits,
            sim::{self, aggregate, event, resumed_with},
        },
        event::{Seq, Snapshot},
    };

    const COUNT: i64 = 8;

    /// Run after an earlier one, which may have sent every event.
    fn resumed(now: Instant) -> Delivery {
        let limits = WindowLimits {
            in_flight_events: 8,
            in_flight_bytes: 1 << 20,
            memory_events: 64,
            memory_bytes: 1 << 20,
        };
        let mut delivery = resumed_with(limits, EarlierRun::Some { sent_to: Seq(COUNT) }, now);
        delivery
            .set_capabilities(sim::capabilities(Duration::from_mins(1), Duration::from_secs(1)));
        delivery.begin(Snapshot::new("9:9:".to_owned()), Seq(COUNT));
        delivery
    }

    /// Result of a scan of a log that contains these events.
    fn found(seqs: &[i64]) -> ScanResult {
        ScanResult::new(seqs.iter().map(|seq| (event(*seq, None).id.0, Seq(*seq))).collect())
    }

    /// Publishes every event that may be sent, one after the other. Returns their `seq`.
    fn publish_all(delivery: &mut Delivery, now: Instant) -> Vec<i64> {
        let mut published = Vec::new();
        while let Some(ticket) = delivery.next(now) {
            published.push(delivery.event(ticket).unwrap().0.seq.0);
            delivery.sent(ticket, now);
            let stream_seq = 100 + published.len() as u64;
            delivery.resolve(ticket, Outcome::Acked { stream_seq, duplicate: false }, now);
        }
        published
    }

    /// Defect of an earlier version: another instance had gone on for a moment and published an
    /// event that was not the next of its key. The program took that for lost order, and ended.
    #[test]
    fn an_event_found_out_of_its_turn_leaves_and_the_others_of_its_key_go_in_order() {
        for stored in [&[3, 5][..], &[COUNT], &[1, 2, 3, 4, 5, 6, 7, COUNT], &[2, 4, 6, COUNT]] {
            let now = Instant::now();
            let mut delivery = resumed(now);
            delivery.admit((1..=COUNT).map(|seq| event(seq, Some(1))));
            delivery.exhausted();
            delivery.take_scan_result(found(stored), 50, now);
            let published = publish_all(&mut delivery, now);
            let left: Vec<i64> = (1..=COUNT).filter(|seq| !stored.contains(seq)).collect();
            assert_eq!(published, left, "stored {stored:?}");
            let settlement = delivery.take_settlement().unwrap();
            assert_eq!(settlement.events, usize::try_from(COUNT).unwrap());
            assert!(settlement.letters.is_empty() && delivery.events() == 0);
        }
    }

    /// A scan may also find a letter that is not the next of its key.
    #[test]
    fn a_letter_found_out_of_its_turn_is_published_and_the_others_of_its_key_go_in_order() {
        let now = Instant::now();
        let mut delivery = resumed(now);
        let letter = |seq: i64| StoredLetter {
            id: LetterId(seq),
            readiness: LetterReadiness::Ready,
            attempts: 0,
            holds: true,
            event: Box::new(event(seq, Some(1))),
        };
        let loaded = KeyLetters {
            marks: vec![Mark { id: LetterId(1), at: Some(0) }],
            key: Some(aggregate(1)),
            letters: (1..=COUNT).map(letter).collect(),
        };
        delivery.take_letters(loaded, delivery.settled_up_to());
        delivery.take_scan_result(found(&[2, COUNT]), 50, now);
        assert_eq!(publish_all(&mut delivery, now), [1, 3, 4, 5, 6, 7]);
        let records = delivery.take_records().part(usize::MAX).records;
        let is_published = |seq: i64| {
            records.iter().any(|record| {
                record.id == LetterId(seq)
                    && matches!(record.change, LetterChange::Published { .. })
            })
        };
        assert!((1..=COUNT).all(is_published), "{records:?}");
    }

    /// Without this rule each page of a backlog would need another scan, and wait for it.
    #[test]
    fn a_conclusive_scan_of_a_log_without_a_memory_ends_the_past() {
        let (begun, wait) = (Instant::now(), Duration::from_secs(1));
        let mut delivery = resumed(begun);
        delivery.set_capabilities(sim::capabilities(Duration::ZERO, wait));
        delivery.take_scan_result(ScanResult::default(), 50, begun);
        delivery.admit((1..=2).map(|seq| event(seq, Some(1))));
        assert_eq!(publish_all(&mut delivery, begun), [0; 0], "a message may still arrive");
        let now = begun + wait;
        delivery.take_scan_result(found(&[1, 4]), 60, now);
        delivery.admit((3..=5).map(|seq| event(seq, Some(1))));
        assert_eq!(publish_all(&mut delivery, now), [2, 3, 5]);
    }

    /// Defect of an earlier version: the result of the first scan was used until the program ended.
    /// An event that the stream lost later, and that came again as a letter, was recorded as
    /// published and not sent.
    #[test]
    fn what_a_scan_has_found_is_forgotten_once_all_is_read_that_may_have_been_sent() {
        let now = Instant::now();
        let mut delivery = resumed(now);
        delivery.take_scan_result(found(&[1, 2]), 50, now);
        delivery.admit((1..=2).map(|seq| event(seq, Some(1))));
        delivery.exhausted();
        delivery.letters_read();
        assert_eq!(publish_all(&mut delivery, now), [0; 0]);
        let lost = StoredLetter {
            id: LetterId(1),
            readiness: LetterReadiness::Ready,
            attempts: 0,
            holds: true,
            event: Box::new(event(1, Some(1))),
        };
        let marks = vec![Mark { id: lost.id, at: Some(0) }];
        let loaded = KeyLetters { marks, key: Some(aggregate(1)), letters: vec![lost] };
        delivery.take_letters(loaded, delivery.settled_up_to());
        assert_eq!(publish_all(&mut delivery, now), [1]);
    }
}
