//! Metrics of the chores, which are periodic work beside the data path, and of what is wrong now.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{
    count,
    labels::{Chore, ChoreLabel, FindingCode, FindingLabel},
};

/// The metrics of the chores, and of the findings: what is wrong now, each with a code.
#[derive(Debug)]
pub struct ChoreMetrics {
    failures: Family<ChoreLabel, Counter>,
    failing: Family<ChoreLabel, Gauge>,
    findings: Family<FindingLabel, Gauge>,
    abandoned: Gauge,
}

impl ChoreMetrics {
    pub(super) fn register(list: &mut Registry) -> Self {
        let this = Self {
            failures: Family::default(),
            failing: Family::default(),
            findings: Family::default(),
            abandoned: Gauge::default(),
        };
        this.found(&[]);
        for chore in Chore::ALL {
            drop(this.failures.get_or_create(&ChoreLabel { chore: *chore }));
            drop(this.failing.get_or_create(&ChoreLabel { chore: *chore }));
        }
        let help = "Attempts at a chore that failed";
        list.register("chore_failures", help, this.failures.clone());
        let help = "Failures of a chore in a row, 0 once it succeeds";
        list.register("chore_failing", help, this.failing.clone());
        let help = "1 for what is wrong now, as `/readyz?verbose` and `postrider status` say it";
        list.register("finding", help, this.findings.clone());
        let help =
            "Positions of other relays that no instance runs and that keep rows in the outbox";
        list.register("abandoned_positions", help, this.abandoned.clone());
        this
    }

    /// Sets the gauge of each finding: 1 for the given codes, 0 for all others.
    pub fn found(&self, codes: &[FindingCode]) {
        for code in FindingCode::ALL {
            let gauge = self.findings.get_or_create(&FindingLabel { code: *code });
            gauge.set(i64::from(codes.contains(code)));
        }
    }

    /// Sets the number of abandoned positions: those of other relays that no instance runs and that
    /// keep rows in the outbox.
    pub fn abandoned(&self, positions: usize) {
        self.abandoned.set(count(positions));
    }

    /// Counts a failure of a chore. `in_a_row` is the number of its failures since its last
    /// success, this one included.
    pub fn failed(&self, chore: Chore, in_a_row: u32) {
        self.failures.get_or_create(&ChoreLabel { chore }).inc();
        self.failing.get_or_create(&ChoreLabel { chore }).set(count(in_a_row));
    }

    /// Notes the success of a chore.
    pub fn done(&self, chore: Chore) {
        self.failing.get_or_create(&ChoreLabel { chore }).set(0);
    }
}
