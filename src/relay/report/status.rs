//! Status of the relay: a plain snapshot for health pages, `status` and systemd.

use std::time::{Duration, Instant};

use super::heartbeat::Heartbeat;
use crate::{
    findings::{self, Blocker, Closed, Finding, RelayFacts, Role, Unready},
    metrics::{Chore, Measured},
    pg::{blocking::Blocking, error::QueryError},
    relay::publishing::readiness::Readiness,
};

/// The time that a take-over may take after a lease has ended. A standby that has seen no valid
/// lease for longer than a lease and this reports that nobody leads.
const TAKE_OVER_MAX: Duration = Duration::from_secs(2);

/// Time for which messages wait for the lease to be confirmed before that is reported.
const UNCONFIRMED_MAX: Duration = Duration::from_secs(1);

/// Text about a lease that is not confirmed for longer than [`UNCONFIRMED_MAX`].
pub(super) const LEASE_UNCONFIRMED: &str =
    "the lease cannot be renewed: postgres does not answer in time";

/// Snapshot, published through a `tokio::sync::watch` channel.
#[derive(Debug, Clone)]
pub struct Status {
    /// Phase of the relay.
    pub phase: Phase,
    /// The connection to Postgres.
    pub postgres: LinkStatus,
    /// The connection to NATS.
    pub nats: LinkStatus,
    /// Why nothing is published just now, when the publishing gate is closed.
    pub gate: Option<GateStatus>,
    /// Why no message may be handed over while this instance leads; `None` when messages may go.
    pub unready: Option<Pause>,
    /// Messages sent and not yet answered.
    pub in_flight: usize,
    /// Events in memory that wait for their turn.
    pub waiting: usize,
    /// Backlog, as last measured.
    pub measured: Measured,
    /// The fencing number of the present holding of the lease; 0 before the first.
    pub term: i64,
    /// Messages that the stream has confirmed since the program started.
    pub published_total: u64,
    /// Use of those messages.
    pub counts: Counted,
    /// When the loop last turned.
    pub last_turn: Heartbeat,
    /// The relay's name.
    pub relay: String,
    /// Leader while this instance stands by, if known.
    pub leader: Option<String>,
    /// When this instance, standing by, last saw a valid lease.
    pub led_at: Instant,
    /// How long a lease holds.
    pub lease: Duration,
    /// When the stream last confirmed a message, or the program started.
    pub confirmed_at: Instant,
    /// The session that keeps ours waiting, and which chore met it.
    pub blocker: Option<(Chore, Blocker)>,
    /// The session that keeps this instance from leading.
    pub held_up: Option<Blocker>,
    /// Statements that grant what our user lacks.
    pub missing_grants: Vec<String>,
    /// Chores, and how often they failed in a row.
    pub failing: Vec<(Chore, u32)>,
    /// Other relays whose position nobody holds, and for how many seconds.
    pub abandoned: Vec<(String, f64)>,
    /// Findings of other parts of the program.
    pub alarms: Vec<Finding>,
    /// Conditions of the outbox that do not hold and that the relay does not repair itself.
    pub broken: Vec<Finding>,
    /// Reasons why applications cannot insert events.
    pub hindered: Vec<Finding>,
    /// Why the flow failed, until it begins to publish again.
    pub failed: Option<String>,
}

impl Status {
    /// The state before anything was tried.
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

    /// Notes whether messages may be handed over. Conditions that follow each other are one pause.
    pub(in crate::relay) fn note_readiness(&mut self, readiness: Readiness, now: Instant) {
        let before = self.unready.unwrap_or(Pause { readiness, since: now, condition_since: now });
        let is_same = before.readiness == readiness;
        let condition_since = if is_same { before.condition_since } else { now };
        let pause = Pause { readiness, condition_since, ..before };
        self.unready = readiness.finding().is_some().then_some(pause);
    }

    /// The session with Postgres. A session that does not confirm the lease counts as down.
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

    /// Everything that is wrong as seen from this instance, the worst first.
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

/// A session in the way, as a fact.
pub fn blocker(by: &Blocking) -> Blocker {
    Blocker { session: by.to_string(), next: by.hint() }
}

/// The session whose lock a statement has waited for in vain, as a fact. Behind a pooler, and where
/// nobody could be asked in time, it has no name.
pub fn blocker_of(error: &QueryError) -> Option<Blocker> {
    match error.blocking() {
        Some(by) => Some(blocker(by)),
        None => error.is_locked_out().then(Blocker::unnamed),
    }
}

/// Use of the messages that a flow counts.
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
    /// The condition that keeps messages back now.
    pub readiness: Readiness,
    /// When the pause began, with this condition or with one before.
    pub since: Instant,
    /// When this condition began.
    pub condition_since: Instant,
}

/// Phase of the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not connected to everything yet.
    Starting,
    /// Another instance leads; this one stands by.
    Standby,
    /// Events flow.
    Relaying,
    /// No new work; what is in flight is being settled.
    Stopping,
    /// Done.
    Stopped,
}

impl Phase {
    /// The name in JSON and in texts.
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
    /// Being connected; the detail says what is waited for.
    Connecting {
        /// Awaited event, free of secrets.
        detail: String,
    },
    /// Working.
    Up,
    /// Lost or refused; the detail says why.
    Down {
        /// Why, free of secrets.
        detail: String,
        /// Advice for an operator, if the cause is known.
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

/// Why nothing is published just now.
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
}
