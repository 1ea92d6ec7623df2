//! Status of the relay: a plain snapshot for health pages, `status` and systemd.

use std::time::{Duration, Instant};

use super::heartbeat::Heartbeat;
use crate::{
    findings::{self, Blocker, Closed, Finding, RelayFacts, Role, Unready},
    metrics::{Chore, Measured},
    pg::{blocking::Blocking, error::QueryError},
    relay::publishing::readiness::Readiness,
};

/// Time that a take-over needs after the end of a lease. A standby that has seen no valid lease for
/// longer than a lease and this reports that no instance leads.
const TAKE_OVER_MAX: Duration = Duration::from_secs(2);

/// Time for which the lease is unconfirmed before that is reported, inclusive.
const UNCONFIRMED_MAX: Duration = Duration::from_secs(1);

/// Text about a lease that is unconfirmed for [`UNCONFIRMED_MAX`].
pub(super) const LEASE_UNCONFIRMED: &str =
    "the lease cannot be renewed: postgres does not answer in time";

/// Status of a relay, published through a `tokio::sync::watch` channel.
#[derive(Debug, Clone)]
pub struct Status {
    /// Phase of the relay.
    pub phase: Phase,
    /// Session with Postgres. For [`Status::postgres_link`] a session that does not confirm the
    /// lease counts as down.
    pub postgres: LinkStatus,
    /// Connection to NATS.
    pub nats: LinkStatus,
    /// Reason for which the publishing gate is closed, or the progress of a scan that takes long.
    /// `None` otherwise.
    pub gate: Option<GateStatus>,
    /// Pause of publishing while this instance leads; `None` while messages may go.
    pub unready: Option<Pause>,
    /// Number of messages in flight.
    pub in_flight: usize,
    /// Number of events in memory that are not in flight.
    pub waiting: usize,
    /// Backlog, as last measured.
    pub measured: Measured,
    /// Fencing number of the present holding; 0 before the first one.
    pub term: i64,
    /// Number of messages that the stream has acknowledged since the program started.
    pub published_total: u64,
    /// Kind of the messages that `published_total` counts: published ones, or events that no route
    /// takes.
    pub counts: Counted,
    /// When the loop last turned.
    pub last_turn: Heartbeat,
    /// The relay's name.
    pub relay: String,
    /// Leader while this instance stands by; `None` while it is unknown.
    pub leader: Option<String>,
    /// When this instance, standing by, last saw a valid lease.
    pub led_at: Instant,
    /// Length of the lease that the leader of this relay takes.
    pub lease: Duration,
    /// When the stream last acknowledged a message, or the program started.
    pub confirmed_at: Instant,
    /// Session with a lock that a chore waits for, and that chore.
    pub blocker: Option<(Chore, Blocker)>,
    /// Session with a lock that keeps this instance from leading.
    pub held_up: Option<Blocker>,
    /// Statements that grant the privileges that the relay's user lacks.
    pub missing_grants: Vec<String>,
    /// Chores that fail, with the number of failures in a row.
    pub failing: Vec<(Chore, u32)>,
    /// Abandoned positions of other relays, with the seconds since they moved.
    pub abandoned: Vec<(String, f64)>,
    /// Findings about published events that the log has lost for good.
    pub alarms: Vec<Finding>,
    /// Findings about broken conditions of the contract that the relay does not repair.
    pub broken: Vec<Finding>,
    /// Findings about applications that cannot insert events.
    pub hindered: Vec<Finding>,
    /// Failure of the flow, until it publishes again.
    pub failed: Option<String>,
}

impl Status {
    /// Status before anything was tried.
    pub fn starting() -> Self {
        let connecting = || LinkStatus::Connecting { detail: "not tried yet".to_owned() };
        Self {
            phase: Phase::Starting,
            postgres: connecting(),
            nats: connecting(),
            gate: None,
            unready: None,
            in_flight: 0,
            waiting: 0,
            measured: Measured::never(Instant::now()),
            term: 0,
            published_total: 0,
            counts: Counted::Published,
            last_turn: Heartbeat::start(),
            relay: String::new(),
            leader: None,
            led_at: Instant::now(),
            lease: Duration::ZERO,
            confirmed_at: Instant::now(),
            blocker: None,
            held_up: None,
            missing_grants: Vec::new(),
            failing: Vec::new(),
            abandoned: Vec::new(),
            alarms: Vec::new(),
            broken: Vec::new(),
            hindered: Vec::new(),
            failed: None,
        }
    }

    /// Enters a phase. A pause of publishing belongs to one holding, so each entry ends it.
    pub(crate) fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.unready = None;
    }

    /// Notes the readiness of now. Conditions that follow each other without a break are one pause.
    pub(in crate::relay) fn note_readiness(&mut self, readiness: Readiness, now: Instant) {
        let before = self.unready.unwrap_or(Pause { readiness, since: now, condition_since: now });
        let is_same = before.readiness == readiness;
        let condition_since = if is_same { before.condition_since } else { now };
        let pause = Pause { readiness, condition_since, ..before };
        self.unready = readiness.finding().is_some().then_some(pause);
    }

    /// Session with Postgres. A session that does not confirm the lease counts as down.
    pub fn postgres_link(&self, now: Instant) -> LinkStatus {
        match self.unready {
            Some(Pause { readiness: Readiness::LeaseUnconfirmed, condition_since, .. })
                if now >= condition_since + UNCONFIRMED_MAX =>
            {
                LinkStatus::Down { detail: LEASE_UNCONFIRMED.to_owned(), hint: None }
            }
            _ => self.postgres.clone(),
        }
    }

    /// Findings of this instance, the worst first.
    pub fn findings(&self, now: Instant) -> Vec<Finding> {
        findings::of(&self.facts(now))
    }

    fn facts(&self, now: Instant) -> RelayFacts {
        let role = match self.phase {
            Phase::Starting => Role::Starting,
            Phase::Standby => {
                let unled = now.saturating_duration_since(self.led_at);
                let is_led = unled <= self.lease + TAKE_OVER_MAX;
                let leader = self.leader.clone().unwrap_or_else(|| "another instance".to_owned());
                Role::Standby { leader: is_led.then_some(leader) }
            }
            Phase::Relaying => Role::Leading,
            Phase::Stopping | Phase::Stopped => Role::Stopping,
        };
        RelayFacts {
            relay: self.relay.clone(),
            role,
            postgres: self.postgres_link(now).fact(),
            nats: self.nats.fact(),
            gate: self.gate.as_ref().map(|gate| Closed {
                kind: gate.kind.to_owned(),
                text: gate.text.clone(),
                hint: gate.hint.clone(),
            }),
            unready: self.unready.filter(|_| self.phase == Phase::Relaying).and_then(
                |Pause { readiness, since, .. }| {
                    let (code, cause) = readiness.finding()?;
                    Some(Unready {
                        code,
                        cause,
                        seconds: now.saturating_duration_since(since).as_secs_f64(),
                    })
                },
            ),
            depth: Some(self.measured.depth),
            oldest_seconds: self.measured.oldest_seconds(now),
            unrouted: match self.counts {
                Counted::Published => None,
                Counted::Unrouted => Some(self.published_total),
            },
            measured_seconds_ago: Some(self.measured.age(now).as_secs_f64()),
            unconfirmed_seconds: Some(
                now.saturating_duration_since(self.confirmed_at).as_secs_f64(),
            ),
            blocker: {
                let met = self.blocker.as_ref().map(|(_, blocker)| blocker);
                self.held_up.as_ref().or(met).cloned()
            },
            missing_grants: self.missing_grants.clone(),
            failing: self.failing.clone(),
            abandoned: self.abandoned.clone(),
            failed: self.failed.clone(),
            alarms: self.alarms.iter().chain(&self.broken).chain(&self.hindered).cloned().collect(),
            ..RelayFacts::default()
        }
    }
}

/// A blocking session, in the form that findings take.
pub fn blocker(by: &Blocking) -> Blocker {
    Blocker { session: by.to_string(), next: by.hint() }
}

/// Session whose lock a statement has waited for in vain, in the form that findings take. The
/// session has no name behind a pooler, and when Postgres did not answer in time.
pub fn blocker_of(error: &QueryError) -> Option<Blocker> {
    match error.blocking() {
        Some(by) => Some(blocker(by)),
        None => error.is_locked_out().then(Blocker::unnamed),
    }
}

/// Kind of the messages that a flow counts: published ones, or events that no route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// The messages are published.
    Published,
    /// The messages go nowhere, because no route takes them.
    Unrouted,
}

/// Pause of publishing: a time in which no message may be handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// Condition that keeps messages back now.
    pub readiness: Readiness,
    /// When the pause began, with this condition or with an earlier one.
    pub since: Instant,
    /// When the present condition began.
    pub condition_since: Instant,
}

/// Phase of the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The relay opens its session, or takes its position.
    Starting,
    /// Another instance leads; this one stands by.
    Standby,
    /// Leader: the instance runs the relay.
    Relaying,
    /// The relay is stopping: it settles the events in flight and starts nothing new.
    Stopping,
    /// The relay has ended.
    Stopped,
}

impl Phase {
    /// Name of the phase in JSON and in texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Standby => "standby",
            Self::Relaying => "relaying",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

/// State of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkStatus {
    /// The connection is being opened.
    Connecting {
        /// Names the step that the relay waits for. The text contains no secret.
        detail: String,
    },
    /// The connection works.
    Up,
    /// The connection is lost or was refused.
    Down {
        /// Cause, free of secrets.
        detail: String,
        /// Advice for an operator, when the cause has one.
        hint: Option<String>,
    },
}

impl LinkStatus {
    fn fact(&self) -> findings::LinkState {
        match self {
            Self::Up => findings::LinkState::Up,
            Self::Connecting { detail } => {
                findings::LinkState::Connecting { detail: detail.clone() }
            }
            Self::Down { detail, hint } => {
                findings::LinkState::Down { detail: detail.clone(), hint: hint.clone() }
            }
        }
    }
}

/// Reason for which the publishing gate is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateStatus {
    /// `stream_unavailable`, `misconfigured`, `permission_denied`, `broker_stalled`,
    /// `store_stalled`, `broker_regressed` or `scanning`.
    pub kind: &'static str,
    /// Failure in words, free of secrets.
    pub text: String,
    /// Advice for an operator.
    pub hint: String,
    /// When the publishing gate closed.
    pub since: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::Code;

    #[test]
    fn a_session_that_does_not_confirm_the_lease_is_down_after_a_second() {
        let start = Instant::now();
        let late = start + UNCONFIRMED_MAX;
        let mut status = Status {
            phase: Phase::Relaying,
            postgres: LinkStatus::Up,
            nats: LinkStatus::Up,
            ..Status::starting()
        };
        let codes = |status: &Status, now| {
            status.findings(now).iter().map(|finding| finding.code).collect::<Vec<_>>()
        };
        // An earlier condition belongs to the same pause and says nothing about the lease.
        let long_ago = start.checked_sub(Duration::from_secs(4)).unwrap();
        status.note_readiness(Readiness::Scanning, long_ago);
        status.note_readiness(Readiness::LeaseUnconfirmed, start);
        assert_eq!(status.unready.map(|pause| pause.since), Some(long_ago));
        assert_eq!(status.postgres_link(start), LinkStatus::Up);
        assert_eq!(codes(&status, start), []);
        let down = LinkStatus::Down { detail: LEASE_UNCONFIRMED.to_owned(), hint: None };
        assert_eq!(status.postgres_link(late), down);
        assert_eq!(codes(&status, late), [Code::PostgresDown]);
        status.note_readiness(Readiness::Ready, late);
        assert_eq!((status.postgres_link(late), status.unready), (LinkStatus::Up, None));
    }

    /// Defect of an earlier version: the pause of a holding that had ended made an instance that
    /// stood by report Postgres as down.
    #[test]
    fn a_pause_ends_with_its_holding() {
        let start = Instant::now();
        let late = start + UNCONFIRMED_MAX;
        for phase in [Phase::Starting, Phase::Standby, Phase::Relaying, Phase::Stopped] {
            let mut status = Status { postgres: LinkStatus::Up, ..Status::starting() };
            status.enter(Phase::Relaying);
            status.note_readiness(Readiness::LeaseUnconfirmed, start);
            assert_ne!(status.postgres_link(late), LinkStatus::Up);
            status.enter(phase);
            assert_eq!(status.postgres_link(late), LinkStatus::Up, "{phase:?}");
        }
    }
}
