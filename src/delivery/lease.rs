//! Lease as the instance that holds it sees it: how long the instance trusts the lease, and when it
//! renews it.

use std::time::{Duration, Instant};

/// Longest lease that an instance takes. A stored lease with more time left than this was changed
/// by hand, or was written while the server's clock was ahead.
pub const LEASE_MAX: Duration = Duration::from_mins(5);

/// Part of a lease's length after which the leader renews the lease. The rest leaves room for
/// attempts that fail.
const RENEW_AFTER: f64 = 0.4;

/// Part of a lease's length for which the leader trusts the lease. The rest is a margin for clocks
/// that differ in speed, and for messages still in flight then.
const TRUSTED_FOR: f64 = 0.8;

/// Longest time since the last answer of Postgres, exclusive, at which messages may be handed to
/// the broker. An instance that sees our Postgres session gone waits longer before it takes over.
pub const HEARD_WITHIN: Duration = Duration::from_millis(500);

/// Time for which a lease of this length is trusted after it was confirmed.
pub fn trusted_for(length: Duration) -> Duration {
    length.mul_f64(TRUSTED_FOR)
}

/// Lease as the instance that holds it sees it.
///
/// Every statement that takes or renews the lease confirms it. By our clock the lease ends no
/// earlier than its length after that statement was sent, whatever the database's clock shows.
/// Trust also needs recent answers on our Postgres session: an instance that sees the session gone
/// takes over before the lease ends.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    length: Duration,
    /// Time at which the last statement was sent that has confirmed the lease.
    confirmed: Instant,
    /// Time of the last answer of Postgres to a statement of this holder.
    heard: Instant,
    /// Time at which the process was found to have stood still; `None` once a statement sent since
    /// then has confirmed the lease.
    distrusted: Option<Instant>,
    /// Time since which a message waits for a renewal; `None` while no message waits.
    wanted: Option<Instant>,
    /// Time at which a failed renewal is tried again; `None` after a success or a stand-still.
    retry_at: Option<Instant>,
}

impl Lease {
    /// A lease that was taken by a statement sent at `asked` and answered by `now`.
    pub fn taken(length: Duration, asked: Instant, now: Instant) -> Self {
        let (distrusted, wanted, retry_at) = (None, None, None);
        Self { length, confirmed: asked, heard: now, distrusted, wanted, retry_at }
    }

    /// Whether the lease is trusted at `now`, so that a message may be handed to the broker.
    pub fn is_trusted(&self, now: Instant) -> bool {
        let is_heard = now < self.heard + HEARD_WITHIN;
        is_heard && self.distrusted.is_none() && now < self.trusted_until()
    }

    /// Time at which the trust ends unless the database confirms the lease again.
    pub fn trusted_until(&self) -> Instant {
        self.confirmed + trusted_for(self.length)
    }

    /// Ends the trust in the lease, because the process stood still until `now`. Only a statement
    /// that is sent from now on can restore the trust.
    pub fn distrust(&mut self, now: Instant) {
        self.distrusted = Some(now);
        self.retry_at = None;
    }

    /// Notes that a message waits for a renewal.
    pub fn want(&mut self, now: Instant) {
        self.wanted.get_or_insert(now);
    }

    /// Notes that Postgres answered, at `now`, a statement that was sent at `asked`.
    pub fn heard(&mut self, asked: Instant, now: Instant) {
        if self.distrusted.is_none_or(|since| asked >= since) {
            self.heard = now;
        }
    }

    /// Notes that a statement sent at `asked` has confirmed the lease, because Postgres still has
    /// our term.
    pub fn confirmed(&mut self, asked: Instant, now: Instant) {
        self.heard(asked, now);
        self.confirmed = self.confirmed.max(asked);
        self.retry_at = None;
        self.wanted = None;
        if self.distrusted.is_some_and(|since| asked >= since) {
            self.distrusted = None;
        }
    }

    /// Notes that a renewal failed and is tried again at `at`.
    pub fn retry_at(&mut self, at: Instant) {
        self.retry_at = Some(at);
    }

    /// Time at which the lease is to be renewed next.
    pub fn renew_due(&self) -> Instant {
        let by_time = self.confirmed + self.length.mul_f64(RENEW_AFTER);
        let due = [self.distrusted, self.wanted].into_iter().flatten().fold(by_time, Instant::min);
        self.not_before(due)
    }

    /// Time of a renewal: `due`, or later if the wait after a failed renewal is not over by then.
    pub fn not_before(&self, due: Instant) -> Instant {
        self.retry_at.map_or(due, |retry_at| due.max(retry_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(10);

    fn seconds(count: f64) -> Duration {
        Duration::from_secs_f64(count)
    }

    #[test]
    fn trust_ends_before_the_lease_and_counts_from_when_the_statement_was_sent() {
        let asked = Instant::now();
        let mut lease = Lease::taken(LENGTH, asked, asked);
        let mut trusts = |after: f64| {
            let now = asked + seconds(after);
            lease.heard(now, now);
            lease.is_trusted(now)
        };
        assert!(trusts(7.9));
        assert!(!trusts(8.0));
        assert_eq!(lease.renew_due(), asked + seconds(4.0));
        lease.confirmed(asked + seconds(5.0), asked + seconds(12.0));
        assert!(lease.is_trusted(asked + seconds(12.4)));
        // The late answer to an earlier statement does not shorten the trust.
        lease.confirmed(asked + seconds(1.0), asked + seconds(12.0));
        assert!(lease.is_trusted(asked + seconds(12.4)));
    }

    #[test]
    fn a_session_of_which_nothing_is_heard_is_asked_before_anything_goes() {
        let asked = Instant::now();
        let mut lease = Lease::taken(LENGTH, asked, asked);
        assert!(lease.is_trusted(asked + seconds(0.4)));
        let later = asked + seconds(0.6);
        assert!(!lease.is_trusted(later));
        lease.want(later);
        assert_eq!(lease.renew_due(), later);
        lease.confirmed(later, later + seconds(0.1));
        assert!(lease.is_trusted(later + seconds(0.2)));
        assert_eq!(lease.renew_due(), later + seconds(4.0));
    }

    #[test]
    fn after_a_stand_still_only_a_later_confirmation_counts() {
        let asked = Instant::now();
        let mut lease = Lease::taken(LENGTH, asked, asked);
        let thawed = asked + seconds(2.0);
        lease.distrust(thawed);
        assert_eq!(lease.renew_due(), thawed);
        lease.confirmed(asked + seconds(1.0), thawed);
        assert!(!lease.is_trusted(thawed));
        lease.retry_at(thawed + seconds(1.0));
        assert_eq!(lease.renew_due(), thawed + seconds(1.0));
        lease.confirmed(thawed, thawed);
        assert!(lease.is_trusted(thawed));
    }
}
