//! Facts about a relay, as plain values. An observer leaves out the facts that it does not know.

use super::{Chore, Code, Depth, Finding};

/// Facts about a relay, as one of its instances or a reader of the database sees them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// The relay's name.
    pub relay: String,
    /// Who runs it.
    pub role: Role,
    /// Why the flow failed, while it waits to be started again.
    pub failed: Option<String>,
    /// Sessions of its instances, as far as they are known.
    pub instances: Vec<String>,
    /// The session with Postgres.
    pub postgres: Link,
    /// The connection to NATS.
    pub nats: Link,
    /// Why nothing is published, when the publishing gate is closed.
    pub gate: Option<Closed>,
    /// Why the leader hands no message over, whatever explains it.
    pub unready: Option<Unready>,
    /// What waits; `None` when it could not be measured.
    pub depth: Option<Depth>,
    /// The age in seconds of the oldest event that waits, as of now.
    pub oldest_seconds: f64,
    /// Events that no route took, where the relay is the one that counts them.
    pub unrouted: Option<u64>,
    /// How old the figures are, in seconds; `None` when they were asked for just now.
    pub measured_seconds_ago: Option<f64>,
    /// For how long the stream has confirmed nothing, in seconds, when that is known.
    pub unconfirmed_seconds: Option<f64>,
    /// The session that keeps ours waiting.
    pub blocker: Option<Blocker>,
    /// Statements that grant what our user lacks.
    pub missing_grants: Vec<String>,
    /// Chores, and how often they failed in a row.
    pub failing: Vec<(Chore, u32)>,
    /// Other relays whose position nobody holds, and for how many seconds.
    pub abandoned: Vec<(String, f64)>,
    /// What the instance that leads found out itself.
    pub reported: Vec<Finding>,
    /// What other parts of the program found out.
    pub alarms: Vec<Finding>,
}

/// Who runs a relay.
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
    /// This instance.
    Leading,
    /// This instance, which ends.
    Stopping,
    /// Another program, as the database says.
    Led {
        /// Who that is.
        by: String,
        /// How long ago it reported under its term, or took the lease.
        silent_seconds: Option<f64>,
        /// Whether it has reported under its term: it does so once it begins to publish.
        has_reported: bool,
    },
    /// Nobody, as the database says.
    NotRunning,
    /// Nobody, and nobody ever has.
    NeverStarted,
    /// The database could not be asked who it is.
    Unknown,
}

/// One connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Link {
    /// Nobody who knows has said.
    #[default]
    Unknown,
    /// Working.
    Up,
    /// Being made.
    Connecting {
        /// What is waited for.
        detail: String,
    },
    /// Lost or refused.
    Down {
        /// Why.
        detail: String,
        /// What to do about it, when that is known.
        hint: Option<String>,
    },
}

/// Why nothing is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The kind of the closure, a code of findings.
    pub kind: String,
    /// What is wrong.
    pub text: String,
    /// What to do.
    pub hint: String,
}

/// The condition that keeps a leader from handing any message over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unready {
    /// The finding that stands for it.
    pub code: Code,
    /// What is wrong.
    pub cause: &'static str,
    /// How long it has lasted.
    pub seconds: f64,
}

/// A session whose lock others wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// The session: its process, its user, and its name.
    pub session: String,
    /// What to do about it.
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
