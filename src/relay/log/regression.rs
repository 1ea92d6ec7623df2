//! Regression of a log: the loss of acknowledged messages, the signs of it, and the time after
//! which they count.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{
    BrokerLog, LogState,
    verification::{VERIFY, Verified},
};
use crate::{
    broker::{Copies, LogFacts, VerifiedLog},
    delivery::{Closure, ClosureKind},
};

/// Time for which a log has to stay below an acknowledged sequence before that counts as lost.
const BEHIND_MAX: Duration = Duration::from_secs(1);

/// Time for which a log in a cluster has to stay below an acknowledged sequence before that counts
/// as lost. A new leader of the cluster may have to catch up, and an old leader that is cut off may
/// still answer.
const BEHIND_MAX_CLUSTERED: Duration = Duration::from_secs(15);

/// Wait before a log that went back is verified again.
const BEHIND_WAIT: Duration = Duration::from_millis(500);

/// Regression of a log.
#[derive(Debug, Clone)]
pub(in crate::relay) struct Regression {
    /// Identity of the log that is there now.
    pub(in crate::relay) identity: Option<i64>,
    /// Last sequence of the log. Our messages above it are gone.
    pub(in crate::relay) last_seq: u64,
    /// Description of the loss, for people.
    pub(in crate::relay) text: String,
    /// Whether others wrote where our messages were, so that it is unknown which messages are left.
    pub(in crate::relay) is_rewritten: bool,
    copies: Copies,
}

impl BrokerLog {
    pub(in crate::relay) fn regressed(&mut self, regression: Regression, now: Instant) -> Verified {
        self.failures += 1;
        let since = *self.behind_since.get_or_insert(now);
        let may_catch_up = regression.identity == self.identity;
        let behind_max = match regression.copies {
            Copies::One => BEHIND_MAX,
            Copies::Several => BEHIND_MAX_CLUSTERED,
        };
        let is_early = may_catch_up && now.duration_since(since) < behind_max;
        let wait = if is_early { BEHIND_WAIT } else { VERIFY.after(self.failures) };
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

    /// Regression of a verified log; `None` when it contains what it has acknowledged.
    pub(in crate::relay) fn regression(&self, seen: &VerifiedLog) -> Option<Regression> {
        let VerifiedLog { facts: LogFacts { identity, last_seq, .. }, acked, .. } = seen;
        let log = self.sink.log();
        // An unknown identity never counts as another one.
        let replaced = self.identity.zip(*identity).filter(|(before, now)| before != now);
        let is_new = replaced.is_some();
        let text = if let Some((before, now)) = replaced {
            let (before, now) = (time_of(before), time_of(now));
            format!("{log} was created anew at {now}; the one that we published to is of {before}")
        } else if last_seq < acked {
            format!("{log} went back to sequence {last_seq}; it had acknowledged {acked}")
        } else if seen.is_rewritten {
            format!("{log} contains another message under sequence {acked} than before")
        } else {
            return None;
        };
        // In a new stream none of our messages is left, whatever others have written since.
        let (is_rewritten, copies) = (seen.is_rewritten && !is_new, seen.facts.copies);
        Some(Regression { identity: *identity, last_seq: *last_seq, text, is_rewritten, copies })
    }
}

/// Text of a time in nanoseconds since the Unix epoch.
fn time_of(nanoseconds: i64) -> String {
    Timestamp::from_nanosecond(i128::from(nanoseconds))
        .map_or_else(|_| nanoseconds.to_string(), |time| time.to_string())
}
