//! Schedule of scans: when the log is scanned, and what follows from the result.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::{
    BrokerLog,
    scan::{self, ScanError, ScanProgress, Scanned},
    verification::{VERIFY, closure_of},
};
use crate::{
    broker::Keeps,
    clock,
    delivery::Closure,
    failpoint,
    outbox::Outbox,
    pg::error::QueryError,
    relay::{
        Relay,
        holding::{Ended, Holding, survive},
        report::status::GateStatus,
    },
};

/// Duration of a scan from which the status shows it, inclusive.
const SCAN_SHOWN_AFTER: Duration = Duration::from_secs(2);

/// Failure of a scan.
pub(in crate::relay) enum NotScanned {
    /// The stream cannot be read, so nothing is published.
    Stream(Closure),
    /// The outbox cannot be asked.
    Outbox(QueryError),
}

impl BrokerLog {
    pub(in crate::relay) fn scan_due(&self) -> Option<Instant> {
        let wanted = self.is_verified() && self.scan_above.is_some() && self.scanning.is_idle();
        self.scan_at.filter(|_| wanted)
    }

    /// Requires a scan before anything else is published, because the stream may contain an event
    /// without our knowing.
    pub(in crate::relay) fn require_scan_above(&mut self, above: u64, now: Instant) {
        self.scan_above = Some(self.scan_above.map_or(above, |before| before.min(above)));
        self.scan_at.get_or_insert(now);
    }

    /// Starts a scan that is due.
    pub(in crate::relay) fn start_scan(&mut self, outbox: &Arc<Outbox>, now: Instant) {
        if self.scan_due().is_none_or(|at| at > now) {
            return;
        }
        let Some(above) = self.scan_above else { return };
        let Some(scan) = self.sink.scan(above) else { return };
        let outbox = Arc::clone(outbox);
        let progress = Arc::new(ScanProgress::default());
        self.scan = Some((Arc::clone(&progress), now));
        self.scanning.start(scan::scan(scan, outbox, progress));
    }

    /// Absorbs the result of a scan: a complete scan is no longer due, a failed one is due again
    /// later.
    pub(in crate::relay) fn take_scan(
        &mut self,
        result: Result<Scanned, ScanError>,
        now: Instant,
    ) -> Result<Scanned, NotScanned> {
        self.scan = None;
        match result {
            Ok(scanned) if scanned.keeps == Keeps::OutOfReach => {
                self.scanned();
                Ok(scanned)
            }
            Ok(scanned) if scanned.keeps == Keeps::UntilConsumed => {
                self.scanned();
                info!(
                    last_seq = scanned.last_seq,
                    "the stream removes consumed messages, so it is not scanned; its duplicate window alone \
                     keeps it from storing an event twice"
                );
                Ok(scanned)
            }
            Ok(scanned) => {
                self.scanned();
                info!(
                    messages = scanned.messages,
                    ours = scanned.found.len(),
                    last_seq = scanned.last_seq,
                    "scanned the stream for events that it may contain already"
                );
                Ok(scanned)
            }
            Err(ScanError::Outbox(error)) => {
                self.scan_at = Some(now + VERIFY.longest);
                Err(NotScanned::Outbox(error))
            }
            Err(ScanError::Stream(error)) => {
                self.failures += 1;
                self.scan_at = Some(now + VERIFY.after(self.failures));
                Err(NotScanned::Stream(closure_of(&error)))
            }
        }
    }

    fn scanned(&mut self) {
        self.scan_above = None;
        self.scan_at = None;
        self.failures = 0;
    }

    /// Progress of a scan that has kept events waiting for a while.
    pub(in crate::relay) fn scan_status(&self, now: Instant) -> Option<GateStatus> {
        let (progress, since) = self.scan.as_ref()?;
        (now.duration_since(*since) >= SCAN_SHOWN_AFTER).then(|| GateStatus {
            kind: "scanning",
            text: progress.text(),
            hint: "nothing: events flow as soon as the scan is done".to_owned(),
            since: *since,
        })
    }
}

impl Relay {
    /// Absorbs the result of a scan, and closes the publishing gate when the stream cannot be read.
    pub(in crate::relay) fn scanned(
        &mut self,
        holding: &mut Holding,
        scanned: Result<Scanned, ScanError>,
    ) -> Result<(), Ended> {
        let now = clock::now();
        match self.log.take_scan(scanned, now) {
            Ok(Scanned { began, found, last_seq, forgotten, .. }) => {
                if forgotten > 0 {
                    warn!(
                        forgotten,
                        "the stream contains more of our events than the relay remembers; the oldest of \
                         them may be stored twice"
                    );
                }
                holding.delivery.take_scan_result(found, last_seq, began);
                self.report.dead_events(&mut holding.delivery);
                failpoint::pass("scanned");
            }
            Err(NotScanned::Stream(closure)) => self.close_gate(holding, closure, now),
            Err(NotScanned::Outbox(error)) => survive("ask which messages are ours", &error)?,
        }
        Ok(())
    }
}
