//! What the medians have to reach, all in one place.

/// What a median has to reach.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

use Goal::{AtLeast, AtMost};

/// An ordered drain, divided by bare publishing with the same client code, headers and sizes.
pub(crate) const DRAIN_RATIO: Goal = AtLeast(0.9);
/// The same on a cluster that keeps three copies.
pub(crate) const REPLICATED_RATIO: Goal = AtLeast(0.9);
/// Processor time of the relay, µs an event.
pub(crate) const RELAY_US: Goal = AtMost(3.5);
/// Processor time of the relay's sessions, µs an event.
pub(crate) const POSTGRES_US: Goal = AtMost(1.2);
/// Processor time of Postgres, µs for an event that a route leaves out.
pub(crate) const FILTERED_US: Goal = AtMost(0.5);
/// Bytes of WAL an event while a backlog is drained.
pub(crate) const WAL_BYTES: Goal = AtMost(1.0);
/// MiB that were ever resident during a drain of a million.
pub(crate) const RESIDENT_MIB: Goal = AtMost(24.0);
/// Events a second of one single key.
pub(crate) const HOT_KEY_RATE: Goal = AtLeast(50_000.0);
/// Events a second into a broker that syncs before it acknowledges.
pub(crate) const FSYNCED_RATE: Goal = AtLeast(50_000.0);
/// A drain beside much that is settled, more that waits, many keys and an open transaction, divided
/// by one that has nothing of that.
pub(crate) const AGED_RATIO: Goal = AtLeast(0.95);
/// From commit to ack at 200 and 2,000 events a second, ms.
pub(crate) const LATENCY_MEDIAN_MS: Goal = AtMost(2.0);
/// The same of the 99th of a hundred.
pub(crate) const LATENCY_LATE_MS: Goal = AtMost(10.0);
/// COMMIT at 2,000 events a second with a relay, divided by one without.
pub(crate) const COMMIT_RATIO: Goal = AtMost(1.15);
/// 32 saturating writers on the outbox, divided by an id-only table.
pub(crate) const WRITERS_RATIO: Goal = AtLeast(0.95);
/// Saturating writers on the outbox, divided by its twin without the wake-up gate.
pub(crate) const GATE_RATIO: Goal = AtLeast(0.95);
/// 16 saturating writers beside a relay that works, divided by the same alone.
pub(crate) const SHARED_RATIO: Goal = AtLeast(0.74);
/// Unrelated traffic beside an idle relay, divided by the same alone.
pub(crate) const NEIGHBOURS_RATIO: Goal = AtLeast(0.99);
/// `emit()`, divided by a plain INSERT into an equal table.
pub(crate) const EMIT_RATIO: Goal = AtMost(1.3);
/// Queries a second of an idle relay.
pub(crate) const IDLE_QUERIES: Goal = AtMost(2.0);
/// Percent of a core that an idle relay takes.
pub(crate) const IDLE_PERCENT: Goal = AtMost(0.2);
/// Seconds from the start of a new process to the first message of its own.
pub(crate) const RESUME_SECONDS: Goal = AtMost(2.0);
/// Events that a kill may cost, or double.
pub(crate) const NONE: Goal = AtMost(0.0);
