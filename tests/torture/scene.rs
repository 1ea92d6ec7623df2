//! What every fault plays in: servers, the program under load, and the check when all is at rest.

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

/// From the end of the last fault to the last settlement.
const DRAIN_DEADLINE: Duration = Duration::from_mins(1);

/// Its sessions, its connection to NATS, its log and what the runtime needs.
const FILES_MAX: usize = 48;

/// 64 MiB and twice the 32 MiB that may be on their way.
const MEMORY_KIB_MAX: u64 = 128 * 1024;

/// The program with the fixture's configuration. Every fault makes it warn, and none may make it
/// say ERROR or panic; what the client library calls an error, the program recovers from.
pub(crate) fn daemon(fixture: &Fixture) -> DaemonBuilder {
    fixture.daemon().allow_log(" WARN ")
}

/// Events without end, at a rate that leaves the machine time for the faults.
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

/// Writes events for as long as the strikes last.
pub(crate) async fn under_load<T>(
    fixture: &Fixture,
    options: Options,
    strikes: impl Future<Output = T>,
) -> (Ledger, T) {
    work_during(fixture.workload(options), Box::pin(strikes)).await
}

/// The fault is over: waits until all is settled, and compares.
pub(crate) async fn conclude(fixture: &Fixture, ledger: &Ledger, set: &Set) -> Tally {
    conclude_with(fixture, ledger, set, (0, Vec::new())).await
}

/// As [`conclude`], where so many events could never be published.
pub(crate) async fn conclude_with_dead(
    fixture: &Fixture,
    ledger: &Ledger,
    set: &Set,
    dead: u64,
) -> Tally {
    conclude_with(fixture, ledger, set, (dead, Vec::new())).await
}

/// As [`conclude`], where the stream does not have these any more, which it had before the rest.
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

/// Waits until no event is to be tried again any more, or the deadline is over.
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

/// Complains about a session of the program that keeps a transaction open: no vacuum gets past it.
async fn lingering(fixture: &Fixture) -> Option<String> {
    let statement = "SELECT format('%s is %s', application_name, state) FROM pg_stat_activity
        WHERE application_name LIKE 'postrider/%' AND datname = current_database()
        AND (state LIKE 'idle in transaction%' AND state_change < now() - interval '1 s'
            OR xact_start < now() - interval '5 s')";
    let row =
        fixture.connect().await.query_opt(&format!("{statement} LIMIT 1"), &[]).await.unwrap();
    row.map(|row| row.get(0))
}

/// Complains about a program that took too much memory or too many files, where the system says.
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

/// A moment between two strikes, drawn evenly.
pub(crate) async fn pause(set: &mut Set, milliseconds: std::ops::RangeInclusive<u32>) {
    let drawn = set.random.between(*milliseconds.start(), *milliseconds.end());
    let_pass(Duration::from_millis(drawn.into())).await;
}

/// A moment between two strikes, drawn as those of events that know nothing of each other.
pub(crate) async fn pause_exponential(set: &mut Set, mean: Duration) {
    let drawn = f64::from(set.random.between(1, 1_000_000)) / 1_000_000.0;
    let_pass(mean.mul_f64(-drawn.ln()).min(mean * 5)).await;
}
