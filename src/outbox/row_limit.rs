//! Adapts the number of rows of a statement, so that the statement ends within its deadline.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::pg::error::QueryError;

/// The row limits of a relay's statements. They are kept when the session is lost, because a
/// statement that exceeds its deadline may cost the session.
#[derive(Debug, Default)]
pub struct RowLimits {
    /// Maximum rows of a page.
    pub(super) page: RowLimit,
    /// Maximum number of `seq` values that one statement reads for a filter.
    pub(super) stretch: RowLimit,
    /// Maximum letters of a page of blocked keys.
    pub(super) blocked_keys: RowLimit,
    /// Maximum letters of a settlement.
    pub(super) letters: RowLimit,
    /// Maximum number of records of letters that one statement writes.
    pub(super) records: RowLimit,
}

/// Number of statements that must succeed just below a failed number of rows before that number is
/// tried again. Later rows may be smaller.
const SUCCESSES_BEFORE_GROWTH: usize = 32;

/// Adaptive row limit of one kind of statement. Rows that must be unpacked to be measured, or
/// written to a slow disk, can make a statement exceed its deadline.
#[derive(Debug)]
pub(super) struct RowLimit {
    limit: AtomicUsize,
    /// Number of rows with which a statement failed last, because of its deadline or an unreadable
    /// row.
    failed: AtomicUsize,
    /// Number of successful statements since the last failure after which the limit could have
    /// reached `failed`.
    below_failed: AtomicUsize,
}

impl Default for RowLimit {
    fn default() -> Self {
        let unlimited = || AtomicUsize::new(usize::MAX);
        Self { limit: unlimited(), failed: unlimited(), below_failed: AtomicUsize::new(0) }
    }
}

impl RowLimit {
    /// The requested number of rows, or the limit when that is lower.
    pub(super) fn at_most(&self, rows: usize) -> usize {
        rows.min(self.limit.load(Ordering::Relaxed))
    }

    /// Adapts the limit to the result of a statement with this number of rows. After an exceeded
    /// deadline or an unreadable row, the limit becomes an eighth of `rows`. After a success with
    /// at least as many rows as the limit, the limit grows by a quarter. It reaches a size that
    /// failed only after [`SUCCESSES_BEFORE_GROWTH`].
    pub(super) fn learn<T>(&self, rows: usize, answer: &Result<T, QueryError>) {
        match answer {
            Ok(_) => self.succeeded(rows),
            Err(error) if error.is_given_up() || error.is_of_a_row() => {
                self.limit.store((rows / 8).max(1), Ordering::Relaxed);
                self.failed.store(rows, Ordering::Relaxed);
                self.below_failed.store(0, Ordering::Relaxed);
            }
            Err(_) => {}
        }
    }

    fn succeeded(&self, rows: usize) {
        let limit = self.limit.load(Ordering::Relaxed);
        if rows < limit {
            return;
        }
        let next = limit.saturating_add(limit / 4 + 1);
        if next >= self.failed.load(Ordering::Relaxed) {
            let successes = self.below_failed.fetch_add(1, Ordering::Relaxed) + 1;
            if successes < SUCCESSES_BEFORE_GROWTH {
                return;
            }
            self.failed.store(usize::MAX, Ordering::Relaxed);
            self.below_failed.store(0, Ordering::Relaxed);
        }
        self.limit.store(next, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_limit_shrinks_to_one_row_and_grows_again() {
        let limit = RowLimit::default();
        let late = || Err::<(), _>(QueryError::Timeout { after: Duration::from_secs(6) });
        let mut rows = 1_000;
        let mut sizes = Vec::new();
        while rows > 1 {
            limit.learn(rows, &late());
            rows = limit.at_most(1_000);
            sizes.push(rows);
        }
        assert_eq!(sizes, [125, 15, 1]);
        limit.learn(1, &late());
        assert_eq!(limit.at_most(1_000), 1);
        let grown = (0..200).find(|_| {
            limit.learn(limit.at_most(1_000), &Ok(()));
            limit.at_most(1_000) == 1_000
        });
        assert!(grown.is_some());
        limit.learn(1_000, &Err::<(), _>(QueryError::NoRow));
        assert_eq!(limit.at_most(1_000), 1_000, "an error that says nothing about the size");
        limit.learn(1_000, &late());
        limit.learn(3, &Ok(()));
        assert_eq!(limit.at_most(1_000), 125, "a small success says nothing either");
    }

    /// A limit that grows back at once would fail every few statements, and each failure may cost
    /// the session.
    #[test]
    fn a_size_that_failed_is_tried_again_only_after_many_successes() {
        let limit = RowLimit::default();
        let late = || Err::<(), _>(QueryError::Timeout { after: Duration::from_secs(6) });
        let mut failures = 0;
        for _ in 0..1_000 {
            let rows = limit.at_most(1_000);
            let failed = rows > 3;
            failures += u32::from(failed);
            limit.learn(rows, &if failed { late() } else { Ok(()) });
        }
        assert!((20..40).contains(&failures), "{failures} failures of 1,000 statements");
    }
}
