//! The leader of a relay and its report, read from the database.

use serde::Deserialize;

use crate::{
    findings::{Code, Facts, Finding, Role, Severity, code_named, is_obstacle},
    outbox::{Inspection, Leader, Progress},
    pg::error::{Class, QueryError},
    relay::contract,
};

/// What the database knows of a relay, what waits aside.
pub(super) struct Standing {
    pub(super) relay: String,
    pub(super) leader: Option<Leader>,
    pub(super) progress: Option<Progress>,
    /// Sessions of instances of the relay, whether or not they lead.
    instances: Vec<String>,
    /// Whether the database could be asked.
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

/// The conditions of the outbox that do not hold, as findings. A user who may not ask gets none.
///
/// # Errors
/// As the session's.
pub(super) async fn broken(
    inspection: &Inspection,
    relay: &str,
) -> Result<Vec<Finding>, QueryError> {
    match inspection.broken_contract(relay).await {
        Ok(broken) => Ok(broken.iter().map(contract::finding).collect()),
        Err(error) if error.class() == Class::Permission => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

impl Standing {
    pub(super) async fn ask(inspection: &Inspection, relay: &str) -> Result<Self, QueryError> {
        Ok(Self {
            relay: relay.to_owned(),
            progress: inspection.progress(relay).await?,
            leader: inspection.leader(relay).await?,
            instances: inspection.instances(relay).await?,
            is_known: true,
        })
    }

    /// The standing of a relay that nobody could ask about.
    pub(super) fn unknown(relay: &str) -> Self {
        let (relay, instances) = (relay.to_owned(), Vec::new());
        Self { relay, leader: None, progress: None, instances, is_known: false }
    }

    /// Whether an instance is there, be it that it does not lead.
    pub(super) fn is_run(&self) -> bool {
        self.leader.is_some() || !self.instances.is_empty()
    }

    /// Why nothing is published; what the last holder noted counts only while somebody holds it.
    pub(super) fn note(&self) -> Option<&str> {
        self.leader.as_ref()?;
        self.progress.as_ref()?.note.as_deref()
    }

    pub(super) fn state(&self) -> &'static str {
        let is_blocked = self.note().is_some() || self.facts().reported.iter().any(is_obstacle);
        match (&self.leader, &self.progress) {
            _ if !self.is_known => "unknown",
            (Some(_), _) if is_blocked => "blocked",
            (Some(_), _) if !self.has_reported() => "starting",
            (Some(_), _) => "running",
            (None, Some(_)) => "not running",
            (None, None) => "never started",
        }
    }

    /// What is known without having measured what waits.
    pub(super) fn facts(&self) -> Facts {
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
        Facts {
            relay: self.relay.clone(),
            role,
            postgres: crate::findings::Link::Up,
            instances: self.instances.clone(),
            reported,
            ..Facts::default()
        }
    }

    /// Whether the leader has reported under its term. One of before there were leases never does.
    fn has_reported(&self) -> bool {
        let reported = self.progress.as_ref().and_then(|progress| progress.report.as_ref());
        reported.is_some() || self.leader.as_ref().is_some_and(|leader| leader.is_locked)
    }

    fn reported(&self) -> Vec<Finding> {
        let report = self.progress.as_ref().and_then(|progress| progress.report.as_deref());
        let report: Reported = report
            // One of another version is no reason to show nothing.
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
