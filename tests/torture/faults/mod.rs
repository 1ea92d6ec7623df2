//! List of all faults, in the order in which they are run and printed.

mod batches;
mod broker;
mod chaos;
mod churn;
mod cluster;
mod daemon;
mod failpoints;
mod leaders;
mod letters;
mod network;
mod postgres;
mod routes;
mod surroundings;

use super::fault::Fault;

/// All faults. Those that take longest come first, so that no single one is left running at the
/// end.
pub(crate) fn all() -> Vec<Fault> {
    [
        chaos::FAULTS,
        churn::FAULTS,
        cluster::FAULTS,
        leaders::FAULTS,
        batches::FAULTS,
        failpoints::FAULTS,
        daemon::FAULTS,
        postgres::FAULTS,
        letters::FAULTS,
        network::FAULTS,
        broker::FAULTS,
        routes::FAULTS,
        surroundings::FAULTS,
    ]
    .concat()
}

/// Faults whose line in `docs/torture.md` is missing, or has other numbers of strikes.
pub(crate) fn undocumented(faults: &[Fault]) -> Vec<String> {
    let page = include_str!("../../../docs/torture.md");
    let is_documented = |fault: &Fault| {
        let (begin, end) =
            (format!("| {} | ", fault.id), format!(" | {} | {} |", fault.pr, fault.nightly));
        page.lines().any(|line| line.starts_with(&begin) && line.ends_with(&end))
    };
    let missing = faults.iter().filter(|fault| !is_documented(fault));
    missing
        .map(|fault| format!("{}: {} times, {} a night", fault.id, fault.pr, fault.nightly))
        .collect()
}
