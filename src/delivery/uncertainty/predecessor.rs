//! Predecessor: the rows and letters that an earlier run may have sent and this run has not read.

use std::time::{Duration, Instant};

use crate::event::Seq;

/// Earlier run that may have sent unsettled rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarlierRun {
    /// No earlier run.
    None,
    /// An earlier run of this relay.
    Some {
        /// Inclusive upper bound for the `seq` of rows that the earlier run has sent.
        sent_to: Seq,
    },
    /// No earlier run of this relay, but other relays may have published any row.
    OtherRelays,
    /// An earlier run of this relay, and any other row may be in the log too. Other relays may
    /// have published it, or it is read again to heal the log.
    AnyRow {
        /// Inclusive upper bound for the `seq` of rows that the earlier run has sent.
        sent_to: Seq,
    },
}

/// Rows and letters that an earlier run may have sent, for as long as some of them may be unread.
#[derive(Debug)]
pub(in crate::delivery) struct Predecessor {
    /// Exclusive lower bound for the stream sequences of messages that the earlier run has sent and
    /// not settled.
    stream_floor: u64,
    /// Time of the last scan for events of the earlier run; the start of this run before the first
    /// scan.
    scanned_at: Instant,
    /// Inclusive upper bound for the stream sequences that scans have read; 0 before the first
    /// scan.
    scanned_to: u64,
    /// Start of this run. The earlier run had ended by then.
    began: Instant,
    /// Highest `seq` of a row that an earlier run, or another relay, may have sent.
    sent_to: Seq,
    /// Highest `seq` that the log may contain, by the earlier run's sent bound and all scans.
    /// `None` if only rows up to that bound can be in the log.
    any_row: Option<Seq>,
    rows: Rows,
    letters_read: bool,
}

/// Progress of reading the rows that were visible to an earlier run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    /// This run still reads the rows of the last target that the earlier run took.
    ItsTarget,
    /// This run reads the first target of its own. That target has every unread row that the
    /// earlier run could see.
    OurTarget,
    AllRead,
}

impl Predecessor {
    pub(in crate::delivery) fn of(earlier: EarlierRun, stream_floor: u64, now: Instant) -> Self {
        // Where rows above the sent bound may be in the log, only a scan shows which. Until the
        // first scan every row counts as possibly sent.
        let unknown = Seq(i64::MAX);
        match earlier {
            EarlierRun::None => Self::nothing(now),
            EarlierRun::Some { sent_to } => Self::new(stream_floor, sent_to, now),
            EarlierRun::OtherRelays => Self {
                any_row: Some(Seq(0)),
                letters_read: true,
                ..Self::new(stream_floor, unknown, now)
            },
            EarlierRun::AnyRow { sent_to } => {
                Self { any_row: Some(sent_to), ..Self::new(stream_floor, unknown, now) }
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
            any_row: None,
            rows: Rows::ItsTarget,
            letters_read: false,
        }
    }

    /// State for a relay that has no earlier run: nothing was sent.
    fn nothing(now: Instant) -> Self {
        Self { rows: Rows::AllRead, letters_read: true, ..Self::new(0, Seq(0), now) }
    }

    /// Notes a scan that began at `at`. It went on where the scan before it ended, and has read up
    /// to the stream sequence `stream_seq`. `found_to` is the highest `seq` that it has found.
    pub(in crate::delivery) fn scanned(&mut self, at: Instant, found_to: Seq, stream_seq: u64) {
        self.scanned_at = at;
        self.scanned_to = self.scanned_to.max(stream_seq);
        if let Some(sent_to) = &mut self.any_row {
            // A later scan does not repeat what an earlier one has read, so the highest `seq` of
            // all scans counts.
            *sent_to = found_to.max(*sent_to);
            self.sent_to = *sent_to;
        }
    }

    /// Inclusive upper bound for the stream sequences that scans have read; 0 before the first
    /// scan.
    pub(in crate::delivery) fn scanned_to(&self) -> u64 {
        self.scanned_to
    }

    /// Notes that a target was begun.
    pub(in crate::delivery) fn target_begun(&mut self) {
        if self.rows == Rows::ItsTarget {
            self.rows = Rows::OurTarget;
        }
    }

    /// Notes that this run has read the row with this `seq`.
    pub(in crate::delivery) fn row_read(&mut self, seq: Seq) {
        // The rows of a target come in the order of `seq`. Rows that became visible too late for
        // the earlier run's target come in the next one, which this run takes.
        if self.rows == Rows::OurTarget && seq > self.sent_to {
            self.rows = Rows::AllRead;
        }
    }

    /// Notes that the last row of a target was read.
    pub(in crate::delivery) fn target_exhausted(&mut self) {
        if self.rows == Rows::OurTarget {
            self.rows = Rows::AllRead;
        }
    }

    /// Notes that this run has loaded all letters that were due.
    pub(in crate::delivery) fn letters_read(&mut self) {
        self.letters_read = true;
    }

    /// Exclusive lower bound for the stream sequence of any event read from now on that an earlier
    /// run may already have published. `None` once no such event can appear.
    pub(in crate::delivery) fn stream_floor(&self) -> Option<u64> {
        self.may_appear().then_some(self.stream_floor)
    }

    /// Time since which an event that is read now may be in the log without our knowing. `None`
    /// once no such event can appear.
    pub(in crate::delivery) fn uncertain_since(&self) -> Option<Instant> {
        self.may_appear().then_some(self.scanned_at)
    }

    /// Earliest time of a scan that finds all messages of an earlier run; they arrive within
    /// `late_max`. `None` once such a scan was made.
    pub(in crate::delivery) fn conclusive_at(&self, late_max: Duration) -> Option<Instant> {
        let at = self.began + late_max;
        (self.may_appear() && self.scanned_at < at).then_some(at)
    }

    /// Whether an earlier run may have sent the row with this `seq`.
    pub(in crate::delivery) fn may_have_sent(&self, seq: Seq) -> bool {
        seq <= self.sent_to
    }

    /// Whether this run may still read a row or letter that an earlier run may have sent.
    pub(in crate::delivery) fn may_appear(&self) -> bool {
        self.rows != Rows::AllRead || !self.letters_read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second scan reads only what the log has stored since the first one. So it must not lower
    /// the bound that the first one has raised.
    #[test]
    fn a_scan_that_goes_on_takes_back_nothing_of_what_one_before_has_found() {
        let now = Instant::now();
        let mut predecessor = Predecessor::of(EarlierRun::OtherRelays, 3, now);
        assert!(predecessor.may_have_sent(Seq(i64::MAX)));
        predecessor.scanned(now, Seq(70), 500);
        predecessor.scanned(now, Seq(9), 520);
        predecessor.target_begun();
        predecessor.row_read(Seq(70));
        assert!(predecessor.may_have_sent(Seq(70)) && predecessor.may_appear());
        assert!(!predecessor.may_have_sent(Seq(71)));
        assert_eq!(predecessor.scanned_to(), 520);
        predecessor.row_read(Seq(71));
        assert!(!predecessor.may_appear());
    }
}
