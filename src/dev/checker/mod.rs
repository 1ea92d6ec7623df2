//! The checker: compares the ledger of what was committed with what the stream contains.
//!
//! The comparison shares no type with the relay, and uses no clock and no I/O. It finds these kinds
//! of faults, each with a figure of its own in the [`CheckerReport`]:
//!
//! - *lost*: committed, and neither stored nor dead nor pending;
//! - *phantom*: stored or dead, and never committed;
//! - *duplicates*: copies beyond the first of one id;
//! - *inversions*: see [`Order`];
//! - *altered*: payload, subject, key or headers are not what the row said;
//! - *dead and stored*: a dead letter, and in the stream too;
//! - *pending*: committed, and still waiting to be published.
//!
//! A check takes O(n log n) time for n events, and memory proportional to n.

mod digest;
mod ledger;
mod order;
mod report;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

pub use digest::Digest;
pub use ledger::{Ledger, Nanos, Row, Transaction, TransactionFate};
pub use report::{Altered, CheckerReport, Lost, Violation};

/// The order in which events of one key must arrive. It depends on how the writers inserted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Writers lock the key before they insert: events arrive in the order of their `key_seq`.
    Serial,
    /// Transactions on one key may overlap. Rows of one transaction must arrive in its order. Rows
    /// of two must, when the first's commit was reported to the writer before the second began to
    /// insert.
    Overlap,
}

/// A message as it was read back from the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The message's sequence number in the stream.
    pub seq: u64,
    /// The message id; `None` when the message has no id that is a UUID.
    pub id: Option<Uuid>,
    /// The subject that the message is stored under.
    pub subject: Digest,
    /// The ordering key that the message names; `None` without a key.
    pub key: Option<Digest>,
    /// The message's body.
    pub payload: Digest,
    /// The message's headers.
    pub headers: Digest,
}

/// The places where events were found once the relay had stopped.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The whole stream, in any order.
    pub stream: Vec<Stored>,
    /// The ids of the dead letters.
    pub dead: Vec<Uuid>,
    /// The ids of events that still wait to be published.
    pub pending: Vec<Uuid>,
}

/// A row of the ledger, with the transaction that inserted it.
#[derive(Clone, Copy)]
struct CommittedRow<'a> {
    transaction: &'a Transaction,
    row: &'a Row,
    /// Index of the row among the rows of its transaction.
    place: usize,
}

/// Compares what was committed with what was found.
pub fn check(ledger: &Ledger, observed: &Observed, order: Order) -> CheckerReport {
    let origins = origins(ledger);
    let mut stream: Vec<&Stored> = observed.stream.iter().collect();
    stream.sort_unstable_by_key(|message| message.seq);
    let dead: HashSet<Uuid> = observed.dead.iter().copied().collect();

    let mut report = CheckerReport {
        stored: observed.stream.len() as u64,
        dead: dead.len() as u64,
        ..CheckerReport::default()
    };
    let mut arrived: HashSet<Uuid> = HashSet::with_capacity(stream.len());
    let mut lanes = order::OrderCheck::new(order);
    for message in stream {
        let Some(id) = message.id else {
            report.phantom.note(None);
            continue;
        };
        if !arrived.insert(id) {
            report.duplicates.note(Some(id));
            continue;
        }
        let Some(origin) = origins.get(&id) else {
            report.phantom.note(Some(id));
            continue;
        };
        if dead.contains(&id) {
            report.dead_and_stored.note(Some(id));
        }
        compare(origin.row, message, &mut report.altered);
        if lanes.is_inverted(*origin) {
            report.inversions.note(Some(id));
        }
    }
    for id in &dead {
        if !origins.contains_key(id) && !arrived.contains(id) {
            report.phantom.note(Some(*id));
        }
    }
    account(ledger, observed, &Found { arrived, dead }, &mut report);
    report
}

/// Finds the ledger's rows that may have been committed. Returns each under the id of its event.
fn origins(ledger: &Ledger) -> HashMap<Uuid, CommittedRow<'_>> {
    let mut origins = HashMap::new();
    for transaction in &ledger.transactions {
        if transaction.fate == TransactionFate::RolledBack {
            continue;
        }
        for (place, row) in transaction.rows.iter().enumerate() {
            origins.insert(row.id, CommittedRow { transaction, row, place });
        }
    }
    origins
}

fn compare(row: &Row, message: &Stored, altered: &mut Altered) {
    for (same, finding) in [
        (row.payload == message.payload, &mut altered.payload),
        (row.subject == message.subject, &mut altered.subject),
        (row.key == message.key, &mut altered.key),
        (row.headers == message.headers, &mut altered.headers),
    ] {
        if !same {
            finding.note(Some(row.id));
        }
    }
}

/// The ids that are in the stream and those that are dead.
struct Found {
    arrived: HashSet<Uuid>,
    dead: HashSet<Uuid>,
}

/// Counts each committed row in the report as stored, dead, pending, in limbo (its transaction's
/// end is unknown, and it arrived nowhere) or lost.
fn account(ledger: &Ledger, observed: &Observed, found: &Found, report: &mut CheckerReport) {
    let pending: HashSet<Uuid> = observed.pending.iter().copied().collect();
    let mut by_end: Vec<&Transaction> =
        ledger.transactions.iter().filter(|t| t.fate != TransactionFate::RolledBack).collect();
    by_end.sort_by_key(|transaction| transaction.end);

    let mut any_stored = false;
    // Lost events that follow the last stored event in the order of commits. A stored event after
    // them shows that they are missing in the middle, or at the beginning.
    let mut since: Vec<Uuid> = Vec::new();
    for transaction in by_end {
        for row in &transaction.rows {
            let id = row.id;
            let stored = found.arrived.contains(&id);
            let elsewhere = found.dead.contains(&id) || pending.contains(&id);
            if transaction.fate == TransactionFate::Unknown && !stored && !elsewhere {
                report.limbo += 1;
                continue;
            }
            report.committed += 1;
            if stored {
                let gap =
                    if any_stored { &mut report.lost.middle } else { &mut report.lost.prefix };
                for lost in since.drain(..) {
                    gap.note(Some(lost));
                }
                any_stored = true;
            } else if pending.contains(&id) {
                report.pending.note(Some(id));
            } else if !elsewhere {
                since.push(id);
            }
        }
    }
    for lost in since {
        report.lost.postfix.note(Some(lost));
    }
}
