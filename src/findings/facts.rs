//! Facts about a relay, as plain values. An observer fills in the facts that it can see.

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
    /// The session with Postgres.
    pub postgres: LinkState,
    /// The connection to NATS.
    pub nats: LinkState,
    /// The reason for which the publishing gate is closed; `None` while it is open.
    pub gate: Option<Closed>,
    /// The condition that keeps the leader from handing messages over; `None` while it may.
    pub unready: Option<Unready>,
    /// The numbers of waiting events and letters; `None` when they could not be measured.
    pub depth: Option<Depth>,
    /// The age in seconds of the oldest event that waits, as of now.
    pub oldest_seconds: f64,
    /// Events that no route took, where the relay is the one that counts them.
    pub unrouted: Option<u64>,
    /// Age of the figures in seconds; `None` when they were asked for just now.
    pub measured_seconds_ago: Option<f64>,
    /// Seconds since the stream last confirmed a message; `None` when the observer cannot see it.
    pub unconfirmed_seconds: Option<f64>,
    /// The session that keeps ours waiting.
    pub blocker: Option<Blocker>,
    /// Statements that grant what our user lacks.
    pub missing_grants: Vec<String>,
    /// Chores, and how often they failed in a row.
    pub failing: Vec<(Chore, u32)>,
    /// Other relays that no instance runs, and for how many seconds.
    pub abandoned: Vec<(String, f64)>,
    /// Findings that the leading instance has reported.
    pub reported: Vec<Finding>,
    /// Findings of other parts of the program.
    pub alarms: Vec<Finding>,
}

/// The role of this instance, or the program that the database names as leader.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Role {
    /// This instance gets its session and its position.
    #[default]
    Starting,
    /// This instance waits for another one to end.
    Standby {
        /// The instance that leads; `None` when nobody has led for longer than a take-over takes.
        leader: Option<String>,
    },
    /// Leader: the instance runs the relay.
    Leading,
    /// Former leader or standby that is stopping.
    Stopping,
    /// Another program leads, as the database says.
    Led {
        /// The leader's host and process.
        by: String,
        /// Seconds since it reported under its term, or acquired the lease.
        silent_seconds: Option<f64>,
        /// Whether it has reported under its term: it does so once it begins to publish.
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
    /// Working.
    Up,
    /// A connection is being made.
    Connecting {
        /// The step that is waited for.
        detail: String,
    },
    /// Lost or refused.
    Down {
        /// The cause.
        detail: String,
        /// The remedy, where the program has one to suggest.
        hint: Option<String>,
    },
}

/// The closure of the publishing gate: nothing is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The kind of the closure, a code of findings.
    pub kind: String,
    /// The fault.
    pub text: String,
    /// The remedy.
    pub hint: String,
}

/// The condition that keeps a leader from handing any message over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unready {
    /// The finding that stands for it.
    pub code: Code,
    /// The cause, in one sentence.
    pub cause: &'static str,
    /// Seconds for which it has lasted.
    pub seconds: f64,
}

/// A session whose lock others wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// The session: its process, its user, and its name.
    pub session: String,
    /// The remedy.
    pub next: String,
}

impl Blocker {
    /// A session that nobody could name.
    pub fn unnamed() -> Self {
        Self {
            session: "another session".to_owned(),
            next: "find it: SELECT pid, pg_blocking_pids(pid) FROM pg_locks WHERE NOT granted"
                .to_owned(),
        }
    }
}
