//! The ledger: what the writers of a workload did to the outbox, as they noted it themselves.

use std::collections::HashSet;

use uuid::Uuid;

use super::Digest;

/// Nanoseconds since the workload began, on a clock that only goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Nanos(pub u64);

/// The end of a transaction, as its writer saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionFate {
    /// The database reported success: every row of the transaction has to arrive.
    Committed,
    /// The transaction was rolled back, wholly or to a savepoint: none of these rows may ever
    /// arrive.
    RolledBack,
    /// The connection broke during COMMIT, and the writer could not find out the result: the rows
    /// may arrive or not.
    Unknown,
}

/// A row as it was inserted, and the message that has to come of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The event's id.
    pub id: Uuid,
    /// The key inside which the event is ordered; `None` for an event without a key.
    pub key: Option<Digest>,
    /// The row's number among the events of its key, drawn while the writer has the key's lock. It
    /// is compared in [`super::Order::Serial`] only.
    pub key_seq: u64,
    /// The subject that the message has to be stored under.
    pub subject: Digest,
    /// The payload's bytes.
    pub payload: Digest,
    /// The headers that the message has to have.
    pub headers: Digest,
}

/// A transaction, or the part of one that was rolled back to a savepoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// The writer that ran it.
    pub writer: u32,
    /// The time just before the first insert was sent.
    pub begin: Nanos,
    /// The time just after the database's answer to COMMIT or ROLLBACK came in.
    pub end: Nanos,
    /// How the transaction ended.
    pub fate: TransactionFate,
    /// The rows of the transaction in the order of their inserts.
    pub rows: Vec<Row>,
}

/// The record of all that the writers did. It grows by about a hundred bytes an event.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// The transactions, in any order.
    pub transactions: Vec<Transaction>,
}

impl Ledger {
    /// Takes over the transactions of another ledger.
    pub fn absorb(&mut self, other: Ledger) {
        self.transactions.extend(other.transactions);
    }

    /// Number of events in transactions with the given end.
    pub fn events(&self, fate: TransactionFate) -> u64 {
        let of_fate = self.transactions.iter().filter(|transaction| transaction.fate == fate);
        of_fate.map(|transaction| transaction.rows.len() as u64).sum()
    }

    /// Number of different keys of the committed events.
    pub fn keys(&self) -> u64 {
        let committed = self.transactions.iter().filter(|t| t.fate == TransactionFate::Committed);
        let keys = committed.flat_map(|t| t.rows.iter().filter_map(|row| row.key));
        keys.collect::<HashSet<_>>().len() as u64
    }
}
