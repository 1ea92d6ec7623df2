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
    /// There was one, and besides what it may have sent any row may be in the stream: others may have
    /// published it, or it is read again to heal the stream.
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
    /// When the stream was looked into for them.
    looked_at: Instant,
    /// When this run began: the earlier one had ended.
    began: Instant,
    /// The highest `seq` that may have been sent before.
    sent_to: Seq,
    /// Any row may be in the stream: a scan tells up to which `seq` some are, and the earlier run may
    /// have sent up to this one.
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
            looked_at: now,
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

    /// The stream was looked into at that time, and holds no row of ours with a higher `seq`.
    pub(super) fn looked(&mut self, at: Instant, found_to: Seq) {
        self.looked_at = at;
        if let Some(sent_to) = self.anything {
            self.sent_to = sent_to.max(found_to);
        }
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
        self.may_come().then_some(self.looked_at)
    }

    /// When a scan of the stream finds all that an earlier run has sent, if the last one was too early:
    /// a message may be on its way for `late_max`.
    pub(super) fn conclusive_at(&self, late_max: Duration) -> Option<Instant> {
        let at = self.began + late_max;
        (self.may_come() && self.looked_at < at).then_some(at)
    }

    /// Since when a row with this `seq` that is read now may be in the stream without our knowing.
    pub(super) fn uncertain_since_of(&self, seq: Seq) -> Option<Instant> {
        self.uncertain_since().filter(|_| seq <= self.sent_to)
    }

    /// Whether something of an earlier run may still be read.
    pub(super) fn may_come(&self) -> bool {
        self.rows != Rows::Read || !self.letters_read
    }
}
