//! Fetching of rows: starts a reading of the outbox when there is room, and admits its rows.

use std::{sync::Arc, time::Instant};

use super::{
    Ended, FinalPoll, Holding, RETRY,
    reader::{ReadResult, Reading, Start},
    survive,
};
use crate::{clock, failpoint, outbox::PageLimits, pg::error::QueryError, relay::report::Reporter};

impl Holding {
    /// Starts a reading of the outbox when it is due and there is room for rows.
    pub(in crate::relay) fn fetch(&mut self, limits: PageLimits, now: Instant) {
        if !self.can_fetch() || !self.reader.is_due(now) {
            return;
        }
        let limits = self.within_room(limits);
        let cursor = self.delivery.cursor();
        if self.final_poll == FinalPoll::Wanted && cursor.is_complete() {
            self.final_poll = FinalPoll::Reading;
        }
        let outbox = Arc::clone(&self.outbox);
        self.fetching.start(self.reader.read(
            outbox,
            Start { cursor, fence: self.fence },
            limits,
            now,
        ));
    }

    /// Whether a reading may start as soon as its time has come. It may not while blocked keys are
    /// still being loaded, another reading is in progress or there is no room for rows, and not
    /// after the last poll of a stopping relay.
    fn can_fetch(&self) -> bool {
        let knows_keys = self.letters.has_loaded_blocked_keys();
        knows_keys
            && self.fetching.is_idle()
            && self.final_poll != FinalPoll::Done
            && self.delivery.room().events > 0
    }

    /// Absorbs the result of a reading, and admits its rows.
    pub(in crate::relay) fn fetched(
        &mut self,
        reading: Result<Reading, QueryError>,
        report: &Reporter,
    ) -> Result<(), Ended> {
        let now = clock::now();
        let reading = match reading {
            Ok(reading) => reading,
            Err(error) => {
                survive("read the outbox", &error)?;
                self.reader.retry_at(now + RETRY);
                return Ok(());
            }
        };
        self.lease.heard(self.reader.began(), now);
        let ReadResult { begin, page } = self.reader.absorb(reading, now);
        if let Some((target, floor)) = begin {
            self.delivery.begin(target, floor);
        }
        let mut complete = true;
        if let Some(page) = page {
            let rows = page.events.len();
            complete = page.complete;
            self.delivery.admit(page.events);
            if rows > 0 {
                report.metrics.outbox.fetched(rows);
                failpoint::pass("fetched");
            }
            if let Some(to) = page.read_to {
                self.delivery.filtered_to(to);
            }
            if complete {
                self.delivery.exhausted();
            }
        }
        if complete && self.final_poll == FinalPoll::Reading {
            self.final_poll = FinalPoll::Done;
        }
        Ok(())
    }

    /// Time of the next reading; `None` while no reading may start, for instance because memory is
    /// full.
    pub(in crate::relay) fn read_due(&self) -> Option<Instant> {
        self.can_fetch().then(|| self.reader.next())
    }
}
