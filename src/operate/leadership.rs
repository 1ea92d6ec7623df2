//! Reads from the database who leads a relay, its position, and what the leader reports.

use serde::{Deserialize, Serialize};

use crate::{
    findings::{Code, Finding, LinkState, RelayFacts, Role, Severity, code_named, is_obstacle},
    outbox::{Inspection, Leader, RelayProgress},
    pg::error::QueryError,
};

/// The state of a relay, as the database says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayState {
    /// The database did not answer.
    Unknown,
    /// An instance leads the relay, and a fault keeps it from publishing.
    Blocked,
    /// An instance leads the relay, and has not begun to publish.
    Starting,
    /// An instance leads the relay.
    Running,
    /// No instance leads the relay.
    NotRunning,
    /// No instance has ever led the relay.
    NeverStarted,
    /// No instance has led the relay for longer than the retention, and its position keeps rows in
    /// the outbox.
    Abandoned,
}

impl RelayState {
    /// State of the relay in words, for a person.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Blocked => "blocked",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::NotRunning => "not running",
            Self::NeverStarted => "never started",
            Self::Abandoned => "abandoned",
        }
    }
}

/// The leader of a relay, its position and its instances.
pub struct Leadership {
    /// The relay's name.
    pub relay: String,
    /// The instance that leads; `None` when nobody does.
    pub leader: Option<Leader>,
    /// Position of the relay; `None` when it has never run.
    pub progress: Option<RelayProgress>,
    /// Sessions of instances of the relay, whether or not they lead.
    instances: Vec<String>,
    /// Whether the database answered, so that the other fields are known.
    is_known: bool,
}

/// The report of the instance that leads.
#[derive(Debug, Default, Deserialize)]
struct Reported {
    #[serde(default)]
    findings: Vec<ReportedFinding>,
}

#[derive(Debug, Deserialize)]
struct ReportedFinding {
    code: String,
    severity: String,
    cause: String,
    next: String,
}

impl Leadership {
    /// Reads the leadership of a relay from the database.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn ask(inspection: &Inspection, relay: &str) -> Result<Self, QueryError> {
        Ok(Self {
            relay: relay.to_owned(),
            progress: inspection.progress(relay).await?,
            leader: inspection.leader(relay).await?,
            instances: inspection.instances(relay).await?,
            is_known: true,
        })
    }

    /// The leadership of a relay when the database could not be asked.
    pub fn unknown(relay: &str) -> Self {
        let (relay, instances) = (relay.to_owned(), Vec::new());
        Self { relay, leader: None, progress: None, instances, is_known: false }
    }

    /// Whether an instance runs, leading or not.
    pub fn is_run(&self) -> bool {
        self.leader.is_some() || !self.instances.is_empty()
    }

    /// The leader's reason for publishing nothing. `None` when nobody leads, because the note of an
    /// earlier leader does not count.
    pub fn note(&self) -> Option<&str> {
        self.leader.as_ref()?;
        self.progress.as_ref()?.note.as_deref()
    }

    /// The state of the relay.
    pub fn state(&self) -> RelayState {
        let is_blocked = self.note().is_some() || self.facts().reported.iter().any(is_obstacle);
        match (&self.leader, &self.progress) {
            _ if !self.is_known => RelayState::Unknown,
            (Some(_), _) if is_blocked => RelayState::Blocked,
            (Some(_), _) if !self.has_reported() => RelayState::Starting,
            (Some(_), _) => RelayState::Running,
            (None, Some(_)) => RelayState::NotRunning,
            (None, None) => RelayState::NeverStarted,
        }
    }

    /// Facts about the relay without its backlog, which is not measured here.
    pub fn facts(&self) -> RelayFacts {
        let role = match (&self.leader, &self.progress) {
            _ if !self.is_known => Role::Unknown,
            (None, None) => Role::NeverStarted,
            (None, Some(_)) => Role::NotRunning,
            (Some(leader), progress) => Role::Led {
                by: leader.holder.clone(),
                silent_seconds: progress.as_ref().map(|progress| progress.silent_seconds),
                has_reported: self.has_reported(),
            },
        };
        let is_led = self.leader.is_some();
        let reported = if is_led { self.reported() } else { Vec::new() };
        RelayFacts {
            relay: self.relay.clone(),
            role,
            postgres: LinkState::Up,
            instances: self.instances.clone(),
            reported,
            ..RelayFacts::default()
        }
    }

    /// Whether the leader has reported under its term. A program of a version without leases never
    /// reports.
    fn has_reported(&self) -> bool {
        let reported = self.progress.as_ref().and_then(|progress| progress.report.as_ref());
        reported.is_some() || self.leader.as_ref().is_some_and(|leader| leader.is_locked)
    }

    fn reported(&self) -> Vec<Finding> {
        let report = self.progress.as_ref().and_then(|progress| progress.report.as_deref());
        let report: Reported = report
            // A report of another version may be unreadable here. Then everything but the report is
            // shown.
            .and_then(|report| serde_json::from_str(report).ok())
            .unwrap_or_default();
        let finding = |reported: ReportedFinding| Finding {
            code: code_named(&reported.code).unwrap_or(Code::Other),
            severity: match reported.severity.as_str() {
                "warning" => Severity::Warning,
                _ => Severity::Critical,
            },
            cause: reported.cause,
            next: reported.next,
        };
        report.findings.into_iter().map(finding).collect()
    }
}
