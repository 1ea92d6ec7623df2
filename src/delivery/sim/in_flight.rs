//! Messages and batches in flight in the simulation.

use std::time::Instant;

use crate::delivery::{BatchKind, Ticket};

/// A message in flight. It arrives within `LATE_MAX` milliseconds or never. After that time the
/// relay no longer waits for its answer.
pub(super) struct InFlight {
    pub(super) ticket: Ticket,
    pub(super) seq: i64,
    pub(super) at: Instant,
    pub(super) given_up: bool,
}

/// A batch in flight. It arrives within `LATE_MAX` milliseconds or never, as a single message does.
pub(super) struct InFlightBatch {
    pub(super) kind: BatchKind,
    pub(super) tickets: Vec<Ticket>,
    pub(super) seqs: Vec<i64>,
    pub(super) at: Instant,
    pub(super) given_up: bool,
}
