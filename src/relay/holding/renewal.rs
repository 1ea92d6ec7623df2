//! Renewal of the lease, and of the bound up to which rows may be sent.

use std::{sync::Arc, time::Instant};

use super::{Ended, Holding, RETRY, survive};
use crate::{clock, event::Seq, outbox::SettleError};

/// Renewal of the lease in progress.
#[derive(Debug, Clone, Copy)]
pub(in crate::relay) struct Renewal {
    /// When the renewal was sent.
    asked: Instant,
    /// Bound that the renewal records.
    sent_to: Seq,
}

impl Holding {
    /// Starts renewing the lease when that is due, or when the rows in memory come near the bound
    /// up to which rows may be sent.
    pub(in crate::relay) fn renew(&mut self, now: Instant) {
        if self.renew_due().is_none_or(|due| due > now) {
            return;
        }
        let renewal = Renewal { asked: now, sent_to: self.delivery.next_sent_to() };
        let (outbox, authority) = (Arc::clone(&self.outbox), self.authority.clone());
        self.renewing
            .start(async move { (renewal, outbox.renew(&authority, renewal.sent_to).await) });
    }

    /// Time of the next renewal, unless a settlement renews the lease before.
    pub(in crate::relay) fn renew_due(&self) -> Option<Instant> {
        // A healing locks the position's row, and nothing is published meanwhile.
        if !self.renewing.is_idle() || self.is_healing() {
            return None;
        }
        let at_once = self.delivery.is_bound_near();
        Some(if at_once {
            self.lease.not_before(self.reader.began())
        } else {
            self.lease.renew_due()
        })
    }

    /// Absorbs the result of a renewal.
    pub(in crate::relay) fn renewed(
        &mut self,
        renewal: Renewal,
        result: Result<(), SettleError>,
    ) -> Result<(), Ended> {
        let now = clock::now();
        match result {
            Ok(()) => {
                self.lease.confirmed(renewal.asked, now);
                self.delivery.bound_recorded(renewal.sent_to);
                Ok(())
            }
            Err(SettleError::Query(error)) => {
                survive("renew the lease", &error)?;
                self.lease.retry_at(now + RETRY);
                Ok(())
            }
            Err(lost @ SettleError::TermLost { .. }) => Err(Ended::Deposed(lost.to_string())),
        }
    }
}
