//! How far a leader may send: a bound that it writes down before, so that the next one knows it.

use super::Delivery;
use crate::event::Seq;

/// How far ahead of the rows that were read a leader writes down that it may send, in `seq`. A run
/// after it scans for no row above that; at the bound sending waits for the database.
#[cfg(not(test))]
const SENT_AHEAD: i64 = 131_072;
#[cfg(test)]
const SENT_AHEAD: i64 = 8;

impl Delivery {
    /// Whether rows were read above the bound that the database knows: nothing goes before it knows a
    /// higher one.
    pub fn is_beyond_sent_to(&self) -> bool {
        self.read_to > self.sent_to
    }

    /// Whether it is time to write a higher bound down, so that sending need not wait for it.
    pub fn wants_bound(&self) -> bool {
        self.read_to.0.saturating_add(SENT_AHEAD / 2) > self.sent_to.0
    }

    /// The bound to write down next: up to which `seq` rows may be sent.
    pub fn wanted_sent_to(&self) -> Seq {
        Seq(self.read_to.0.saturating_add(SENT_AHEAD)).max(self.sent_to)
    }

    /// The database knows this bound now, and does not forget it in a crash.
    pub fn may_send_to(&mut self, sent_to: Seq) {
        self.sent_to = self.sent_to.max(sent_to);
    }

    /// Everything that may be in the stream without our knowing has to be scanned for before it
    /// goes again: it is not known how long ago it was sent.
    pub fn expire_doubt(&mut self) {
        self.lanes.expire_doubt();
    }
}
