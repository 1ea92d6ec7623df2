//! Trust in the lease: when a turn of the loop comes too late to hand anything over.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::turns::Passed;
use crate::relay::{Relay, holding::Holding, report::status::Link};

/// Time after the end of the trust in the lease at which it is reported.
const UNTRUSTED_SAID: Duration = Duration::from_secs(1);

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
        self.say_whether_trusted(holding, now);
    }

    /// Logs and reports that the lease cannot be renewed, so that nothing is published.
    fn say_whether_trusted(&mut self, holding: &Holding, now: Instant) {
        if now < holding.lease.trusted_until() {
            self.report.untrusted_since = None;
            if std::mem::take(&mut self.report.untrusted) {
                info!("the lease is confirmed again; publishing goes on");
                self.status.send_modify(|status| status.postgres = Link::Up);
            }
            return;
        }
        let since = *self.report.untrusted_since.get_or_insert(now);
        if now >= since + UNTRUSTED_SAID && !self.report.untrusted {
            self.report.untrusted = true;
            let detail = "the lease cannot be renewed: postgres does not answer in time".to_owned();
            warn!(error = %detail, "publishing pauses until postgres confirms the lease");
            self.status.send_modify(|status| status.postgres = Link::Down { detail, hint: None });
        }
    }
}
