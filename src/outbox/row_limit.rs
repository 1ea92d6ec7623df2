//! Row limits that keep a statement within its deadline.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::pg::error::QueryError;

/// The row limits of a relay's statements. They outlive the session, because a statement that
/// exceeds its deadline may cost the session.
#[derive(Debug, Default)]
pub struct RowLimits {
    /// Rows of a page.
    pub(super) page: RowLimit,
    /// Maximum number of `seq` values that one statement reads for a filter.
    pub(super) stretch: RowLimit,
    /// Letters of a page of blocked keys.
    pub(super) blocked_keys: RowLimit,
    /// Letters of a settlement.
    pub(super) letters: RowLimit,
    /// Records of letters that one statement writes.
    pub(super) records: RowLimit,
}

/// Adaptive row limit of one kind of statement. Rows that must be unpacked to be measured, or
/// written to a slow disk, can exceed the deadline of a statement.
#[derive(Debug)]
pub(super) struct RowLimit(AtomicUsize);

impl Default for RowLimit {
    fn default() -> Self {
        Self(AtomicUsize::new(usize::MAX))
    }
}

impl RowLimit {
    /// The requested number of rows, or the limit when that is lower.
    pub(super) fn at_most(&self, rows: usize) -> usize {
        rows.min(self.0.load(Ordering::Relaxed))
    }

    /// Reduces the limit to an eighth of `rows` when a statement with this many exceeded its
    /// deadline. Increases it by a quarter after each success with at least as many as the limit.
    pub(super) fn learn<T>(&self, rows: usize, answer: &Result<T, QueryError>) {
        let next = match answer {
            Ok(_) => {
                let now = self.0.load(Ordering::Relaxed);
                if rows < now {
                    return;
                }
                now.saturating_add(now / 4 + 1)
            }
            Err(error) if error.is_given_up() || error.is_of_a_row() => (rows / 8).max(1),
            Err(_) => return,
        };
        self.0.store(next, Ordering::Relaxed);
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
        let grown = (0..40).find(|_| {
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
}
