//! Regression of a log: it has lost messages that it had acknowledged. How that is noticed, and how
//! soon it counts.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{BrokerLog, LogState, VERIFY, Verified};
use crate::{
    broker::{Copies, LogFacts, VerifiedLog},
    delivery::{Closure, ClosureKind},
};

/// How long a stream has to stand below what it acknowledged before that counts as lost.
const BEHIND_MAX: Duration = Duration::from_secs(1);

/// The same in a cluster: a new leader may not have caught up with itself, and an old one that is
/// cut off may answer for a while.
const BEHIND_MAX_CLUSTERED: Duration = Duration::from_secs(15);

/// The wait before such a stream is verified again.
const BEHIND_LOOK: Duration = Duration::from_millis(500);

/// A stream that is not what it was.
#[derive(Debug, Clone)]
pub(in crate::relay) struct Regression {
    /// The identity of the log that is there now.
    pub(in crate::relay) identity: Option<i64>,
    /// Last sequence of the log: our messages above it are gone.
    pub(in crate::relay) last_seq: u64,
    /// The event in words, for people.
    pub(in crate::relay) text: String,
    /// Whether somebody else wrote where our messages were: then it is not known what is left of
    /// them.
    pub(in crate::relay) is_rewritten: bool,
    copies: Copies,
}

impl BrokerLog {
    pub(in crate::relay) fn regressed(&mut self, regression: Regression, now: Instant) -> Verified {
        self.failures += 1;
        let since = *self.behind_since.get_or_insert(now);
        let may_catch_up = regression.identity == self.identity;
        let patience = match regression.copies {
            Copies::One => BEHIND_MAX,
            Copies::Several => BEHIND_MAX_CLUSTERED,
        };
        let is_early = may_catch_up && now.duration_since(since) < patience;
        let wait = if is_early { BEHIND_LOOK } else { VERIFY.after(self.failures) };
        if self.state != LogState::Disconnected {
            self.state = LogState::Unverified { at: now + wait };
        }
        if is_early {
            let text =
                format!("{}; verifying it again before that counts as lost", regression.text);
            return Verified::Closed(Closure::new(ClosureKind::StreamUnavailable, text));
        }
        Verified::Regressed(regression)
    }

    /// Whether the stream has lost what it had acknowledged.
    pub(in crate::relay) fn regression(&self, seen: &VerifiedLog) -> Option<Regression> {
        let VerifiedLog { facts: LogFacts { identity, last_seq, .. }, acked, .. } = seen;
        let log = self.sink.log();
        // An unknown identity is never another one.
        let replaced = self.identity.zip(*identity).filter(|(before, now)| before != now);
        let is_new = replaced.is_some();
        let text = if let Some((before, now)) = replaced {
            let (before, now) = (time_of(before), time_of(now));
            format!("{log} was created anew at {now}; the one that we published to is of {before}")
        } else if last_seq < acked {
            format!("{log} went back to sequence {last_seq}; it had given {acked}")
        } else if seen.is_rewritten {
            format!("{log} holds another message under sequence {acked} than it did")
        } else {
            return None;
        };
        // Of a new stream it is known what is left: nothing, whatever others have put there since.
        let (is_rewritten, copies) = (seen.is_rewritten && !is_new, seen.facts.copies);
        Some(Regression { identity: *identity, last_seq: *last_seq, text, is_rewritten, copies })
    }
}

/// A time in nanoseconds since the Unix epoch, for people.
fn time_of(nanoseconds: i64) -> String {
    Timestamp::from_nanosecond(i128::from(nanoseconds))
        .map_or_else(|_| nanoseconds.to_string(), |time| time.to_string())
}
