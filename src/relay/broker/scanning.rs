//! When the stream is scanned for events of ours, and what came of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::info;

use super::{Broker, VERIFY, closure_of};
use crate::{
    broker::Keeps,
    delivery::Closure,
    outbox::Outbox,
    pg::error::QueryError,
    relay::{
        scan::{self, Progress, ScanError, Scanned},
        status::GateStatus,
    },
};

/// A scan that takes longer is shown in the status.
const SCAN_TOLD_AFTER: Duration = Duration::from_secs(2);

/// Why a scan came to nothing.
pub(in crate::relay) enum NotScanned {
    /// The stream cannot be read, so nothing goes.
    Stream(Closure),
    /// The outbox cannot be asked.
    Outbox(QueryError),
}

impl Broker {
    pub(super) fn look_due(&self) -> Option<Instant> {
        let wanted = self.is_verified() && self.look_above.is_some() && self.looking.is_idle();
        self.look_at.filter(|_| wanted)
    }

    /// Something may be in the stream, and it is uncertain whether: nothing goes before a look.
    pub(in crate::relay) fn want_look(&mut self, above: u64, now: Instant) {
        self.look_above = Some(self.look_above.map_or(above, |before| before.min(above)));
        self.look_at.get_or_insert(now);
    }

    /// Scans the stream when that is wanted, and time to.
    pub(in crate::relay) fn look(&mut self, outbox: &Arc<Outbox>, now: Instant) {
        if self.look_due().is_none_or(|at| at > now) {
            return;
        }
        let Some(above) = self.look_above else { return };
        let Some(scan) = self.sink.scan(above) else { return };
        let outbox = Arc::clone(outbox);
        let progress = Arc::new(Progress::default());
        self.scan = Some((Arc::clone(&progress), now));
        self.looking.start(scan::scan(scan, outbox, progress));
    }

    /// Takes in what a scan of the stream gave.
    pub(in crate::relay) fn looked(
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
                    "the stream removes what is consumed, so it is not scanned for what may have \
                     been sent before: its duplicate window alone keeps that from being stored twice"
                );
                Ok(scanned)
            }
            Ok(scanned) => {
                self.scanned();
                info!(
                    messages = scanned.messages,
                    ours = scanned.found.len(),
                    last_seq = scanned.last_seq,
                    "looked into the stream for what may have been sent before"
                );
                Ok(scanned)
            }
            Err(ScanError::Outbox(error)) => {
                self.look_at = Some(now + VERIFY.longest);
                Err(NotScanned::Outbox(error))
            }
            Err(ScanError::Stream(error)) => {
                self.failures += 1;
                self.look_at = Some(now + VERIFY.after(self.failures));
                Err(NotScanned::Stream(closure_of(&error)))
            }
        }
    }

    fn scanned(&mut self) {
        self.look_above = None;
        self.look_at = None;
        self.failures = 0;
    }

    /// How far a scan is that has kept events waiting for a while.
    pub(in crate::relay) fn scan_status(&self, now: Instant) -> Option<GateStatus> {
        let (progress, since) = self.scan.as_ref()?;
        (now.duration_since(*since) >= SCAN_TOLD_AFTER).then(|| GateStatus {
            kind: "scanning",
            text: progress.text(),
            hint: "nothing: events flow as soon as the scan is done".to_owned(),
            since: *since,
        })
    }
}
