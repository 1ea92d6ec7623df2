//! The report of one check: its figures, and the first few events behind each.

use std::fmt;

use uuid::Uuid;

/// Maximum number of offending events that a violation names.
const NAMED_MAX: usize = 5;

/// A kind of fault: how often it occurred, and where first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Violation {
    /// Number of events with the fault.
    pub count: u64,
    /// The ids of the first few of these events. They are fewer than `count` when there are many,
    /// or when some have no id.
    pub first: Vec<Uuid>,
}

impl Violation {
    pub(super) fn note(&mut self, id: Option<Uuid>) {
        self.count += 1;
        if let Some(id) = id
            && self.first.len() < NAMED_MAX
        {
            self.first.push(id);
        }
    }
}

/// The place of the lost events in the order of commits, which distinguishes the causes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lost {
    /// Before the first committed event that did arrive: the reader began too late.
    pub prefix: Violation,
    /// Between events that arrived: the reader skipped, or the broker lost.
    pub middle: Violation,
    /// After the last event that arrived, or when none arrived: the reader is not done, or stopped.
    pub postfix: Violation,
}

impl Lost {
    /// Number of all lost events.
    pub fn count(&self) -> u64 {
        self.prefix.count + self.middle.count + self.postfix.count
    }
}

/// Messages whose content is not what the row said, by the part that differs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Altered {
    /// Messages whose body is not the payload that was inserted.
    pub payload: Violation,
    /// Messages that are stored under another subject than their row requires.
    pub subject: Violation,
    /// Messages that name another ordering key than their row has.
    pub key: Violation,
    /// Messages with a header that is missing, superfluous or has another value than expected.
    pub headers: Violation,
}

/// The figures and the violations of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckerReport {
    /// Number of events whose transaction committed, or turned out to have committed.
    pub committed: u64,
    /// Number of messages in the stream, copies included.
    pub stored: u64,
    /// Number of events in the dead letters.
    pub dead: u64,
    /// Number of events that arrived nowhere, of transactions whose end is uncertain. Not a fault.
    pub limbo: u64,
    /// Events that were committed and are neither in the stream nor dead nor pending.
    pub lost: Lost,
    /// Messages or dead letters of events that were never committed.
    pub phantom: Violation,
    /// Messages beyond the first with the same id.
    pub duplicates: Violation,
    /// Events that came after an event of their key that should have come later.
    pub inversions: Violation,
    /// Messages with another payload, subject, key or header than their row requires.
    pub altered: Altered,
    /// Events that are dead letters and in the stream too.
    pub dead_and_stored: Violation,
    /// Committed events that still wait, though everything should have arrived by now.
    pub pending: Violation,
}

impl CheckerReport {
    /// Every kind of fault with its name, whether it occurred or not.
    pub fn findings(&self) -> [(&'static str, &Violation); 12] {
        [
            ("lost before the first stored event", &self.lost.prefix),
            ("lost between stored events", &self.lost.middle),
            ("lost after the last stored event", &self.lost.postfix),
            ("phantom", &self.phantom),
            ("duplicate", &self.duplicates),
            ("inverted", &self.inversions),
            ("with another payload", &self.altered.payload),
            ("with another subject", &self.altered.subject),
            ("with another key", &self.altered.key),
            ("with other headers", &self.altered.headers),
            ("dead and stored", &self.dead_and_stored),
            ("still pending", &self.pending),
        ]
    }

    /// Whether the check found no fault of any kind.
    pub fn is_clean(&self) -> bool {
        self.findings().iter().all(|(_, finding)| finding.count == 0)
    }
}

/// The figures, then a line for each kind of fault that occurred.
impl fmt::Display for CheckerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} committed, {} stored, {} dead", self.committed, self.stored, self.dead)?;
        for (name, finding) in self.findings() {
            if finding.count > 0 {
                write!(f, "\n{} {name}", finding.count)?;
                for (place, id) in finding.first.iter().enumerate() {
                    write!(f, "{}{id}", if place == 0 { ": " } else { ", " })?;
                }
            }
        }
        Ok(())
    }
}
