//! The order check: whether the events of one key are in an order that [`Order`] allows.

use std::collections::HashMap;

use super::{CommittedRow, Digest, Nanos, Order, TransactionFate};

/// The state of the order check: the rows of each key, as they come in stream order.
pub(super) struct OrderCheck {
    order: Order,
    by_key: HashMap<Digest, KeyHistory>,
    /// Highest index of a row so far among the rows of its transaction, for each key and
    /// transaction. A pointer to the transaction identifies the transaction.
    places: HashMap<(Digest, *const super::Transaction), usize>,
}

/// The rows of a key that have come so far.
#[derive(Default)]
struct KeyHistory {
    /// The latest time at which a transaction with one of these rows began to insert.
    begin_max: Nanos,
    /// Highest `key_seq` among the key's rows that have come so far; `None` before the first row.
    key_seq_max: Option<u64>,
}

impl OrderCheck {
    pub(super) fn new(order: Order) -> Self {
        Self { order, by_key: HashMap::new(), places: HashMap::new() }
    }

    /// Takes the next event in stream order, and returns whether an event of its key that should
    /// have come later came before.
    ///
    /// Of two swapped events only the second in the stream counts as inverted.
    pub(super) fn is_inverted(&mut self, origin: CommittedRow<'_>) -> bool {
        let CommittedRow { transaction, row, place } = origin;
        let Some(key) = row.key else { return false };
        let lane = self.by_key.entry(key).or_default();

        // The end of a transaction counts only when its writer knows that it committed. Otherwise
        // the database may have committed later than the end that the writer noted.
        let end_known = transaction.fate == TransactionFate::Committed;
        let overtaken = end_known && lane.begin_max > transaction.end;
        lane.begin_max = lane.begin_max.max(transaction.begin);

        let out_of_number =
            self.order == Order::Serial && lane.key_seq_max.is_some_and(|max| row.key_seq <= max);
        lane.key_seq_max = lane.key_seq_max.max(Some(row.key_seq));

        let place_max = self.places.entry((key, std::ptr::from_ref(transaction))).or_insert(place);
        let out_of_place = place < *place_max;
        *place_max = place.max(*place_max);

        overtaken || out_of_number || out_of_place
    }
}
