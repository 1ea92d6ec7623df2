//! The matrix: every fault, in the order in which it is run and told.

mod broker;
mod chaos;
mod cluster;
mod daemon;
mod network;
mod postgres;
mod surroundings;

use super::fault::Fault;

/// All faults.
pub(crate) fn all() -> Vec<Fault> {
    [
        daemon::FAULTS,
        postgres::FAULTS,
        network::FAULTS,
        broker::FAULTS,
        cluster::FAULTS,
        surroundings::FAULTS,
        chaos::FAULTS,
    ]
    .concat()
}
