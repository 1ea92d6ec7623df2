//! Prints the table with which a run of the torture suite ends.

use std::time::Duration;

use super::{fault::Takeover, runner::Outcome};

/// Prints one line per fault. The verdict is `ok`, or the first thing that is wrong.
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
    print_takeovers(outcomes);
}

/// Prints how long takeovers took, with one line for each kind of strike.
fn print_takeovers(outcomes: &[Outcome]) {
    if outcomes.iter().all(|outcome| outcome.tally.takeovers.is_empty()) {
        return;
    }
    println!(
        "\n{:<5} {:<30} {:>6} {:>8} {:>8} {:>6}",
        "fault", "published again after", "times", "median", "maximum", "bound"
    );
    for Outcome { fault, tally, .. } in outcomes {
        let mut takeovers = tally.takeovers.clone();
        takeovers.sort_by_key(|takeover| (takeover.name, takeover.took));
        for kind in takeovers.chunk_by(|one, next| one.name == next.name) {
            print_kind(fault.id, kind);
        }
        if tally.late > 0 {
            println!(
                "{:<5} {} publishes came late, from a leader that was replaced",
                fault.id, tally.late
            );
        }
    }
}

/// Prints one line about takeovers of one kind, which are sorted by their duration.
fn print_kind(fault: &str, kind: &[Takeover]) {
    let seconds =
        |took: Option<&Takeover>| took.map_or(Duration::ZERO, |one| one.took).as_secs_f64();
    let (median, maximum) = (seconds(kind.get(kind.len() / 2)), seconds(kind.last()));
    let Some(Takeover { name, bound, .. }) = kind.first() else { return };
    println!(
        "{fault:<5} {name:<30} {:>6} {median:>7.2}s {maximum:>7.2}s {:>5.1}s",
        kind.len(),
        bound.as_secs_f64()
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
