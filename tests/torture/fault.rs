//! What a fault is: a name, how often each tier repeats it, and the function that inflicts it.

use std::{future::Future, pin::Pin, time::Duration};

use postrider::dev::{checker::CheckerReport, random::Random};

/// One line of the matrix.
#[derive(Clone, Copy)]
pub(crate) struct Fault {
    /// Its name in the matrix.
    pub(crate) id: &'static str,
    /// What it does, in a few words.
    pub(crate) what: &'static str,
    /// How many strikes a pull request gets.
    pub(crate) pr: u32,
    /// How many strikes a night gets.
    pub(crate) nightly: u32,
    /// How many strikes share their servers, and are checked together, at most.
    pub(crate) set: u32,
    /// Inflicts one set of strikes and reports what is left of the events.
    pub(crate) inflict: Inflict,
}

/// Runs in a runtime of its own, as each integration test does.
pub(crate) type Inflict = fn(Set) -> Pin<Box<dyn Future<Output = Tally>>>;

/// Some strikes on the same servers.
#[derive(Debug, Clone)]
pub(crate) struct Set {
    /// Which set of its fault it is, from 0.
    pub(crate) number: u32,
    pub(crate) strikes: u32,
    pub(crate) seed: u64,
    pub(crate) random: Random,
}

impl Set {
    /// A set whose draws depend on the run's seed, the fault and the number of the set.
    pub(crate) fn new(id: &str, number: u32, strikes: u32, run_seed: u64) -> Self {
        let user = id.bytes().fold(u64::from(number), |sum, byte| sum * 257 + u64::from(byte));
        let mut random = Random::fork(run_seed, user);
        Self { number, strikes, seed: random.draw(), random }
    }
}

/// From a strike to the first publish of another instance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Takeover {
    /// The kind of strike.
    pub(crate) name: &'static str,
    pub(crate) took: Duration,
    /// As long as it may take on a quiet machine.
    pub(crate) bound: Duration,
}

/// What was found after a set of strikes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) strikes: u32,
    pub(crate) committed: u64,
    pub(crate) lost: u64,
    pub(crate) phantom: u64,
    pub(crate) duplicates: u64,
    pub(crate) inversions: u64,
    /// The longest time from the end of a set's last fault until all was settled.
    pub(crate) recovery: Duration,
    /// How long it took until the relay published again, where leaders are struck.
    pub(crate) takeovers: Vec<Takeover>,
    /// Publishes of an instance that came after a later leader's: the network held them.
    pub(crate) late: u64,
    /// Whatever else is wrong.
    pub(crate) complaints: Vec<String>,
    /// Why this machine cannot inflict the fault.
    pub(crate) skipped: Option<String>,
}

impl Tally {
    /// The figures of a check that has to find so many dead letters.
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

    /// This machine lacks what the fault needs.
    pub(crate) fn skipped(why: impl Into<String>) -> Self {
        Self { skipped: Some(why.into()), ..Self::default() }
    }

    /// A set that ended before there was anything to check.
    pub(crate) fn failed(strikes: u32, why: String) -> Self {
        Self { strikes, complaints: vec![why], ..Self::default() }
    }

    /// Notes what is wrong, if anything is.
    pub(crate) fn complain(&mut self, complaint: Option<String>) {
        self.complaints.extend(complaint);
    }

    /// Adds up.
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

    /// Whether nothing is wrong.
    pub(crate) fn is_clean(&self) -> bool {
        let wrong = self.lost + self.phantom + self.duplicates + self.inversions;
        wrong == 0 && self.complaints.is_empty()
    }
}
