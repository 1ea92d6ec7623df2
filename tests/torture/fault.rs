//! Types of the torture suite: a fault, a set of its strikes, and the tally of what was found.

use std::{future::Future, pin::Pin, time::Duration};

use postrider::dev::{checker::CheckerReport, random::Random};

/// A fault that the suite inflicts: one line of the table in `docs/torture.md`.
#[derive(Clone, Copy)]
pub(crate) struct Fault {
    /// Short name of the fault, such as `K1`.
    pub(crate) id: &'static str,
    /// Description of the fault in a few words.
    pub(crate) what: &'static str,
    /// Number of strikes in a run for a pull request.
    pub(crate) pr: u32,
    /// Number of strikes in a nightly run.
    pub(crate) nightly: u32,
    /// Largest number of strikes that share their servers and are checked together.
    pub(crate) set: u32,
    /// Function that inflicts one set of strikes, and counts lost, repeated and reordered events.
    pub(crate) inflict: Inflict,
}

/// Function that inflicts a set of strikes. It runs in a tokio runtime of its own, as an
/// integration test does.
pub(crate) type Inflict = fn(Set) -> Pin<Box<dyn Future<Output = Tally>>>;

/// Strikes of one fault that share their servers. A strike is one time that the fault is inflicted.
#[derive(Debug, Clone)]
pub(crate) struct Set {
    /// Number of the set within its fault, from 0.
    pub(crate) number: u32,
    pub(crate) strikes: u32,
    pub(crate) seed: u64,
    pub(crate) random: Random,
}

impl Set {
    /// Makes a set whose random choices depend on the run's seed, the fault and the set's number.
    pub(crate) fn new(id: &str, number: u32, strikes: u32, run_seed: u64) -> Self {
        let user = id.bytes().fold(u64::from(number), |sum, byte| sum * 257 + u64::from(byte));
        let mut random = Random::fork(run_seed, user);
        Self { number, strikes, seed: random.draw(), random }
    }
}

/// Time from a strike against the leader to the first publish of another instance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Takeover {
    /// Kind of the strike.
    pub(crate) name: &'static str,
    pub(crate) took: Duration,
    /// Longest time that is allowed on a quiet machine.
    pub(crate) bound: Duration,
}

/// Counts and complaints after a set of strikes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) strikes: u32,
    pub(crate) committed: u64,
    pub(crate) lost: u64,
    pub(crate) phantom: u64,
    pub(crate) duplicates: u64,
    pub(crate) inversions: u64,
    /// Longest time from the last fault of a set until every event was settled.
    pub(crate) recovery: Duration,
    /// Takeovers by another instance, of faults that strike leaders.
    pub(crate) takeovers: Vec<Takeover>,
    /// Number of publishes that came after a later leader had begun to publish, because the network
    /// had held them.
    pub(crate) late: u64,
    /// Everything else that is wrong, as text.
    pub(crate) complaints: Vec<String>,
    /// Reason why this machine cannot inflict the fault. `None` when it can.
    pub(crate) skipped: Option<String>,
}

impl Tally {
    /// Makes a tally from the report of a check, which has to find `dead` dead letters.
    pub(crate) fn of(strikes: u32, report: &CheckerReport, dead: u64) -> Self {
        let mut tally = Self {
            strikes,
            committed: report.committed,
            lost: report.lost.count(),
            phantom: report.phantom.count,
            duplicates: report.duplicates.count,
            inversions: report.inversions.count,
            ..Self::default()
        };
        if report.dead != dead {
            tally.complaints.push(format!("{} dead, {dead} expected", report.dead));
        }
        if !report.is_clean() {
            tally.complaints.push(report.to_string());
        }
        tally
    }

    /// Tally of a fault that was skipped, because this machine lacks what it needs.
    pub(crate) fn skipped(why: impl Into<String>) -> Self {
        Self { skipped: Some(why.into()), ..Self::default() }
    }

    /// Tally of a set that ended before anything could be checked.
    pub(crate) fn failed(strikes: u32, why: String) -> Self {
        Self { strikes, complaints: vec![why], ..Self::default() }
    }

    /// Adds a complaint, if there is one.
    pub(crate) fn complain(&mut self, complaint: Option<String>) {
        self.complaints.extend(complaint);
    }

    /// Adds the figures of another set.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.strikes += other.strikes;
        self.committed += other.committed;
        self.lost += other.lost;
        self.phantom += other.phantom;
        self.duplicates += other.duplicates;
        self.inversions += other.inversions;
        self.recovery = self.recovery.max(other.recovery);
        self.takeovers.extend(other.takeovers);
        self.late += other.late;
        self.complaints.extend(other.complaints);
        self.skipped = self.skipped.take().or(other.skipped);
    }

    /// Whether no event was lost, repeated, reordered or invented, and there is no complaint.
    pub(crate) fn is_clean(&self) -> bool {
        let wrong = self.lost + self.phantom + self.duplicates + self.inversions;
        wrong == 0 && self.complaints.is_empty()
    }
}
