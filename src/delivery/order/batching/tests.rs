//! Tests of batching: the meaning of an answer to a batch, and the events of one.

use super::*;
use crate::{
    delivery::{
        EarlierRun, Outcome, WindowLimits,
        sim::{event, resumed_with},
    },
    event::{Seq, Snapshot},
};

const COUNT: i64 = 12_000;

fn full_of_two_keys(now: Instant) -> Delivery {
    let limits = WindowLimits {
        in_flight_events: 1_024,
        in_flight_bytes: 1 << 20,
        memory_events: 16_000,
        memory_bytes: 1 << 30,
    };
    let mut delivery = resumed_with(limits, EarlierRun::None, now);
    delivery.set_batches(Batching::Always(BatchKind::Atomic));
    delivery.begin(Snapshot::new("9:9:".to_owned()), Seq(COUNT));
    delivery.admit((1..=COUNT).map(|seq| event(seq, Some(seq.unsigned_abs() % 2))));
    delivery
}

/// Defect of an earlier version: published events of a batch left their tickets in the queue of
/// ready events. The next batches were small, and sometimes one key had a whole batch.
#[test]
fn hot_keys_share_every_batch() {
    let now = Instant::now();
    let mut delivery = full_of_two_keys(now);
    let (mut stream_seq, mut batches) = (0, 0);
    while delivery.events() > 0 {
        let mut sent = Vec::new();
        while let Some(ticket) = delivery.next(now) {
            match delivery.choose_grouping(ticket, now) {
                Grouping::Batch(kind, batch) => {
                    delivery.batch_sent(kind, &batch, now);
                    sent.push(batch);
                }
                Grouping::Single => panic!("{ticket:?} goes alone"),
                Grouping::Wait => break,
            }
        }
        for batch in sent {
            let seq_of = |ticket: &Ticket| delivery.event(*ticket).unwrap().0.seq.0;
            let odd = batch.iter().filter(|ticket| seq_of(ticket) % 2 == 1).count();
            assert_eq!(odd * 2, batch.len(), "of the first of two keys");
            stream_seq += batch.len() as u64;
            batches += 1;
            let outcome = BatchOutcome::Committed { last_seq: stream_seq };
            delivery.resolve_batch(&batch, &outcome, now);
        }
    }
    assert!(batches <= 30, "{batches} batches");
}

/// The answer to a fast batch counts recognised messages too. So the count alone does not show that
/// all were stored.
#[test]
fn a_fast_batch_counts_only_when_the_stream_has_grown_by_it() {
    let now = Instant::now();
    for (grown, is_stored, transition) in [
        (0, true, Transition::None),
        (1, false, Transition::None),
        (-1, false, Transition::WentBack),
    ] {
        let mut delivery = full_of_two_keys(now);
        delivery.set_batches(Batching::Always(BatchKind::Fast));
        delivery.stream_reaches(100);
        let ticket = delivery.next(now).unwrap();
        let Grouping::Batch(kind, batch) = delivery.choose_grouping(ticket, now) else {
            panic!("no batch");
        };
        delivery.batch_sent(kind, &batch, now);
        // A last sequence that is seen while a batch is in flight may be that of its own messages.
        delivery.stream_reaches(101);
        let last_seq = (100 + batch.len() as u64).strict_add_signed(grown);
        let outcome = BatchOutcome::Seen { last_seq };
        assert_eq!(delivery.all_stored(&batch, &outcome).is_some(), is_stored, "{grown}");
        assert_eq!(delivery.resolve_batch(&batch, &outcome, now), transition, "{grown}");
        let left = delivery.events();
        assert_eq!(left + if is_stored { batch.len() } else { 0 }, 12_000, "{grown}");
        assert_eq!(delivery.in_flight(), 0);
    }
}

#[test]
fn an_answer_that_is_late_holds_nobody_up() {
    let now = Instant::now();
    let mut delivery = full_of_two_keys(now);
    let ticket = delivery.next(now).unwrap();
    let Grouping::Batch(kind, first) = delivery.choose_grouping(ticket, now) else {
        panic!("no batch");
    };
    delivery.batch_sent(kind, &first, now);
    delivery.admit([event(COUNT + 1, Some(7))]);
    let others = |delivery: &mut Delivery, now| {
        let ticket = delivery.next(now).unwrap();
        delivery.choose_grouping(ticket, now)
    };
    assert_eq!(others(&mut delivery, now), Grouping::Wait);
    let later = now + LATE_AFTER;
    assert_eq!(others(&mut delivery, later), Grouping::Single);
}

#[test]
fn the_pause_after_a_failure_ends_with_what_was_sent_after_it_only() {
    let (now, ms) = (Instant::now(), Duration::from_millis);
    let kind = BatchKind::Atomic;
    let sent = |at| BatchInFlight { kind, first: Ticket(0), sent: at };
    let mut batches = Batcher { stream: Batching::Always(kind), ..Batcher::default() };
    batches.failed(kind, now + ms(1));
    batches.succeeded(&sent(now));
    assert_eq!(batches.kind(now + ms(2)), None, "it was sent before the failure");
    let again = now + ms(1) + AFTER_FAILURE.after(1);
    assert_eq!(batches.kind(again), Some(kind));
    // A second failure: a longer pause, which a success ends.
    batches.failed(kind, again);
    assert_eq!(batches.kind(again + AFTER_FAILURE.after(1)), None);
    batches.succeeded(&sent(again + ms(1)));
    assert_eq!(batches.kind(again + ms(1)), Some(kind));
}

#[test]
fn fast_batches_take_over_from_atomic_ones_that_fail() {
    let now = Instant::now();
    let mut delivery = full_of_two_keys(now);
    delivery.set_batches(Batching::IfFaster(BatchSupport::Both));
    delivery.batcher.load = Load::Full;
    assert_eq!(delivery.batcher.kind(now), Some(BatchKind::Fast), "nothing is measured yet");
    // Fast batches are slow here, so that atomic ones are tried.
    let at = now + Duration::from_millis(250);
    delivery.batcher.trial.measure(0, Load::Full, now);
    delivery.batcher.trial.measure(100, Load::Full, at);
    assert_eq!(delivery.batcher.kind(at), Some(BatchKind::Atomic));
    delivery.batcher.failed(BatchKind::Atomic, at);
    assert_eq!(delivery.batcher.kind(at), Some(BatchKind::Fast));
    delivery.batcher.failed(BatchKind::Fast, at);
    assert_eq!(delivery.batcher.kind(at), None);
    assert_eq!(delivery.batcher.kind(at + AFTER_FAILURE.after(1)), Some(BatchKind::Atomic));
}

/// Full load begins when half of the memory budget is in use, and lasts while a quarter is.
#[test]
fn a_page_that_is_late_does_not_end_the_full_load() {
    let now = Instant::now();
    let limits = WindowLimits {
        in_flight_events: 64,
        in_flight_bytes: 1 << 20,
        memory_events: 400,
        memory_bytes: 1 << 30,
    };
    let mut delivery = resumed_with(limits, EarlierRun::None, now);
    delivery.set_batches(Batching::IfFaster(BatchSupport::Fast));
    delivery.begin(Snapshot::new("9:9:".to_owned()), Seq(COUNT));
    let mut admitted = 0;
    for (until, load) in [(199, Load::Light), (200, Load::Full)] {
        delivery.admit((admitted + 1..=until).map(|seq| event(seq, None)));
        admitted = until;
        delivery.measure(now);
        assert_eq!(delivery.batcher.load, load, "{until} events");
    }
    let mut stream_seq = 0;
    let mut left = |events: usize| {
        while delivery.events() > events {
            let ticket = delivery.next(now).unwrap();
            delivery.sent(ticket, now);
            stream_seq += 1;
            delivery.resolve(ticket, Outcome::Acked { stream_seq, duplicate: false }, now);
        }
        delivery.measure(now);
        delivery.batcher.load
    };
    assert_eq!(left(100), Load::Full);
    assert_eq!(left(99), Load::Light);
}
