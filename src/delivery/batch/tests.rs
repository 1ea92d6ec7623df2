//! What an answer to a batch means, and which events go in one.

use super::{
    super::{
        Earlier, Limits,
        sim::{event, resumed_with},
    },
    *,
};
use crate::event::{Seq, Snapshot};

const COUNT: i64 = 12_000;

fn full_of_two_keys(now: Instant) -> Delivery {
    let limits = Limits {
        in_flight_events: 1_024,
        in_flight_bytes: 1 << 20,
        memory_events: 16_000,
        memory_bytes: 1 << 30,
    };
    let mut delivery = resumed_with(limits, Earlier::None, now);
    delivery.set_batches(Batching::Wanted(BatchKind::Atomic));
    delivery.begin(Snapshot::new("9:9:".to_owned()), Seq(COUNT));
    delivery.admit((1..=COUNT).map(|seq| event(seq, Some(seq.unsigned_abs() % 2))));
    delivery
}

/// What was published used to leave the places of its batch behind among those that may go: the next
/// batches were small, and now and then one key had all of them.
#[test]
fn hot_keys_share_every_batch() {
    let now = Instant::now();
    let mut delivery = full_of_two_keys(now);
    let (mut stream_seq, mut batches) = (0, 0);
    while delivery.events() > 0 {
        let mut sent = Vec::new();
        while let Some(ticket) = delivery.next(now) {
            match delivery.company(ticket, now) {
                Company::Together(kind, batch) => {
                    delivery.sent_together(kind, &batch, now);
                    sent.push(batch);
                }
                Company::Alone => panic!("{ticket:?} goes alone"),
                Company::Later => break,
            }
        }
        for batch in sent {
            let seq_of = |ticket: &Ticket| delivery.event(*ticket).unwrap().0.seq.0;
            let odd = batch.iter().filter(|ticket| seq_of(ticket) % 2 == 1).count();
            assert_eq!(odd * 2, batch.len(), "of the first of two keys");
            stream_seq += batch.len() as u64;
            batches += 1;
            let outcome = BatchOutcome::Committed { last_seq: stream_seq };
            delivery.resolve_together(&batch, &outcome, now);
        }
    }
    assert!(batches <= 30, "{batches} batches");
}

/// The stream counts what it recognises among what it took, so the count alone says nothing.
#[test]
fn a_fast_batch_counts_only_when_the_stream_has_grown_by_it() {
    let now = Instant::now();
    for (grown, is_stored, transition) in [
        (0, true, Transition::None),
        (1, false, Transition::None),
        (-1, false, Transition::WentBack),
    ] {
        let mut delivery = full_of_two_keys(now);
        delivery.set_batches(Batching::Wanted(BatchKind::Fast));
        delivery.stream_reaches(100);
        let ticket = delivery.next(now).unwrap();
        let Company::Together(kind, batch) = delivery.company(ticket, now) else {
            panic!("no batch");
        };
        delivery.sent_together(kind, &batch, now);
        // What is seen while something is on its way may be a part of it.
        delivery.stream_reaches(101);
        let last_seq = (100 + batch.len() as u64).strict_add_signed(grown);
        let outcome = BatchOutcome::Seen { last_seq };
        assert_eq!(delivery.all_stored(&batch, &outcome).is_some(), is_stored, "{grown}");
        assert_eq!(delivery.resolve_together(&batch, &outcome, now), transition, "{grown}");
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
    let Company::Together(kind, first) = delivery.company(ticket, now) else {
        panic!("no batch");
    };
    delivery.sent_together(kind, &first, now);
    delivery.admit([event(COUNT + 1, Some(7))]);
    let others = |delivery: &mut Delivery, now| {
        let ticket = delivery.next(now).unwrap();
        delivery.company(ticket, now)
    };
    assert_eq!(others(&mut delivery, now), Company::Later);
    let later = now + PROMPT;
    assert_eq!(others(&mut delivery, later), Company::Alone);
}
