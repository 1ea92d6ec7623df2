//! What an earlier run may have sent, and this one has not read yet.

use std::time::{Duration, Instant};

use crate::event::Seq;

/// Whether an earlier run may have sent some of what is not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earlier {
    /// There was none.
    None,
    /// There was one.
    Some {
        /// Inclusive upper bound for the `seq` of rows that the earlier run has sent.
        sent_to: Seq,
    },
    /// There was none of this relay, and others may have published any row.
    OfOthers,
    /// There was one, and besides what it may have sent any row may be in the stream: others may
    /// have published it, or it is read again to heal the stream.
    Anything {
        /// It can have sent no row with a higher `seq`.
        sent_to: Seq,
    },
}

/// Rows and letters that an earlier run may have sent, for as long as some of them may be unread.
#[derive(Debug)]
pub(super) struct Before {
    /// What of them is stored is above this.
    stream_floor: u64,
    /// When the log was last scanned for them.
    scanned_at: Instant,
    /// Scans have read the stream up to this sequence, inclusive; 0 before the first.
    scanned_to: u64,
    /// When this run began: the earlier one had ended.
    began: Instant,
    /// The highest `seq` that may have been sent before.
    sent_to: Seq,
    /// Any row may be in the stream: a scan tells up to which `seq` some are, and the earlier run
    /// may have sent up to this one.
    anything: Option<Seq>,
    rows: Rows,
    letters_read: bool,
}

/// How far the rows are read that were visible to an earlier run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    /// Its last target is read on.
    OfItsTarget,
    /// A target was begun that shows all of them.
    OfOurs,
    Read,
}

impl Before {
    pub(super) fn of(earlier: Earlier, stream_floor: u64, now: Instant) -> Self {
        // Until a scan has told.
        let unknown = Seq(i64::MAX);
        match earlier {
            Earlier::None => Self::nothing(now),
            Earlier::Some { sent_to } => Self::new(stream_floor, sent_to, now),
            Earlier::OfOthers => Self {
                anything: Some(Seq(0)),
                letters_read: true,
                ..Self::new(stream_floor, unknown, now)
            },
            Earlier::Anything { sent_to } => {
                Self { anything: Some(sent_to), ..Self::new(stream_floor, unknown, now) }
            }
        }
    }

    fn new(stream_floor: u64, sent_to: Seq, now: Instant) -> Self {
        Self {
            stream_floor,
            scanned_at: now,
            scanned_to: 0,
            began: now,
            sent_to,
            anything: None,
            rows: Rows::OfItsTarget,
            letters_read: false,
        }
    }

    /// There was no earlier run.
    fn nothing(now: Instant) -> Self {
        Self { rows: Rows::Read, letters_read: true, ..Self::new(0, Seq(0), now) }
    }

    /// A scan that began at `at` has gone on from the last one up to the sequence `stream_seq`.
    /// `found_to` is the highest `seq` of ours that it has found.
    pub(super) fn scanned(&mut self, at: Instant, found_to: Seq, stream_seq: u64) {
        self.scanned_at = at;
        self.scanned_to = self.scanned_to.max(stream_seq);
        if let Some(sent_to) = &mut self.anything {
            // What an earlier scan has found counts on.
            *sent_to = found_to.max(*sent_to);
            self.sent_to = *sent_to;
        }
    }

    /// Inclusive upper bound for the sequences that scans have read; 0 before the first.
    pub(super) fn scanned_to(&self) -> u64 {
        self.scanned_to
    }

    /// A target was begun.
    pub(super) fn begun(&mut self) {
        if self.rows == Rows::OfItsTarget {
            self.rows = Rows::OfOurs;
        }
    }

    /// A row was read.
    pub(super) fn read(&mut self, seq: Seq) {
        // Of one target rows come in the order of their seq; late ones of its target come in ours.
        if self.rows == Rows::OfOurs && seq > self.sent_to {
            self.rows = Rows::Read;
        }
    }

    /// The last row of a target was read.
    pub(super) fn exhausted(&mut self) {
        if self.rows == Rows::OfOurs {
            self.rows = Rows::Read;
        }
    }

    /// All letters that were due were read.
    pub(super) fn letters_read(&mut self) {
        self.letters_read = true;
    }

    /// Above which stream sequence what is read now is stored, if it is; `None` when nothing that is
    /// read now can be from an earlier run.
    pub(super) fn stream_floor(&self) -> Option<u64> {
        self.may_come().then_some(self.stream_floor)
    }

    /// Since when what is read now may be in the stream without our knowing.
    pub(super) fn uncertain_since(&self) -> Option<Instant> {
        self.may_come().then_some(self.scanned_at)
    }

    /// When a scan of the stream finds all that an earlier run has sent, if the last one was too early:
    /// a message may be on its way for `late_max`.
    pub(super) fn conclusive_at(&self, late_max: Duration) -> Option<Instant> {
        let at = self.began + late_max;
        (self.may_come() && self.scanned_at < at).then_some(at)
    }

    /// Whether an earlier run may have sent the row with this `seq`.
    pub(super) fn may_have_sent(&self, seq: Seq) -> bool {
        seq <= self.sent_to
    }

    /// Whether something of an earlier run may still be read.
    pub(super) fn may_come(&self) -> bool {
        self.rows != Rows::Read || !self.letters_read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second scan reads only what came since the first, so what it has not found says nothing
    /// about the rows that the first has.
    #[test]
    fn a_scan_that_goes_on_takes_back_nothing_of_what_one_before_has_found() {
        let now = Instant::now();
        let mut before = Before::of(Earlier::OfOthers, 3, now);
        assert!(before.may_have_sent(Seq(i64::MAX)));
        before.scanned(now, Seq(70), 500);
        before.scanned(now, Seq(9), 520);
        before.begun();
        before.read(Seq(70));
        assert!(before.may_have_sent(Seq(70)) && before.may_come());
        assert!(!before.may_have_sent(Seq(71)));
        assert_eq!(before.scanned_to(), 520);
        before.read(Seq(71));
        assert!(!before.may_come());
    }
}
