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

    /// The text, for a parameter.
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
    /// Every row visible here is settled.
    pub settled: Snapshot,
    /// The snapshot whose rows are being settled now; equal to `settled` when none are.
    pub target: Snapshot,
    /// The highest settled `seq` among the rows between the two.
    pub bookmark: Seq,
    /// Exclusive lower bound for the `seq` of rows whose transaction began after `settled`
    /// (`outbox/sql/read_page.sql` says why).
    pub floor: Seq,
    /// The same for `target`.
    pub target_floor: Seq,
}

/// The snapshot in which no row is visible: that of a position that has passed nothing.
const NOTHING: &str = "3:3:";

impl Position {
    /// Whether the rows that the outbox had at first, or at the healing, are not all settled.
    pub fn is_first_pass(&self) -> bool {
        self.settled.as_str() == NOTHING
    }

    /// Whether every row visible in `target` is settled.
    pub fn is_complete(&self) -> bool {
        self.settled == self.target
    }
}
