//! Shared parts of the faults: the program, the workload, and the comparison after the last strike.

use std::{
    fs,
    time::{Duration, Instant},
};

use postrider::dev::{
    checker::{Ledger, Order, Stored, check},
    workload::Options,
};

use super::{
    fault::{Set, Tally},
    support::{
        Fixture,
        audit::work_during,
        daemon::{Daemon, DaemonBuilder},
        let_pass,
    },
};

/// Deadline from the end of the last fault to the last settlement.
const DRAIN_DEADLINE: Duration = Duration::from_mins(1);

/// Largest number of open files: sessions, the connection to NATS, the log, and those of the
/// runtime.
const FILES_MAX: usize = 48;

/// Largest resident memory of the program, in KiB: 64 MiB, and twice the 32 MiB that may be in
/// flight.
const MEMORY_KIB_MAX: u64 = 128 * 1024;

/// The program with the fixture's configuration. Faults may make it log warnings, but no errors or
/// panics, because the program recovers from all of them.
pub(crate) fn daemon(fixture: &Fixture) -> DaemonBuilder {
    fixture.daemon().allow_log(" WARN ")
}

/// Options of an endless workload, at a rate that leaves the machine time for the faults.
pub(crate) fn steady(set: &Set) -> Options {
    Options {
        events: u64::MAX,
        events_per_second: Some(500),
        keys: 100,
        seed: set.seed,
        early_xid_percent: 5,
        held_open_percent: 5,
        ..Options::default()
    }
}

/// Runs a workload while `strikes` runs. Returns the ledger and the result of `strikes`.
pub(crate) async fn under_load<T>(
    fixture: &Fixture,
    options: Options,
    strikes: impl Future<Output = T>,
) -> (Ledger, T) {
    work_during(fixture.workload(options), Box::pin(strikes)).await
}

/// Waits until everything is settled after the last fault, and compares the stream with the ledger.
pub(crate) async fn conclude(fixture: &Fixture, ledger: &Ledger, set: &Set) -> Tally {
    conclude_with(fixture, ledger, set, (0, Vec::new())).await
}

/// Waits and compares like [`conclude`], and expects `dead` dead letters.
pub(crate) async fn conclude_with_dead(
    fixture: &Fixture,
    ledger: &Ledger,
    set: &Set,
    dead: u64,
) -> Tally {
    conclude_with(fixture, ledger, set, (dead, Vec::new())).await
}

/// Waits and compares like [`conclude`]. The `purged` messages count as stored before the others,
/// although they are gone from the stream.
pub(crate) async fn conclude_with_purged(
    fixture: &Fixture,
    ledger: &Ledger,
    set: &Set,
    purged: Vec<Stored>,
) -> Tally {
    conclude_with(fixture, ledger, set, (0, purged)).await
}

async fn conclude_with(
    fixture: &Fixture,
    ledger: &Ledger,
    set: &Set,
    (dead, purged): (u64, Vec<Stored>),
) -> Tally {
    let began = Instant::now();
    let drained = fixture.wait_drained(DRAIN_DEADLINE).await && wait_for_letters(fixture).await;
    let recovery = began.elapsed();
    let mut observed = fixture.observe().await;
    observed.stream.splice(0..0, purged);
    let report = check(ledger, &observed, Order::Serial);
    let mut tally = Tally { recovery, ..Tally::of(set.strikes, &report, dead) };
    tally.complain(
        (!drained).then(|| format!("not drained {DRAIN_DEADLINE:?} after the last fault")),
    );
    tally.complain(lingering(fixture).await);
    tally.complain((report.committed == 0).then(|| "nothing was committed".to_owned()));
    tally
}

/// Waits until no letter is retrying or held. Returns false at the deadline.
async fn wait_for_letters(fixture: &Fixture) -> bool {
    let client = fixture.connect().await;
    let statement = r#"SELECT NOT EXISTS (SELECT FROM "postrider".letter
        WHERE state IN ('held', 'retrying') AND resolved_at IS NULL)"#;
    let end = Instant::now() + DRAIN_DEADLINE;
    while !client.query_one(statement, &[]).await.unwrap().get::<_, bool>(0) {
        if Instant::now() > end {
            return false;
        }
        let_pass(Duration::from_millis(20)).await;
    }
    true
}

/// Complaint about a session of the program that keeps a transaction open, because that stops
/// vacuum. `None` when there is none.
async fn lingering(fixture: &Fixture) -> Option<String> {
    let statement = "SELECT format('%s is %s', application_name, state) FROM pg_stat_activity
        WHERE application_name LIKE 'postrider/%' AND datname = current_database()
        AND (state LIKE 'idle in transaction%' AND state_change < now() - interval '1 s'
            OR xact_start < now() - interval '5 s')";
    let row =
        fixture.connect().await.query_opt(&format!("{statement} LIMIT 1"), &[]).await.unwrap();
    row.map(|row| row.get(0))
}

/// Complains when the program uses too much memory or too many files. Does nothing where `/proc`
/// does not exist.
pub(crate) fn look_at_resources(daemon: &Daemon, tally: &mut Tally) {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let too_much = kib.filter(|kib| *kib > MEMORY_KIB_MAX);
    tally.complain(
        too_much.map(|kib| format!("the program took {kib} KiB, at most {MEMORY_KIB_MAX}")),
    );
    let files = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).map_or(0, Iterator::count);
    tally.complain((files > FILES_MAX).then(|| format!("the program has {files} files open")));
}

/// Waits for a random time between two strikes, uniformly distributed.
pub(crate) async fn pause(set: &mut Set, milliseconds: std::ops::RangeInclusive<u32>) {
    let drawn = set.random.between(*milliseconds.start(), *milliseconds.end());
    let_pass(Duration::from_millis(drawn.into())).await;
}

/// Waits for a random time between two strikes, exponentially distributed, and at most five times
/// the mean.
pub(crate) async fn pause_exponential(set: &mut Set, mean: Duration) {
    let drawn = f64::from(set.random.between(1, 1_000_000)) / 1_000_000.0;
    let_pass(mean.mul_f64(-drawn.ln()).min(mean * 5)).await;
}
