//! The one table that a run ends with.

use super::runner::Outcome;

/// Prints a line a fault; the verdict is `ok`, or the first thing that is wrong.
pub(crate) fn print(outcomes: &[Outcome]) {
    println!(
        "\n{:<5} {:>6} {:>9} {:>5} {:>8} {:>6} {:>6} {:>7}  verdict",
        "fault", "times", "committed", "lost", "phantom", "dupl.", "inver.", "seconds"
    );
    for outcome in outcomes {
        let Outcome { fault, tally, took } = outcome;
        println!(
            "{:<5} {:>6} {:>9} {:>5} {:>8} {:>6} {:>6} {:>7.1}  {}",
            fault.id,
            tally.strikes,
            tally.committed,
            tally.lost,
            tally.phantom,
            tally.duplicates,
            tally.inversions,
            took.as_secs_f64(),
            verdict(outcome),
        );
    }
    let sum = |part: fn(&Outcome) -> u64| outcomes.iter().map(part).sum::<u64>();
    println!(
        "{:<5} {:>6} {:>9} {:>5} {:>8} {:>6} {:>6}",
        "all",
        sum(|outcome| outcome.tally.strikes.into()),
        sum(|outcome| outcome.tally.committed),
        sum(|outcome| outcome.tally.lost),
        sum(|outcome| outcome.tally.phantom),
        sum(|outcome| outcome.tally.duplicates),
        sum(|outcome| outcome.tally.inversions),
    );
}

fn verdict(outcome: &Outcome) -> String {
    let tally = &outcome.tally;
    match (tally.complaints.first(), &tally.skipped) {
        (Some(complaint), _) => {
            let line = complaint.lines().next().unwrap_or_default();
            format!("FAILED: {}", line.chars().take(100).collect::<String>())
        }
        (None, _) if !tally.is_clean() => "FAILED".to_owned(),
        (None, Some(why)) => format!("skipped: {why}"),
        (None, None) => "ok".to_owned(),
    }
}
