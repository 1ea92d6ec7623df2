//! Standby: waiting for the lease while another instance leads.
//!
//! The protocol is in `docs/leadership.md`.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::{info, warn};
use uuid::Uuid;

use super::process;
use crate::{
    clock,
    delivery::{HEARD_WITHIN, LEASE_MAX},
    outbox::{Acquired, Leader, LeaderSession, LeaseEnd, Outbox, Rival},
    pg::error::QueryError,
    relay::{
        RelaySettings,
        chores::StandbyFigures,
        report::{Reporter, heartbeat::Heartbeat, status::Phase},
    },
};

/// Interval at which a standby asks who leads. Together with its measurements of the backlog that
/// is less than one statement a second, over one session.
const STANDBY: Duration = Duration::from_millis(1100);

/// Time after which a live leader has noticed the end of its session. A leader hands over nothing
/// when it has not heard from the database for [`HEARD_WITHIN`], or when its turn comes late.
const NOTICES_WITHIN: Duration = HEARD_WITHIN.saturating_add(Duration::from_millis(100));

/// Standby: an instance that waits for the lease, over one session.
pub(super) struct Standby<'a> {
    settings: &'a RelaySettings,
    report: &'a Reporter,
    outbox: &'a Outbox,
    /// The leader's session that was last seen to have ended.
    ended: Option<EndedSession>,
    figures: StandbyFigures,
}

impl<'a> Standby<'a> {
    /// A standby that has not asked yet who leads.
    pub(super) fn new(
        settings: &'a RelaySettings,
        report: &'a Reporter,
        outbox: &'a Outbox,
    ) -> Self {
        Self { settings, report, outbox, ended: None, figures: StandbyFigures::default() }
    }

    /// Waits until this instance has the lease. Returns the position with it, and the time at which
    /// the statement was sent.
    pub(super) async fn wait_for_lease(&mut self) -> Result<(Acquired, Instant), QueryError> {
        self.outbox.listen_for_lease().await?;
        let instance = self.settings.candidate.instance;
        loop {
            let leader = self.outbox.leader().await?;
            let ended = self.ended.as_ref().and_then(|ended| ended.is_certain(clock::now()));
            let wait = match claim(leader.as_ref(), instance, ended) {
                Claim::Free { ended } => {
                    let asked = clock::now();
                    match self.acquire_lease(ended).await? {
                        Ok(acquired) => {
                            self.report.metrics.dependencies.leading();
                            return Ok((acquired, asked));
                        }
                        Err(wait) => wait,
                    }
                }
                Claim::SessionEnded { term } => {
                    let seen = EndedSession::of(&mut self.ended, term);
                    (seen + NOTICES_WITHIN).saturating_duration_since(clock::now())
                }
                Claim::Led { left } => left.map_or(STANDBY, |left| left.min(STANDBY)),
            };
            if leader.as_ref().is_some_and(|leader| leader.end == LeaseEnd::TooLate)
                && self.outbox.shorten_lease().await?
            {
                warn_of_overlong_lease();
            }
            if let Some(Leader { holder: leader, .. }) = leader.filter(Leader::leads)
                && self.report.stands_by(&leader, self.settings.candidate.length)
            {
                info!(leader, "another instance leads this relay; standing by");
            }
            if self.report.status.borrow().phase == Phase::Standby {
                let Reporter { status, metrics, .. } = self.report;
                self.figures.measure(self.outbox, status, metrics).await?;
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = self.outbox.notified() => {}
            }
        }
    }

    /// Takes the lease. Returns how long to wait when another instance was faster, or leads the
    /// route with another number of shards.
    ///
    /// A relay of the same route with another number of shards is a rival. Two rivals may take
    /// their leases at the same time, and neither sees the other before. So an instance that has
    /// taken its lease looks for rivals once more. First it ends the terms of rivals whose lease is
    /// over, because a frozen rival could otherwise renew it.
    async fn acquire_lease(
        &self,
        ended: Option<i64>,
    ) -> Result<Result<Acquired, Duration>, QueryError> {
        let (outbox, RelaySettings { route, filter, candidate, .. }) = (self.outbox, self.settings);
        let route = (route.as_str(), filter.shards());
        // Two rivals that have both released their lease wait for different times, so that they do
        // not meet again and again.
        let [draw, ..] = candidate.instance.into_bytes();
        let wait = STANDBY + STANDBY * u32::from(draw) / 256;
        if let Some(rival) = outbox.rival(route).await? {
            if outbox.shorten_rivals(route).await? {
                warn_of_overlong_lease();
            }
            self.stand_by_for(&rival);
            return Ok(Err(wait));
        }
        let Some(acquired) = outbox.acquire(candidate, ended).await? else {
            return Ok(Err(STANDBY));
        };
        let rival = match outbox.fence_rivals(route).await {
            Ok(()) => outbox.rival(route).await,
            Err(error) => Err(error),
        };
        match rival {
            Ok(None) => Ok(Ok(acquired)),
            Ok(Some(rival)) => {
                outbox.release(acquired.term).await?;
                self.stand_by_for(&rival);
                Ok(Err(wait))
            }
            Err(error) => {
                // The lease is released, so that the other instance need not wait for its end.
                drop(outbox.release(acquired.term).await);
                Err(error)
            }
        }
    }

    /// Stands by for an instance that leads the route with another number of shards.
    fn stand_by_for(&self, Rival { relay, holder }: &Rival) {
        let by = format!("{holder}, as {relay}");
        if self.report.stands_by(&by, self.settings.candidate.length) {
            warn!(
                relay,
                leader = holder,
                hint = "all instances of a route need the same route.shards: stop those with the wrong number, see docs/scaling.md",
                "another instance leads this route with another number of shards; this instance waits until that one stops"
            );
        }
    }
}

fn warn_of_overlong_lease() {
    warn!(
        hint = "did somebody edit the table position, where the lease is stored? was the clock of the Postgres server ahead?",
        "the lease had more than five minutes left, which is longer than any instance takes it; shortened it to {}",
        humantime::format_duration(LEASE_MAX)
    );
}

/// Claim of an instance to the lease.
#[derive(Debug, PartialEq, Eq)]
enum Claim {
    /// The lease is free: no instance leads, or this instance did before, or the session of the
    /// term `ended` has ended.
    Free { ended: Option<i64> },
    /// The leader's session has ended, and a live leader may not have noticed that yet.
    SessionEnded { term: i64 },
    /// Another instance leads. Its lease has `left` to go, or `None` when it cannot be read.
    Led { left: Option<Duration> },
}

/// Leader's session that has ended.
struct EndedSession {
    term: i64,
    seen: Instant,
}

impl EndedSession {
    /// Time at which the session of this term was first seen to have ended.
    fn of(seen: &mut Option<Self>, term: i64) -> Instant {
        let known = seen.take().filter(|gone| gone.term == term);
        seen.insert(known.unwrap_or_else(|| Self { term, seen: clock::now() })).seen
    }

    /// The term, once a live leader must have noticed the end of its session too; `None` before
    /// that. A notification that wakes the standby does not shorten this wait.
    fn is_certain(&self, now: Instant) -> Option<i64> {
        (now >= self.seen + NOTICES_WITHIN).then_some(self.term)
    }
}

/// Claim of `instance`; `certainly_ended` is the term whose session has certainly ended.
fn claim(leader: Option<&Leader>, instance: Uuid, certainly_ended: Option<i64>) -> Claim {
    let Some(leader) = leader.filter(|leader| leader.leads()) else {
        return Claim::Free { ended: None };
    };
    if leader.instance == Some(instance) {
        return Claim::Free { ended: None };
    }
    if leader.process.as_deref().is_some_and(process::has_ended) {
        return Claim::Free { ended: Some(leader.term) };
    }
    match leader.session {
        LeaderSession::Gone if certainly_ended == Some(leader.term) => {
            Claim::Free { ended: Some(leader.term) }
        }
        LeaderSession::Gone => Claim::SessionEnded { term: leader.term },
        LeaderSession::Alive | LeaderSession::Unknown => Claim::Led { left: leader.left },
    }
}

/// Notes the heartbeat again and again, so that a long wait does not look like a loop that stands
/// still.
pub(super) async fn keep_turning<T>(heartbeat: &Heartbeat) -> T {
    loop {
        heartbeat.turn(clock::now());
        sleep(STANDBY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader(session: LeaderSession, left: Option<u64>) -> Leader {
        Leader {
            term: 7,
            holder: "host, process 1".to_owned(),
            instance: Some(Uuid::from_u128(1)),
            process: None,
            left: left.map(Duration::from_secs),
            backend_pid: Some(1),
            session,
            is_locked: false,
            end: LeaseEnd::Plausible,
        }
    }

    /// Defect of an earlier version: a notification, which any role may send, let a standby take
    /// over before a live leader could notice the end of its session.
    #[test]
    fn a_session_is_certainly_gone_only_after_its_leader_has_noticed() {
        let mut seen = None;
        let first = EndedSession::of(&mut seen, 7);
        let gone = seen.as_ref().unwrap();
        assert_eq!(gone.is_certain(first + NOTICES_WITHIN / 2), None);
        assert_eq!(gone.is_certain(first + NOTICES_WITHIN), Some(7));
        assert_eq!(EndedSession::of(&mut seen, 7), first, "it was seen again");
        assert!(EndedSession::of(&mut seen, 8) >= first);
        assert_eq!(seen.unwrap().term, 8);
    }

    #[test]
    fn a_lease_is_free_when_it_is_over_or_ours_or_its_session_was_seen_gone_twice() {
        let other = Uuid::from_u128(2);
        let free = Claim::Free { ended: None };
        assert_eq!(claim(None, other, None), free);
        assert_eq!(claim(Some(&leader(LeaderSession::Alive, None)), other, None), free);
        assert_eq!(
            claim(Some(&leader(LeaderSession::Alive, Some(5))), Uuid::from_u128(1), None),
            free
        );
        for session in [LeaderSession::Alive, LeaderSession::Unknown] {
            let led = Claim::Led { left: Some(Duration::from_secs(5)) };
            assert_eq!(claim(Some(&leader(session, Some(5))), other, Some(7)), led);
        }
        let gone = leader(LeaderSession::Gone, Some(5));
        assert_eq!(claim(Some(&gone), other, None), Claim::SessionEnded { term: 7 });
        assert_eq!(claim(Some(&gone), other, Some(6)), Claim::SessionEnded { term: 7 });
        assert_eq!(claim(Some(&gone), other, Some(7)), Claim::Free { ended: Some(7) });
        let locked = Leader { is_locked: true, ..leader(LeaderSession::Unknown, None) };
        assert_eq!(claim(Some(&locked), other, None), Claim::Led { left: None });
    }
}
