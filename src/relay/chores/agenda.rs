//! Agenda of the chores: which is next, and how long a failed one waits. No I/O.

use std::time::{Duration, Instant};

use crate::{
    delivery::Backoff,
    metrics::Chore,
    relay::report::status::{LinkStatus, Phase, Status},
};

/// Waits of a chore after failures in a row. A failed chore waits at least 5 s, whatever its
/// interval is.
const FAILED: Backoff = Backoff { first: Duration::from_secs(5), longest: Duration::from_mins(1) };

/// Duty of a flow: the set of chores that it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Duty {
    /// Only the chore that finds missing grants. The instance has no session or no lease, and a
    /// missing grant may be the reason.
    Waiting,
    /// Every chore.
    Leading,
    /// Every chore but those that another flow of this program runs for the whole outbox.
    LeadingBeside,
}

/// Chores that one flow runs for the whole outbox.
const SHARED: [Chore; 5] =
    [Chore::Retention, Chore::Letters, Chore::ConsumerKeys, Chore::Grants, Chore::Producers];

impl Duty {
    /// Duty of a flow. `None` for a flow without chores: one that starts or ends, or a standby,
    /// which measures the backlog over the session that it has.
    pub(super) fn of(status: &Status) -> Option<Self> {
        match status.phase {
            Phase::Starting if matches!(status.postgres, LinkStatus::Down { .. }) => {
                Some(Self::Waiting)
            }
            Phase::Relaying => Some(Self::Leading),
            Phase::Starting | Phase::Standby | Phase::Stopping | Phase::Stopped => None,
        }
    }

    fn includes(self, chore: Chore) -> bool {
        match self {
            Self::Waiting => chore == Chore::Grants,
            Self::Leading => true,
            Self::LeadingBeside => !SHARED.contains(&chore),
        }
    }

    /// Whether the flow leads.
    pub(super) fn leads(self) -> bool {
        matches!(self, Self::Leading | Self::LeadingBeside)
    }

    /// Duty beside another flow that runs the chores for the whole outbox.
    pub(super) fn beside(self) -> Self {
        match self {
            Self::Leading | Self::LeadingBeside => Self::LeadingBeside,
            Self::Waiting => Self::Waiting,
        }
    }
}

/// Agenda: when each chore is due.
#[derive(Debug)]
pub(super) struct Agenda {
    entries: Vec<AgendaEntry>,
}

#[derive(Debug)]
struct AgendaEntry {
    chore: Chore,
    due: Instant,
    /// Number of failures in a row.
    failures: u32,
}

impl Agenda {
    /// An agenda on which every chore is due.
    pub(super) fn new(now: Instant) -> Self {
        let entry = |chore: &Chore| AgendaEntry { chore: *chore, due: now, failures: 0 };
        Self { entries: Chore::ALL.iter().map(entry).collect() }
    }

    /// The chore of this duty that is due first, and its time.
    pub(super) fn next(&self, duty: Duty) -> (Chore, Instant) {
        let ours = self.entries.iter().filter(|entry| duty.includes(entry.chore));
        let first = ours.min_by_key(|entry| entry.due);
        // Every duty includes at least one chore, so the default is never used.
        first.map_or((Chore::Depth, Instant::now()), |entry| (entry.chore, entry.due))
    }

    /// Makes a chore due at once, unless it has failed and waits.
    pub(super) fn hurry(&mut self, chore: Chore, now: Instant) {
        if let Some(entry) = self.entry(chore).filter(|entry| entry.failures == 0) {
            entry.due = entry.due.min(now);
        }
    }

    /// Whether a chore can be made due at once. A chore that has failed waits, so it cannot.
    pub(super) fn can_hurry(&self, chore: Chore) -> bool {
        self.entries.iter().any(|entry| entry.chore == chore && entry.failures == 0)
    }

    /// Begins a duty: the chores that it needs first become due at once.
    pub(super) fn begin(&mut self, duty: Duty, now: Instant) {
        match duty {
            Duty::Waiting => self.hurry(Chore::Grants, now),
            Duty::Leading | Duty::LeadingBeside => {
                // `postrider status` and other readers of the database treat a leader without a
                // note as one that is starting.
                self.hurry(Chore::Note, now);
                self.hurry(Chore::Positions, now);
            }
        }
    }

    /// Notes a success. Returns the number of failures in a row before it.
    pub(super) fn done(&mut self, duty: Duty, chore: Chore, now: Instant) -> u32 {
        let Some(entry) = self.entry(chore) else { return 0 };
        entry.due = now + interval(duty, chore);
        std::mem::take(&mut entry.failures)
    }

    /// Notes a failure. Returns the number of failures in a row, and the wait after them.
    pub(super) fn failed(&mut self, chore: Chore, now: Instant) -> (u32, Duration) {
        let Some(entry) = self.entry(chore) else { return (0, Duration::ZERO) };
        entry.failures = entry.failures.saturating_add(1);
        let wait = FAILED.after(entry.failures);
        entry.due = now + wait;
        (entry.failures, wait)
    }

    fn entry(&mut self, chore: Chore) -> Option<&mut AgendaEntry> {
        self.entries.iter_mut().find(|entry| entry.chore == chore)
    }
}

/// Interval of a chore. The chores are most of what an idle relay costs the database. Consumers'
/// dedup keys and slots (partitions) of the outbox are kept for hours at least, so the chores that
/// delete or empty them may be rare.
fn interval(duty: Duty, chore: Chore) -> Duration {
    match (duty, chore) {
        (_, Chore::Depth | Chore::Checkpoint) => Duration::from_secs(5),
        // Readers take a leader for silent when its note for `postrider status` is 25 s old, so the
        // note is written more often than that.
        (_, Chore::Note) | (Duty::Waiting, Chore::Grants) => Duration::from_secs(10),
        (_, Chore::Producers) => Duration::from_secs(20),
        // A denied permission makes the chore of the grants due at once, so its interval may be
        // long.
        (Duty::Leading | Duty::LeadingBeside, Chore::Grants)
        | (_, Chore::Retention | Chore::Letters | Chore::ConsumerKeys | Chore::Positions) => {
            Duration::from_mins(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Defect of an earlier version: a chore that failed stopped all chores after it.
    #[test]
    fn a_chore_that_always_fails_delays_no_other() {
        let start = Instant::now();
        let mut agenda = Agenda::new(start);
        let mut done = Vec::new();
        let mut now = start;
        while now < start + Duration::from_mins(3) {
            let (chore, due) = agenda.next(Duty::Leading);
            now = now.max(due);
            if chore == Chore::Depth {
                agenda.failed(chore, now);
            } else {
                done.push(chore);
                agenda.done(Duty::Leading, chore, now);
            }
        }
        let times = |chore| done.iter().filter(|done| **done == chore).count();
        assert!(times(Chore::Checkpoint) >= 36, "{done:?}");
        assert!(times(Chore::Note) >= 18, "{done:?}");
        assert!(times(Chore::Retention) >= 3, "{done:?}");
        assert!(times(Chore::ConsumerKeys) >= 3, "{done:?}");
    }

    #[test]
    fn what_one_flow_does_for_the_outbox_no_other_does() {
        let now = Instant::now();
        let mut agenda = Agenda::new(now);
        for _ in 0..20 {
            let (chore, _) = agenda.next(Duty::LeadingBeside);
            assert!(!SHARED.contains(&chore), "{chore:?}");
            agenda.done(Duty::LeadingBeside, chore, now);
        }
    }

    #[test]
    fn failures_wait_longer_each_time_and_are_forgotten_with_a_success() {
        let now = Instant::now();
        let mut agenda = Agenda::new(now);
        let waits: Vec<_> =
            (0..6).map(|_| agenda.failed(Chore::Retention, now).1.as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
        assert_eq!(agenda.done(Duty::Leading, Chore::Retention, now), 6);
        assert_eq!(agenda.done(Duty::Leading, Chore::Retention, now), 0);
        assert_eq!(agenda.failed(Chore::Retention, now), (1, Duration::from_secs(5)));
    }

    #[test]
    fn who_waits_for_postgres_only_looks_for_missing_grants() {
        let now = Instant::now();
        let mut agenda = Agenda::new(now);
        for _ in 0..10 {
            assert_eq!(agenda.next(Duty::Waiting).0, Chore::Grants);
            agenda.done(Duty::Leading, Chore::Grants, now);
        }
    }

    #[test]
    fn what_changed_is_noted_at_once_and_a_note_that_fails_is_not_hurried() {
        let now = Instant::now();
        let mut agenda = Agenda::new(now);
        for chore in Chore::ALL {
            agenda.done(Duty::Leading, *chore, now);
        }
        agenda.hurry(Chore::Note, now);
        assert_eq!(agenda.next(Duty::Leading), (Chore::Note, now));
        agenda.failed(Chore::Note, now);
        agenda.hurry(Chore::Note, now);
        assert!(agenda.next(Duty::Leading).1 > now);
    }
}
