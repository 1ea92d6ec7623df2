//! Position: how far an outbox has been settled, as a pair of snapshots and a bookmark between
//! them.

use std::fmt;

use crate::event::Seq;

/// The text of a `pg_snapshot`: which transactions were visible at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(String);

impl Snapshot {
    /// Wraps the text as Postgres wrote it: `xmin:xmax:xip,xip`.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Whether the snapshot lists transactions as in progress (`xip` is not empty).
    pub fn has_open(&self) -> bool {
        !self.0.ends_with(':')
    }

    /// The text of the snapshot, as a parameter of a statement.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far an outbox has been settled.
///
/// Every row visible in `settled` is settled. Of the rows that became visible between `settled`
/// and `target`, those up to `bookmark` are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The snapshot of which every visible row is settled.
    pub settled: Snapshot,
    /// The snapshot whose rows are being settled now; equal to `settled` when none are.
    pub target: Snapshot,
    /// Of the rows that became visible between `settled` and `target`, those up to this `seq` are
    /// decided.
    pub bookmark: Seq,
    /// Exclusive lower bound for the `seq` of rows whose transaction began after `settled`
    /// (`outbox/sql/read_page.sql` says why).
    pub floor: Seq,
    /// Exclusive lower bound for the `seq` of rows whose transaction began after `target`.
    pub target_floor: Seq,
}

/// The snapshot in which no row is visible. A position that has settled nothing begins with it.
const NOTHING: &str = "3:3:";

impl Position {
    /// Whether the relay is in its first pass over the outbox. The pass ends when every row that
    /// was visible at its start is settled. A healing that goes back to the oldest row begins
    /// another pass.
    pub fn is_first_pass(&self) -> bool {
        self.settled.as_str() == NOTHING
    }

    /// Whether every row visible in `target` is settled.
    pub fn is_complete(&self) -> bool {
        self.settled == self.target
    }
}
