//! Sent bound: the `seq` up to which a leader may send, recorded first, so that its successor
//! has it.

use crate::{delivery::Delivery, event::Seq};

/// Distance, in `seq`, of a newly recorded bound from the highest row that was read. The next run
/// scans for no row above the bound. At the bound, sending waits until the database has recorded a
/// higher one.
#[cfg(not(test))]
const SENT_AHEAD: i64 = 131_072;
#[cfg(test)]
const SENT_AHEAD: i64 = 8;

impl Delivery {
    /// Whether rows were read above the recorded bound. Then no event is sent before a higher bound
    /// is recorded.
    pub fn is_beyond_sent_to(&self) -> bool {
        self.read_to > self.sent_to
    }

    /// Whether the rows that were read come near the recorded bound. Then a higher bound should be
    /// recorded, before sending has to wait for it.
    pub fn is_bound_near(&self) -> bool {
        self.read_to.0.saturating_add(SENT_AHEAD / 2) > self.sent_to.0
    }

    /// Next sent bound to record: the highest `seq` that may be sent then, inclusive.
    pub fn next_sent_to(&self) -> Seq {
        Seq(self.read_to.0.saturating_add(SENT_AHEAD)).max(self.sent_to)
    }

    /// Notes that the database has recorded this sent bound durably.
    pub fn bound_recorded(&mut self, sent_to: Seq) {
        self.sent_to = self.sent_to.max(sent_to);
    }

    /// Requires a scan for every uncertain event before it is sent again, because the age of its
    /// message is not known.
    pub fn require_scan(&mut self) {
        self.lanes.require_scan();
    }
}
