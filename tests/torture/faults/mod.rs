//! The matrix: every fault, in the order in which it is run and told.

mod broker;
mod cluster;
mod daemon;
mod network;
mod postgres;

use super::fault::Fault;

/// All faults.
pub(crate) fn all() -> Vec<Fault> {
    [daemon::FAULTS, postgres::FAULTS, network::FAULTS, broker::FAULTS, cluster::FAULTS].concat()
}
