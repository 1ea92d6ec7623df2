//! Facts about a relay from which findings are computed. An observer fills in the facts that it
//! sees.

use super::{Chore, Code, Depth, Finding};

/// Facts about a relay, as one of its instances or a reader of the database sees them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RelayFacts {
    /// The relay's name.
    pub relay: String,
    /// The instance or program that runs the relay.
    pub role: Role,
    /// The error of the flow, while it waits to be started again.
    pub failed: Option<String>,
    /// Sessions of the relay's instances that the observer sees.
    pub instances: Vec<String>,
    /// State of the session with Postgres.
    pub postgres: LinkState,
    /// State of the connection to NATS.
    pub nats: LinkState,
    /// The closure of the publishing gate; `None` while the gate is open.
    pub gate: Option<Closed>,
    /// The condition that keeps the leader from handing messages over; `None` while nothing does.
    pub unready: Option<Unready>,
    /// The numbers of waiting events and letters; `None` when they could not be measured.
    pub depth: Option<Depth>,
    /// The age in seconds of the oldest event that waits, as of now.
    pub oldest_seconds: f64,
    /// Number of events that no route took; `None` unless this relay counts them.
    pub unrouted: Option<u64>,
    /// Age in seconds of the measured backlog, `depth`; `None` when it was measured just now.
    pub measured_seconds_ago: Option<f64>,
    /// Seconds since the stream last confirmed a message; `None` when the observer cannot see it.
    pub unconfirmed_seconds: Option<f64>,
    /// Session that holds a lock for which a session of this relay waits.
    pub blocker: Option<Blocker>,
    /// Statements that grant the privileges which the relay's user lacks.
    pub missing_grants: Vec<String>,
    /// Chores that fail, each with the number of failures in a row.
    pub failing: Vec<(Chore, u32)>,
    /// Other relays that no instance runs, each with the seconds since it last wrote to its
    /// position.
    pub abandoned: Vec<(String, f64)>,
    /// Findings that the leading instance has reported.
    pub reported: Vec<Finding>,
    /// Findings that the observer has made itself, for instance about lost events or hindered
    /// applications.
    pub alarms: Vec<Finding>,
}

/// The role of this instance, or the program that the database names as leader.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Role {
    /// This instance has no session or no position yet.
    #[default]
    Starting,
    /// This instance waits to become the leader.
    Standby {
        /// Host and process of the leader; `None` when nobody has led for longer than a take-over
        /// takes.
        leader: Option<String>,
    },
    /// Leader: the instance runs the relay.
    Leading,
    /// The instance is stopping, whether it led or stood by before.
    Stopping,
    /// Another program leads, as the database says.
    Led {
        /// The leader's host and process.
        by: String,
        /// Seconds since the leader reported under its term, or acquired the lease.
        silent_seconds: Option<f64>,
        /// Whether the leader has reported under its term. It first reports when it begins to
        /// publish.
        has_reported: bool,
    },
    /// No instance leads, as the database says.
    NotRunning,
    /// No instance leads, and none ever has.
    NeverStarted,
    /// The leader is unknown, because the database could not be asked.
    Unknown,
}

/// The state of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LinkState {
    /// State that was not observed.
    #[default]
    Unknown,
    /// The connection works.
    Up,
    /// A connection is being made.
    Connecting {
        /// The step of connecting that is waited for.
        detail: String,
    },
    /// The connection is lost, or was refused.
    Down {
        /// Cause of the loss or the refusal.
        detail: String,
        /// The remedy, where the program has one to suggest.
        hint: Option<String>,
    },
}

/// The closure of the publishing gate: nothing is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Kind of the closure: the code of its finding.
    pub kind: String,
    /// Fault that keeps the gate closed, in words.
    pub text: String,
    /// Advice for an operator on how to let the gate open.
    pub hint: String,
}

/// The condition that keeps a leader from handing any message over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unready {
    /// Code of the finding about the condition.
    pub code: Code,
    /// The condition, in words.
    pub cause: &'static str,
    /// Seconds for which the leader may hand no message over, by this condition or by earlier ones.
    pub seconds: f64,
}

/// A session that holds a lock for which other sessions wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// The session, as text: its process, its user, and its name.
    pub session: String,
    /// Advice for an operator on how to end the wait for the lock.
    pub next: String,
}

impl Blocker {
    /// A session that holds a lock and could not be identified.
    pub fn unnamed() -> Self {
        Self {
            session: "another session".to_owned(),
            next: "find it: SELECT pid, pg_blocking_pids(pid) FROM pg_locks WHERE NOT granted"
                .to_owned(),
        }
    }
}
