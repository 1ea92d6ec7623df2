//! Lateness of a turn of the loop, and its consequence: the lease is confirmed before another
//! message is handed over.

use std::time::Instant;

use tracing::info;

use super::turns::Passed;
use crate::relay::{Relay, holding::Holding};

impl Relay {
    /// Ends the trust in the lease after a late turn. After a stand-still it also gives up the
    /// connection to the broker, after a jump of the clock it requires a scan.
    pub(in crate::relay) fn note_lateness(
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
                    "the clock of this machine jumped; the stream is scanned before uncertain events are sent again"
                );
                holding.lease.distrust(now);
                holding.delivery.require_scan();
            }
        }
    }
}
