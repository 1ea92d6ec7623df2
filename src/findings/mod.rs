//! Computes from plain facts what is wrong with a relay: a list of findings.
//!
//! Readiness, `/api/v1/status`, `postrider status`, `status --check`, `why`, systemd's line, a
//! metric and the note in the database all show this list. Each finding has one cause and one next
//! command. There is no I/O and no clock, so that the tests can list every case in a table.

mod facts;
mod remedy;
mod texts;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;

use serde::{Serialize, Serializer};

pub use facts::{Blocker, Closed, LinkState, RelayFacts, Role, Unready};
pub use remedy::remedy;
pub use texts::{
    chore_consequence, contract, grantor, lost, queued, refused, stranded, within_check,
};

pub use crate::metrics::FindingCode as Code;
use crate::metrics::{Chore, Depth};

/// Age of the oldest waiting event in seconds, inclusive, from which there is a warning.
pub const LAG_WARNING_SECONDS: f64 = 60.0;

/// Age of the oldest waiting event in seconds, inclusive, from which its finding is critical.
pub const LAG_CRITICAL_SECONDS: f64 = 120.0;

/// Seconds without a report of the leader, exclusive, above which there is a finding. A leader
/// reports every ten seconds.
pub const REPORT_MAX_SECONDS: f64 = 25.0;

/// Age of the last measurement of the backlog in seconds, exclusive, above which a finding warns.
const MEASURED_WARNING_SECONDS: f64 = 15.0;

/// Age of the last measurement of the backlog in seconds, inclusive, from which its finding is
/// critical.
const MEASURED_CRITICAL_SECONDS: f64 = 120.0;

/// Seconds, inclusive, from which there is a finding about a leader that may hand no message to the
/// broker.
pub const UNREADY_SECONDS: f64 = 5.0;

/// Failures of a chore in a row, inclusive, from which they are a finding.
const CHORE_FAILURES: u32 = 3;

/// A fault or a state that a person should see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The kind of the finding.
    #[serde(serialize_with = "code_name")]
    pub code: Code,
    /// The severity of the finding.
    pub severity: Severity,
    /// The cause, in one sentence. It may name hosts and quote servers, and contains no secret.
    pub cause: String,
    /// Next command or act of the operator.
    pub next: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field as it is")]
fn code_name<S: Serializer>(code: &Code, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(code.as_str())
}

/// Severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Events flow, as far as can be seen; a person should read the finding.
    Warning,
    /// Events do not flow, or will not arrive by themselves.
    Critical,
}

impl Severity {
    /// Name of the severity in JSON and in texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Whether this finding means that an instance publishes nothing.
pub fn stops_flow(code: Code) -> bool {
    match code {
        Code::NeverStarted
        | Code::NoLeader
        | Code::LeaderSilent
        | Code::Starting
        | Code::RouteFailed
        | Code::Stopping
        | Code::PostgresDown
        | Code::PermissionMissing
        | Code::PostgresLocked
        | Code::NatsDown
        | Code::StreamUnavailable
        | Code::Misconfigured
        | Code::PermissionDenied
        | Code::BrokerStalled
        | Code::StoreStalled
        | Code::Scanning
        | Code::BrokerRegressed
        | Code::Other
        | Code::Stalled => true,
        Code::Lagging
        | Code::LettersRetrying
        | Code::DeadLetters
        | Code::Unrouted
        | Code::Unmeasured
        | Code::ChoreFailing
        | Code::PositionAbandoned
        | Code::EventsLost
        | Code::ProducersHindered
        | Code::ContractBroken => false,
    }
}

/// The code of this name.
pub fn code_named(name: &str) -> Option<Code> {
    Code::ALL.iter().copied().find(|code| code.as_str() == name)
}

/// Findings about a relay with these facts, the worst first.
pub fn of(facts: &RelayFacts) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(role(facts));
    found.extend(postgres(facts));
    found.extend(nats(facts));
    found.extend(facts.gate.as_ref().map(texts::closed));
    found.extend(unready(facts, &found));
    found.extend(facts.reported.iter().cloned());
    found.extend(waiting(facts));
    found.extend(measuring(facts));
    found.extend(
        facts
            .failing
            .iter()
            .filter(|(_, failures)| *failures >= CHORE_FAILURES)
            .map(|(chore, failures)| texts::chore(*chore, *failures)),
    );
    found.extend(facts.abandoned.iter().map(|(relay, seconds)| texts::abandoned(relay, *seconds)));
    found.extend(facts.alarms.iter().cloned());
    // Of two findings with the same code and cause the first is kept.
    let mut seen = Vec::new();
    found.retain(|finding| {
        let is_new = !seen.contains(&(finding.code, finding.cause.clone()));
        seen.push((finding.code, finding.cause.clone()));
        is_new
    });
    found.sort_by_key(|finding| Reverse((finding.severity, stops_flow(finding.code))));
    found
}

/// Finding about a leader that hands nothing over, when this lasts and no other finding explains
/// it.
fn unready(facts: &RelayFacts, found: &[Finding]) -> Option<Finding> {
    let unready = facts.unready.filter(|unready| unready.seconds >= UNREADY_SECONDS)?;
    let is_explained = found.iter().any(|finding| stops_flow(finding.code));
    (!is_explained).then(|| texts::unready(unready))
}

fn role(facts: &RelayFacts) -> Option<Finding> {
    match &facts.role {
        Role::Starting => {
            if let Some(why) = &facts.failed {
                return Some(texts::failed(why));
            }
            // A finding about the start would repeat one about what the start waits for: a
            // connection, a lock, a grant or the publishing gate.
            let is_waiting = facts.postgres != LinkState::Up
                || facts.nats != LinkState::Up
                || facts.blocker.is_some()
                || !facts.missing_grants.is_empty();
            (!is_waiting && facts.gate.is_none()).then(texts::starting)
        }
        Role::Stopping => Some(texts::stopping()),
        // No instance leads because one waits for a lock. The lock is a finding already.
        Role::NeverStarted | Role::NotRunning
            if facts.blocker.is_some() && !facts.instances.is_empty() =>
        {
            None
        }
        Role::NeverStarted => Some(texts::never_started(&facts.relay, &facts.instances)),
        Role::Leading | Role::Standby { leader: Some(_) } | Role::Unknown => None,
        Role::Standby { leader: None } => Some(texts::lease_not_taken(&facts.relay)),
        Role::NotRunning => Some(texts::no_leader(&facts.relay, &facts.instances)),
        Role::Led { by, silent_seconds, has_reported } => {
            let silent = silent_seconds.filter(|seconds| *seconds > REPORT_MAX_SECONDS);
            match silent {
                Some(seconds) => Some(texts::leader_silent(by, seconds)),
                None if *has_reported || facts.blocker.is_some() => None,
                None => Some(texts::begins(by)),
            }
        }
    }
}

fn postgres(facts: &RelayFacts) -> Option<Finding> {
    if let Some(grants) = texts::grants(&facts.missing_grants) {
        return Some(grants);
    }
    if let Some(blocker) = &facts.blocker {
        return Some(texts::locked(blocker));
    }
    match &facts.postgres {
        LinkState::Up | LinkState::Unknown => None,
        LinkState::Connecting { detail } => Some(texts::postgres_down(detail, None)),
        LinkState::Down { detail, hint } => Some(texts::postgres_down(detail, hint.as_deref())),
    }
}

fn nats(facts: &RelayFacts) -> Option<Finding> {
    let is_standby = matches!(facts.role, Role::Standby { .. });
    let mut finding = match &facts.nats {
        LinkState::Up | LinkState::Unknown => return None,
        LinkState::Connecting { detail } => texts::nats_down(detail, None),
        LinkState::Down { detail, hint } => texts::nats_down(detail, hint.as_deref()),
    };
    if is_standby {
        // A standby without NATS deserves only a warning: it does not publish, and the leader has a
        // connection of its own.
        finding.severity = Severity::Warning;
    }
    Some(finding)
}

/// Findings about events and letters that wait, and for how long.
fn waiting(facts: &RelayFacts) -> Vec<Finding> {
    let mut found = Vec::new();
    let Some(depth) = &facts.depth else { return found };
    let leads = matches!(facts.role, Role::Leading | Role::Led { .. });
    let is_late = facts.oldest_seconds >= LAG_WARNING_SECONDS && depth.backlog() > 0;
    let is_very_late = facts.oldest_seconds >= LAG_CRITICAL_SECONDS && depth.backlog() > 0;
    let silent = facts.unconfirmed_seconds.filter(|silent| *silent >= LAG_CRITICAL_SECONDS);
    match silent {
        // Events wait and the stream confirms no message. Another finding may name the cause; this
        // one names the effect.
        Some(silent) if is_very_late && leads && depth.unsettled > 0 => {
            found.push(texts::stalled(depth, facts.oldest_seconds, silent));
        }
        _ if is_late => found.push(texts::lagging(depth, facts.oldest_seconds)),
        _ => {}
    }
    if depth.retrying > 0 {
        found.push(texts::retrying(depth, facts.oldest_seconds));
    }
    if depth.dead > 0 {
        found.push(texts::dead(depth.dead));
    }
    if let Some(unrouted) = facts.unrouted.filter(|count| *count > 0) {
        found.push(texts::unrouted(unrouted));
    }
    found
}

fn measuring(facts: &RelayFacts) -> Option<Finding> {
    let age = facts.measured_seconds_ago?;
    (age > MEASURED_WARNING_SECONDS).then(|| texts::unmeasured(age))
}

/// Whether an instance with these findings can publish, or could if it led.
pub fn is_ready(findings: &[Finding]) -> bool {
    !findings.iter().any(is_obstacle)
}

/// Whether this finding keeps an instance from being ready.
pub fn is_obstacle(finding: &Finding) -> bool {
    stops_flow(finding.code) && finding.severity == Severity::Critical
}
