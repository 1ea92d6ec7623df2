//! The goals that the benchmark's medians are judged by.

/// Inclusive bound that a median has to keep.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

use Goal::{AtLeast, AtMost};

/// Events per second of an ordered drain, divided by bare publishing with the same client code,
/// headers and sizes.
pub(crate) const DRAIN_RATIO: Goal = AtLeast(0.9);
/// Events per second of an ordered drain, divided by bare publishing, on a cluster that keeps three
/// copies.
pub(crate) const REPLICATED_RATIO: Goal = AtLeast(0.9);
/// Processor time of the relay, in µs per event.
pub(crate) const RELAY_US: Goal = AtMost(3.5);
/// Processor time of the relay's Postgres sessions, in µs per event.
pub(crate) const POSTGRES_US: Goal = AtMost(1.2);
/// Processor time of Postgres, in µs per event of an outbox of which a route takes few.
pub(crate) const FILTERED_US: Goal = AtMost(0.5);
/// Bytes of WAL per event while a backlog is drained.
pub(crate) const WAL_BYTES: Goal = AtMost(1.0);
/// Peak of the relay's resident memory during the drain of a million events, in MiB.
pub(crate) const RESIDENT_MIB: Goal = AtMost(24.0);
/// Events per second when all events belong to one key.
pub(crate) const HOT_KEY_RATE: Goal = AtLeast(50_000.0);
/// Events per second into a broker that syncs each message to disk before it acknowledges.
pub(crate) const FSYNCED_RATE: Goal = AtLeast(50_000.0);
/// Speed of a drain in an aged database, divided by the speed in a fresh one. Aged means many
/// settled and waiting rows, many keys and an open transaction.
pub(crate) const AGED_RATIO: Goal = AtLeast(0.95);
/// Median time from commit to acknowledgement at 200 and 2,000 events per second, in ms.
pub(crate) const LATENCY_MEDIAN_MS: Goal = AtMost(2.0);
/// 99th percentile of the time from commit to acknowledgement at 200 and 2,000 events per second,
/// in ms.
pub(crate) const LATENCY_LATE_MS: Goal = AtMost(10.0);
/// Duration of COMMIT at 2,000 events per second beside a relay, divided by the duration without
/// one.
pub(crate) const COMMIT_RATIO: Goal = AtMost(1.15);
/// Transactions per second of 32 saturating writers on the outbox, divided by those on a plain
/// table with an id.
pub(crate) const WRITERS_RATIO: Goal = AtLeast(0.95);
/// Transactions per second of saturating writers on the outbox, divided by those on an equal table
/// without the wake-up gate.
pub(crate) const GATE_RATIO: Goal = AtLeast(0.95);
/// Transactions per second of 16 saturating writers beside a relay that publishes, divided by those
/// without a relay.
pub(crate) const SHARED_RATIO: Goal = AtLeast(0.74);
/// Transactions per second of unrelated traffic beside an idle relay, divided by those without a
/// relay.
pub(crate) const NEIGHBOURS_RATIO: Goal = AtLeast(0.99);
/// Processor time of `emit()`, divided by that of a plain INSERT into an equal table without the
/// wake-up gate.
pub(crate) const EMIT_RATIO: Goal = AtMost(1.3);
/// Queries per second that an idle relay sends to Postgres.
pub(crate) const IDLE_QUERIES: Goal = AtMost(2.0);
/// Processor time of an idle relay, in percent of a core.
pub(crate) const IDLE_PERCENT: Goal = AtMost(0.2);
/// Seconds from the start of a new process after `kill -9` to its first stored message.
pub(crate) const RESUME_SECONDS: Goal = AtMost(2.0);
/// Events that may be lost or stored twice when the relay is killed: none.
pub(crate) const NONE: Goal = AtMost(0.0);
