//! Result of `postrider dev --once`, for people and for programs.

use std::fmt;

use serde::Serialize;

use crate::{
    cli::print::number,
    dev::{checker::CheckerReport, once::RunReport},
};

/// The figures of a run as programs read them.
#[derive(Debug, Serialize)]
pub(super) struct RunFigures {
    committed: u64,
    stored: u64,
    lost: u64,
    phantom: u64,
    duplicates: u64,
    inversions: u64,
    seconds: f64,
    events_per_second: u64,
}

impl From<&RunReport> for RunFigures {
    fn from(outcome: &RunReport) -> Self {
        let report = &outcome.report;
        Self {
            committed: report.committed,
            stored: report.stored,
            lost: missing(report),
            phantom: report.phantom.count,
            duplicates: report.duplicates.count,
            inversions: report.inversions.count,
            seconds: (outcome.elapsed.as_secs_f64() * 1e3).round() / 1e3,
            events_per_second: outcome.events_per_second(),
        }
    }
}

/// Number of missing events. A run waits until everything has arrived, so pending events are
/// missing too.
fn missing(report: &CheckerReport) -> u64 {
    report.lost.count() + report.pending.count
}

/// The figures of a run as people read them.
pub(super) struct RunText<'a> {
    pub(super) outcome: &'a RunReport,
    pub(super) seed: u64,
}

impl fmt::Display for RunText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { outcome, seed } = self;
        let report = &outcome.report;
        let altered = &report.altered;
        let altered = [&altered.payload, &altered.subject, &altered.key, &altered.headers];
        let altered = altered.iter().map(|finding| finding.count).sum();
        let (transactions, keys) = (number(outcome.transactions), number(outcome.keys));
        let committed = format!("events, in {transactions} transactions on {keys} keys");
        let lines = [
            ("committed", report.committed, committed.as_str()),
            ("rolled back", outcome.rolled_back, "events, which may not arrive"),
            ("stored", report.stored, "messages, read back from the stream"),
            ("lost", missing(report), ""),
            ("phantom", report.phantom.count, "(stored, but never committed)"),
            ("duplicates", report.duplicates.count, ""),
            ("inverted", report.inversions.count, "(not in the order of their key)"),
            ("altered", altered, "(payload, subject, key and headers compared)"),
            ("dead letters", report.dead, ""),
            ("relay errors", outcome.relay_errors.len() as u64, "(in its log)"),
        ];
        writeln!(f, "One run of the relay, seed {seed}\n")?;
        for (name, figure, remark) in lines {
            let line = format!("  {name:<13}{:>11}  {remark}", number(figure));
            writeln!(f, "{}", line.trim_end())?;
        }
        let (seconds, rate) = (outcome.elapsed.as_secs_f64(), number(outcome.events_per_second()));
        write!(f, "\n  {seconds:.2} s from the first insert to the last arrival, {rate} events/s")?;
        if let Some(bytes) = outcome.relay_memory_bytes {
            let tenths = bytes * 10 / (1 << 20);
            write!(f, "\n  {}.{} MiB of memory in the relay at most", tenths / 10, tenths % 10)?;
        }
        if outcome.is_clean() {
            let text = "Every committed event is in the stream, once and in the order of its key.";
            write!(f, "\n\n{text}")?;
        }
        Ok(())
    }
}

/// Text about a run that was not clean: what was wrong, and the command that repeats the run.
pub(super) fn faults(outcome: &RunReport, seed: u64) -> String {
    let mut lines = vec![format!("the run is not clean: {}", outcome.report)];
    lines.extend(outcome.relay_errors.iter().take(10).map(|line| format!("relay: {line}")));
    if outcome.relay_exit != Some(0) {
        lines.push(format!("the relay ended with {:?} instead of 0", outcome.relay_exit));
    }
    lines.push(format!("repeat the workload with --seed {seed}"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn outcome() -> RunReport {
        RunReport {
            report: CheckerReport { committed: 10_000, stored: 10_000, ..CheckerReport::default() },
            transactions: 1_021,
            rolled_back: 1_830,
            keys: 987,
            elapsed: Duration::from_millis(1_234),
            relay_memory_bytes: Some(22 << 20),
            relay_errors: Vec::new(),
            relay_exit: Some(0),
        }
    }

    #[test]
    fn the_json_line_has_these_figures_in_this_order() {
        let line = serde_json::to_string(&RunFigures::from(&outcome())).unwrap();
        insta::assert_snapshot!(line, @r#"{"committed":10000,"stored":10000,"lost":0,"phantom":0,"duplicates":0,"inversions":0,"seconds":1.234,"events_per_second":8103}"#);
    }

    #[test]
    fn the_report_reads_well() {
        insta::assert_snapshot!(RunText { outcome: &outcome(), seed: 7 }, @"
        One run of the relay, seed 7

          committed         10,000  events, in 1,021 transactions on 987 keys
          rolled back        1,830  events, which may not arrive
          stored            10,000  messages, read back from the stream
          lost                   0
          phantom                0  (stored, but never committed)
          duplicates             0
          inverted               0  (not in the order of their key)
          altered                0  (payload, subject, key and headers compared)
          dead letters           0
          relay errors           0  (in its log)

          1.23 s from the first insert to the last arrival, 8,103 events/s
          22.0 MiB of memory in the relay at most

        Every committed event is in the stream, once and in the order of its key.
        ");
    }

    #[test]
    fn a_run_with_a_fault_names_it() {
        let mut outcome = outcome();
        outcome.report.duplicates.count = 2;
        outcome.relay_errors.push("ERROR postrider::relay: gone".to_owned());
        assert!(!outcome.is_clean());
        insta::assert_snapshot!(faults(&outcome, 7), @"
        the run is not clean: 10000 committed, 10000 stored, 0 dead
        2 duplicate
        relay: ERROR postrider::relay: gone
        repeat the workload with --seed 7
        ");
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(["0", "999", "1,000", "1,234,567"], [0, 999, 1_000, 1_234_567].map(number));
    }
}
