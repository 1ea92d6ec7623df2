//! Settlements: the position, and the letters before it, are written back when they are due.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::warn;

use super::{Ended, FinalPoll, Holding, RETRY, survive};
use crate::{
    clock,
    delivery::Settlement,
    failpoint,
    outbox::{SettleError, Written},
    relay::report::{
        Reporter,
        dead_letters::{self, Answers, LINES_MAX},
    },
};

/// Time for which decided events wait to be settled. A crash before that sends them again under the
/// same ids.
const SETTLE_INTERVAL: Duration = Duration::from_millis(100);

/// Time for which a position that has moved waits to be written when no event is settled with it.
/// For instance, only transactions that wrote to other tables have ended.
const MOVE_INTERVAL: Duration = Duration::from_secs(10);

impl Holding {
    /// The next settlement, or the next part of one that is too large for one statement.
    fn next_settlement(&mut self) -> Option<Settlement> {
        let next = self.unwritten.pop_front().or_else(|| self.delivery.take_settlement())?;
        let (part, rest) = next.divide(self.outbox.letters_max());
        if let Some(rest) = rest {
            self.unwritten.push_front(rest);
        }
        Some(part)
    }

    /// Starts a settlement when it is due.
    pub(super) fn settle(&mut self, now: Instant) {
        if self.settle_due().is_none_or(|due| due > now) {
            return;
        }
        let Some(settlement) = self.next_settlement() else { return };
        self.settle_asked = now;
        let (outbox, authority) = (Arc::clone(&self.outbox), self.authority.clone());
        self.settling.start(async move {
            let (before, after) = if settlement.letters.is_empty() {
                ("settle", "settled")
            } else {
                ("settle-letters", "settled-letters")
            };
            failpoint::pass(before);
            let result = outbox.settle(&settlement, &authority, LINES_MAX).await;
            failpoint::pass(after);
            (settlement, result)
        });
    }

    /// Time of the next settlement; `None` when the position has not moved, or while a settlement
    /// or a healing is in progress.
    pub(in crate::relay) fn settle_due(&self) -> Option<Instant> {
        if !self.settling.is_idle() || self.is_healing() {
            return None;
        }
        if !self.unwritten.is_empty() {
            return Some(self.settle_at);
        }
        if !self.delivery.has_moved() {
            return None;
        }
        if self.final_poll != FinalPoll::NotStopping || self.delivery.is_full() {
            return Some(self.last_settled);
        }
        let wait = if self.delivery.settleable() > 0 { SETTLE_INTERVAL } else { MOVE_INTERVAL };
        Some(self.last_settled + wait)
    }

    /// Absorbs the result of a settlement.
    pub(in crate::relay) fn settled(
        &mut self,
        settlement: Settlement,
        result: &Result<Written, SettleError>,
        report: &mut Reporter,
    ) -> Result<(), Ended> {
        let now = clock::now();
        self.last_settled = now;
        if let Ok(Written { dead, .. }) = result {
            let codes = dead_letters::of_settlement(&settlement);
            report.dead_letters.written(codes, dead, now);
        }
        match result {
            Ok(Written { fence: Some(fence), .. }) if *fence < self.fence => {
                let (now, before) = (fence.0, self.fence.0);
                warn!(
                    now,
                    before,
                    hint = "find out who reset the sequence or restored the database, then run `postrider audit`",
                    "the sequence of outbox.seq was set back; the relay reads again from its settled position"
                );
                Err(Ended::Again)
            }
            Ok(Written { fence, .. }) => {
                self.fence = fence.unwrap_or(self.fence);
                self.lease.confirmed(self.settle_asked, now);
                self.has_written = true;
                self.authority.published = self.authority.published_with(&settlement);
                self.delivery.settled(&settlement);
                report.settled(&settlement);
                Ok(())
            }
            Err(SettleError::Query(error)) => {
                self.answers = Answers::Missing;
                survive("settle", error)?;
                self.unwritten.push_front(settlement);
                self.settle_at = now + RETRY;
                Ok(())
            }
            Err(lost @ SettleError::TermLost { .. }) => Err(Ended::Deposed(lost.to_string())),
        }
    }
}
