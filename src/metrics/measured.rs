//! The last measurement of the backlog, and the meaning of its figures as they grow old.

use std::time::{Duration, Instant};

/// Age, exclusive, from which a measurement is overdue: three intervals of the chore that takes it.
pub const OVERDUE: Duration = Duration::from_secs(15);

/// The last measurement of the backlog. Before the first measurement it is a backlog of 0, measured
/// at the program's start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Time at which the backlog was measured.
    pub at: Instant,
    /// Figures of the measured backlog.
    pub depth: Depth,
}

/// The backlog, and the letters that an operator has to decide about.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Depth {
    /// Number of committed events that are not settled.
    pub unsettled: u64,
    /// Number of letters that are tried again later.
    pub retrying: u64,
    /// Number of letters that wait behind an earlier letter of their key.
    pub held: u64,
    /// Number of letters that an operator has to decide about. They do not wait to be published.
    pub dead: u64,
    /// The age in seconds of the oldest event that waits; `None` when none does.
    pub oldest_seconds: Option<f64>,
}

impl Depth {
    /// Committed events that wait to be published, on the fast path or as letters.
    pub fn backlog(&self) -> u64 {
        self.unsettled.saturating_add(self.retrying).saturating_add(self.held)
    }
}

impl Measured {
    /// The state before the first measurement, at the program's start.
    pub fn never(now: Instant) -> Self {
        Self { at: now, depth: Depth::default() }
    }

    /// The age of the figures.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at)
    }

    /// Whether the figures are so old that they say nothing about now.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.age(now) > OVERDUE
    }

    /// The age in seconds of the oldest event that waits, 0 when none does. An overdue measurement
    /// gives the highest possible age: the oldest event may still wait, and an event may have come
    /// just after a measurement without any.
    pub fn oldest_seconds(&self, now: Instant) -> f64 {
        let measured = self.depth.oldest_seconds.unwrap_or_default();
        if self.is_overdue(now) { measured + self.age(now).as_secs_f64() } else { measured }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: the gauge stayed at its last value, 0, for as long as the database did not
    /// answer.
    #[test]
    fn an_overdue_measurement_grows_and_a_fresh_one_says_what_was_measured() {
        let at = Instant::now();
        let measured =
            |oldest_seconds| Measured { at, depth: Depth { oldest_seconds, ..Depth::default() } };
        let after = |seconds| at + Duration::from_secs(seconds);
        for (oldest, seconds, expected) in [
            (None, 0, 0.0),
            (None, 15, 0.0),
            (None, 16, 16.0),
            (Some(7.5), 5, 7.5),
            (Some(7.5), 60, 67.5),
        ] {
            let found = measured(oldest).oldest_seconds(after(seconds));
            assert!((found - expected).abs() < 0.001, "{oldest:?} after {seconds} s: {found}");
        }
    }
}
