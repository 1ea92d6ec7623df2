//! The checker's own tests: legal histories pass, and each planted defect shows in its own figure.

use proptest::prelude::*;

use super::*;

/// A committed transaction from `begin` to `end`, with a row for each pair of a key and a number
/// within that key.
fn committed(begin: u64, end: u64, rows: &[(&str, u64)]) -> Transaction {
    let rows = rows
        .iter()
        .map(|(key, key_seq)| {
            let id = Uuid::new_v4();
            Row {
                id,
                key: Some(Digest::of(key)),
                key_seq: *key_seq,
                subject: Digest::of(format!("events.{key}")),
                payload: Digest::of(format!("payload {id}")),
                headers: Digest::of(format!("headers {id}")),
            }
        })
        .collect();
    Transaction {
        writer: 0,
        begin: Nanos(begin),
        end: Nanos(end),
        fate: TransactionFate::Committed,
        rows,
    }
}

/// The message that a row has to become.
fn message(seq: u64, row: &Row) -> Stored {
    Stored {
        seq,
        id: Some(row.id),
        subject: row.subject,
        key: row.key,
        payload: row.payload,
        headers: row.headers,
    }
}

/// A history without a fault: three transactions on two keys, six events.
struct History {
    ledger: Ledger,
    observed: Observed,
}

impl History {
    fn new() -> Self {
        let transactions = vec![
            committed(10, 20, &[("a", 1), ("b", 1)]),
            committed(30, 40, &[("a", 2), ("a", 3)]),
            committed(50, 60, &[("b", 2), ("a", 4)]),
        ];
        Self::of(transactions)
    }

    /// Stores the committed rows in the order of the ledger.
    fn of(transactions: Vec<Transaction>) -> Self {
        let rows = transactions
            .iter()
            .filter(|t| t.fate == TransactionFate::Committed)
            .flat_map(|t| &t.rows);
        let stream = rows.zip(1..).map(|(row, seq)| message(seq, row)).collect();
        Self {
            observed: Observed { stream, ..Observed::default() },
            ledger: Ledger { transactions },
        }
    }

    fn report(&self) -> CheckerReport {
        check(&self.ledger, &self.observed, Order::Serial)
    }

    /// Asserts that exactly one kind of fault is reported, once, and names the event if it has one.
    fn assert_only(&self, fault: &str, id: Option<Uuid>) {
        let report = self.report();
        for (name, finding) in report.findings() {
            let wanted = u64::from(name == fault);
            assert_eq!(finding.count, wanted, "{name} instead of {fault}:\n{report}");
            if name == fault {
                assert_eq!(finding.first, Vec::from_iter(id));
            }
        }
    }

    fn id(&self, place: usize) -> Option<Uuid> {
        self.observed.stream[place].id
    }

    /// Takes messages out of the stream.
    fn lose(&mut self, places: std::ops::Range<usize>) {
        self.observed.stream.drain(places);
    }

    /// Adds the message of a row at the end of the stream.
    fn store_row(&mut self, row: &Row) {
        let seq = self.observed.stream.len() as u64 + 1;
        self.observed.stream.push(message(seq, row));
    }

    /// Adds another copy of a message at the end of the stream.
    fn store_again(&mut self, place: usize) {
        let seq = self.observed.stream.len() as u64 + 1;
        self.observed.stream.push(Stored { seq, ..self.observed.stream[place].clone() });
    }

    fn swap(&mut self, one: usize, other: usize) {
        let stream = &mut self.observed.stream;
        (stream[one].seq, stream[other].seq) = (stream[other].seq, stream[one].seq);
    }
}

#[test]
fn a_faultless_history_is_accepted() {
    let report = History::new().report();
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.committed, report.stored, report.lost.count()), (6, 6, 0));
}

#[test]
fn nothing_committed_and_nothing_stored_is_accepted() {
    assert_eq!(
        check(&Ledger::default(), &Observed::default(), Order::Serial),
        CheckerReport::default()
    );
}

#[test]
fn a_lost_first_event_is_a_lost_prefix() {
    let mut history = History::new();
    let id = history.observed.stream.remove(0).id;
    history.assert_only("lost before the first stored event", id);
}

#[test]
fn a_lost_event_between_others_is_a_lost_middle() {
    let mut history = History::new();
    let id = history.observed.stream.remove(2).id;
    history.assert_only("lost between stored events", id);
}

#[test]
fn a_lost_last_event_is_a_lost_postfix() {
    let mut history = History::new();
    let id = history.observed.stream.remove(5).id;
    history.assert_only("lost after the last stored event", id);
}

#[test]
fn an_empty_stream_is_a_lost_postfix() {
    let mut history = History::new();
    history.observed.stream.clear();
    assert_eq!(history.report().lost.postfix.count, 6);
    assert_eq!(history.report().lost.count(), 6);
}

#[test]
fn two_swapped_events_of_one_key_are_one_inversion() {
    // Stream: a1 b1 a2 a3 b2 a4; a3 and a4 change places across b2.
    let mut history = History::new();
    history.swap(3, 5);
    history.assert_only("inverted", history.id(3));
}

#[test]
fn two_swapped_rows_of_one_transaction_are_one_inversion() {
    let mut history = History::new();
    history.swap(2, 3);
    history.assert_only("inverted", history.id(2));
    // The place in the transaction alone is enough to see the inversion.
    let report = check(&history.ledger, &history.observed, Order::Overlap);
    assert_eq!(report.inversions.count, 1, "{report}");
}

#[test]
fn an_event_before_one_that_committed_before_it_began_is_an_inversion_without_locks_too() {
    let mut history = History::new();
    history.swap(3, 5);
    let report = check(&history.ledger, &history.observed, Order::Overlap);
    assert_eq!(report.inversions.first, Vec::from_iter(history.id(3)), "{report}");
}

#[test]
fn swapped_events_of_different_keys_are_legal() {
    let mut history = History::new();
    history.swap(0, 1);
    history.swap(3, 4);
    assert!(history.report().is_clean(), "{}", history.report());
}

#[test]
fn overlapping_transactions_on_one_key_may_come_in_any_order_without_locks() {
    let mut history =
        History::of(vec![committed(10, 50, &[("a", 1)]), committed(20, 40, &[("a", 2)])]);
    history.swap(0, 1);
    assert!(check(&history.ledger, &history.observed, Order::Overlap).is_clean());
    history.assert_only("inverted", history.id(0));
}

#[test]
fn events_without_a_key_have_no_order() {
    let mut transactions = vec![committed(10, 20, &[("", 1)]), committed(30, 40, &[("", 2)])];
    for transaction in &mut transactions {
        transaction.rows[0].key = None;
    }
    let mut history = History::of(transactions);
    history.swap(0, 1);
    assert!(history.report().is_clean(), "{}", history.report());
}

#[test]
fn a_second_copy_is_a_duplicate_and_no_inversion() {
    let mut history = History::new();
    let copy = Stored { seq: 7, ..history.observed.stream[0].clone() };
    history.observed.stream.push(copy);
    history.assert_only("duplicate", history.id(0));
}

#[test]
fn an_event_of_a_rolled_back_transaction_is_a_phantom() {
    let mut history = History::new();
    let mut transaction = committed(70, 80, &[("a", 5)]);
    transaction.fate = TransactionFate::RolledBack;
    let id = transaction.rows[0].id;
    history.observed.stream.push(message(7, &transaction.rows[0]));
    history.ledger.transactions.push(transaction);
    history.assert_only("phantom", Some(id));
}

#[test]
fn an_event_that_nobody_wrote_is_a_phantom() {
    let mut history = History::new();
    history.observed.stream.push(message(7, &committed(1, 2, &[("z", 1)]).rows[0]));
    history.assert_only("phantom", history.id(6));
}

#[test]
fn a_message_without_an_id_is_a_phantom() {
    let mut history = History::new();
    let nameless = Stored { seq: 7, id: None, ..history.observed.stream[0].clone() };
    history.observed.stream.push(nameless);
    history.assert_only("phantom", None);
}

#[test]
fn a_dead_letter_that_nobody_committed_is_a_phantom() {
    let mut history = History::new();
    let id = Uuid::new_v4();
    history.observed.dead.push(id);
    history.assert_only("phantom", Some(id));
}

#[test]
fn a_dead_event_is_not_lost() {
    let mut history = History::new();
    let id = history.observed.stream.remove(2).id;
    history.observed.dead.extend(id);
    let report = history.report();
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.committed, report.stored, report.dead), (6, 5, 1));
}

#[test]
fn a_dead_event_that_was_stored_is_reported() {
    let mut history = History::new();
    history.observed.dead.extend(history.id(2));
    history.assert_only("dead and stored", history.id(2));
}

#[test]
fn a_pending_event_is_reported_and_not_lost() {
    let mut history = History::new();
    let id = history.observed.stream.remove(5).id;
    history.observed.pending.extend(id);
    history.assert_only("still pending", id);
}

#[test]
fn each_altered_part_has_its_own_figure() {
    type Change = fn(&mut Stored);
    let changes: [(&str, Change); 4] = [
        ("with another payload", |message| message.payload = Digest::of("else")),
        ("with another subject", |message| message.subject = Digest::of("else")),
        ("with another key", |message| message.key = None),
        ("with other headers", |message| message.headers = Digest::of_headers([])),
    ];
    for (fault, change) in changes {
        let mut history = History::new();
        change(&mut history.observed.stream[3]);
        history.assert_only(fault, history.id(3));
    }
}

#[test]
fn a_transaction_of_unknown_fate_may_arrive_or_not() {
    let mut history = History::new();
    let mut transaction = committed(70, 80, &[("a", 5), ("b", 3)]);
    transaction.fate = TransactionFate::Unknown;
    history.observed.stream.push(message(7, &transaction.rows[0]));
    history.ledger.transactions.push(transaction);
    let report = history.report();
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.committed, report.limbo), (7, 1));
}

#[test]
fn a_report_names_the_first_few_and_counts_all() {
    let mut history = History::of(vec![committed(1, 2, &[("a", 1)]); 1]);
    history.ledger.transactions.push(committed(3, 4, &[("b", 1); 9]));
    let report = history.report();
    assert_eq!((report.lost.postfix.count, report.lost.postfix.first.len()), (9, 5));
    assert!(report.to_string().contains("9 lost after the last stored event: "), "{report}");
}

/// The checker finds what it should: each of fourteen histories has one planted change. Thirteen
/// are defects, and each is reported as its kind alone. One swaps events of two keys, which is
/// legal.
#[test]
fn of_fourteen_histories_thirteen_are_flagged_and_the_legal_one_is_accepted() {
    type Plant = fn(&mut History);
    const LEGAL: &str = "nothing";
    // Stream: a1 b1 a2 a3 b2 a4.
    let histories: [(&str, Plant, &str); 14] = [
        ("drop first", |h| h.lose(0..1), "lost before the first stored event"),
        ("drop middle", |h| h.lose(2..3), "lost between stored events"),
        ("drop last", |h| h.lose(5..6), "lost after the last stored event"),
        ("swap two of a key", |h| h.swap(3, 5), "inverted"),
        ("swap across keys", |h| h.swap(0, 1), LEGAL),
        ("second copy", |h| h.store_again(0), "duplicate"),
        ("phantom", |h| h.store_row(&committed(1, 2, &[("z", 1)]).rows[0]), "phantom"),
        ("dead and published", |h| h.observed.dead.extend(h.id(2)), "dead and stored"),
        ("payload", |h| h.observed.stream[3].payload = Digest::of("else"), "with another payload"),
        ("subject", |h| h.observed.stream[3].subject = Digest::of("else"), "with another subject"),
        ("header", |h| h.observed.stream[3].headers = Digest::of_headers([]), "with other headers"),
        (
            "unresolved",
            |h| h.observed.pending.extend(h.observed.stream.remove(5).id),
            "still pending",
        ),
        // A position that was recorded too far: the next leader goes on behind a gap.
        ("recorded wrongly", |h| h.lose(2..4), "lost between stored events"),
        // A leader that lost its term sends an event that the next leader has sent before.
        ("two holders", |h| h.store_again(3), "duplicate"),
    ];
    for (name, plant, flagged) in histories {
        let mut history = History::new();
        plant(&mut history);
        let report = history.report();
        for (finding, found) in report.findings() {
            assert_eq!(found.count > 0, finding == flagged, "{name}: {finding}:\n{report}");
        }
        assert_eq!(report.is_clean(), flagged == LEGAL, "{name}");
    }
}

/// Transactions one after the other, each row with the next number of one of four keys.
fn serial_history() -> impl Strategy<Value = Vec<Transaction>> {
    let rows = prop::collection::vec(0..4_usize, 1..6);
    prop::collection::vec((rows, prop::bool::weighted(0.8)), 1..30).prop_map(|transactions| {
        let mut last = [0_u64; 4];
        let mut history = Vec::new();
        for (number, (keys, commits)) in (0_u64..).zip(transactions) {
            let names = ["a", "b", "c", "d"];
            let mut rows = Vec::new();
            for key in keys {
                last[key] += 1;
                rows.push((names[key], last[key]));
            }
            let mut transaction = committed(number * 10, number * 10 + 5, &rows);
            if !commits {
                transaction.fate = TransactionFate::RolledBack;
            }
            history.push(transaction);
        }
        history
    })
}

proptest! {
    #[test]
    fn keys_may_interleave_in_any_way(
        transactions in serial_history(),
        draws in prop::collection::vec(any::<prop::sample::Index>(), 150),
    ) {
        // Merges the keys' own sequences at random: every such stream is legal.
        let mut history = History::of(transactions);
        let mut lanes: Vec<Vec<Stored>> = Vec::new();
        for message in std::mem::take(&mut history.observed.stream) {
            match lanes.iter_mut().find(|lane| lane[0].key == message.key) {
                Some(lane) => lane.push(message),
                None => lanes.push(vec![message]),
            }
        }
        for lane in &mut lanes {
            lane.reverse();
        }
        for (seq, draw) in (1..).zip(draws) {
            if lanes.is_empty() {
                break;
            }
            let lane = draw.index(lanes.len());
            let message = lanes[lane].pop().unwrap();
            history.observed.stream.push(Stored { seq, ..message });
            lanes.retain(|lane| !lane.is_empty());
        }
        let report = history.report();
        prop_assert!(report.is_clean(), "{}", report);
        prop_assert_eq!(report.committed, report.stored);
    }

    #[test]
    fn every_removed_copied_or_moved_event_is_counted(
        transactions in serial_history(),
        victim in any::<prop::sample::Index>(),
    ) {
        let history = History::of(transactions);
        let events = history.observed.stream.len();
        prop_assume!(events > 0);
        let victim = victim.index(events);

        let mut removed = History { ledger: history.ledger.clone(), observed: history.observed.clone() };
        removed.observed.stream.remove(victim);
        let report = removed.report();
        prop_assert_eq!(report.lost.count(), 1);
        prop_assert!(report.findings().iter().map(|(_, finding)| finding.count).sum::<u64>() == 1);

        let mut copied = History { ledger: history.ledger.clone(), observed: history.observed.clone() };
        let copy = Stored { seq: events as u64 + 1, ..copied.observed.stream[victim].clone() };
        copied.observed.stream.push(copy);
        copied.assert_only("duplicate", copied.id(victim));

        // The event is moved to the end, behind every later event of its key. It alone is inverted.
        let mut moved = history;
        let later = moved.observed.stream[victim + 1..]
            .iter()
            .any(|message| message.key == moved.observed.stream[victim].key);
        moved.observed.stream[victim].seq = events as u64 + 1;
        prop_assert_eq!(moved.report().inversions.count, u64::from(later));
        prop_assert_eq!(moved.report().is_clean(), !later);
    }
}
