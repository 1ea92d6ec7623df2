//! Trust in the lease: when a turn of the loop comes too late to hand anything over.

use std::time::Instant;

use tracing::info;

use super::turns::Passed;
use crate::relay::{Relay, holding::Holding};

impl Relay {
    /// Draws the consequences of a turn that comes late.
    pub(in crate::relay) fn take_note_of(
        &mut self,
        holding: &mut Holding,
        passed: Passed,
        now: Instant,
    ) {
        match passed {
            Passed::AsPlanned => {}
            Passed::Late => holding.lease.distrust(now),
            Passed::StoodStill(length) => {
                info!(
                    seconds = length.as_secs_f64(),
                    "the process stood still; publishing goes on once the lease is confirmed"
                );
                holding.lease.distrust(now);
                self.log.abandon_connection();
            }
            Passed::Jumped => {
                info!(
                    "the time of day jumped; what may be stored is scanned for before it goes again"
                );
                holding.lease.distrust(now);
                holding.delivery.require_scan();
            }
        }
    }
}
