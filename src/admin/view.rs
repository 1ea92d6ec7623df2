//! The state of the relays as JSON, for the pages `/readyz` and `/api/v1/status`.

use std::time::Instant;

use serde::Serialize;

use super::Audience;
use crate::{
    findings::{self, Finding},
    relay::report::{
        flows::FlowStatuses,
        status::{GateStatus, LinkStatus, Phase, Status},
    },
};

/// The answer of `/readyz?verbose`: whether events can flow, the findings, and the state of
/// Postgres and NATS.
#[derive(Debug, Serialize)]
pub(super) struct ReadinessView {
    ready: bool,
    obstacles: Vec<&'static str>,
    findings: Vec<FindingView>,
    phase: &'static str,
    /// Name of the instance that leads; `None` unless this one stands by.
    leader: Option<String>,
    dependencies: [LinkView; 2],
    gate: Option<GateView>,
}

impl ReadinessView {
    pub(super) fn of(
        status: &Status,
        findings: &[Finding],
        now: Instant,
        audience: Audience,
    ) -> Self {
        let obstacles = findings.iter().filter(|finding| findings::is_obstacle(finding));
        Self {
            ready: findings::is_ready(findings),
            obstacles: obstacles.map(|finding| finding.code.as_str()).collect(),
            findings: FindingView::all(findings, audience),
            phase: status.phase.as_str(),
            leader: status.leader.clone().filter(|_| status.phase == Phase::Standby),
            dependencies: [
                LinkView::of("postgres", &status.postgres_link(now), audience),
                LinkView::of("nats", &status.nats, audience),
            ],
            gate: status.gate.as_ref().map(|gate| GateView::of(gate, now, audience)),
        }
    }
}

/// The answer of `/api/v1/status`: the sum of all routes, and the state of each route.
#[derive(Debug, Serialize)]
pub(super) struct StatusView {
    version: &'static str,
    #[serde(flatten)]
    sum: FlowView,
    findings: Vec<FindingView>,
    routes: Vec<RouteView>,
}

/// The state of a route.
#[derive(Debug, Serialize)]
struct RouteView {
    route: String,
    #[serde(flatten)]
    flow: FlowView,
    findings: Vec<FindingView>,
}

#[derive(Debug, Serialize)]
struct FlowView {
    phase: &'static str,
    dependencies: [LinkView; 2],
    gate: Option<GateView>,
    /// Reason why this instance leads and yet may hand no message to the broker.
    unready: Option<&'static str>,
    in_flight: usize,
    waiting: usize,
    backlog: u64,
    lag_seconds: f64,
    retrying: u64,
    held: u64,
    dead: u64,
    measured_seconds_ago: f64,
    term: i64,
    published_total: u64,
    last_turn_seconds: f64,
    leader: Option<String>,
}

impl StatusView {
    pub(super) fn of(seen: &FlowStatuses, now: Instant, audience: Audience) -> Self {
        let route = |(route, status): &(String, Status)| RouteView {
            route: route.clone(),
            flow: FlowView::of(status, now, audience),
            findings: FindingView::all(&status.findings(now), audience),
        };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            sum: FlowView::of(&seen.sum(), now, audience),
            findings: FindingView::all(&seen.findings(now), audience),
            routes: seen.0.iter().map(route).collect(),
        }
    }
}

impl FlowView {
    fn of(status: &Status, now: Instant, audience: Audience) -> Self {
        let depth = status.measured.depth;
        Self {
            phase: status.phase.as_str(),
            dependencies: [
                LinkView::of("postgres", &status.postgres_link(now), audience),
                LinkView::of("nats", &status.nats, audience),
            ],
            gate: status.gate.as_ref().map(|gate| GateView::of(gate, now, audience)),
            unready: status.unready.map(|pause| pause.readiness.as_str()),
            in_flight: status.in_flight,
            waiting: status.waiting,
            backlog: depth.backlog(),
            lag_seconds: status.measured.oldest_seconds(now),
            retrying: depth.retrying,
            held: depth.held,
            dead: depth.dead,
            measured_seconds_ago: status.measured.age(now).as_secs_f64(),
            term: status.term,
            published_total: status.published_total,
            last_turn_seconds: status.last_turn.age(now).as_secs_f64(),
            leader: status.leader.clone().filter(|_| status.phase == Phase::Standby),
        }
    }
}

/// A finding about the state of the program, such as a problem. Its sentences are shown to clients
/// on this machine only.
#[derive(Debug, Serialize)]
struct FindingView {
    code: &'static str,
    severity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl FindingView {
    fn all(findings: &[Finding], audience: Audience) -> Vec<Self> {
        let local = audience == Audience::Local;
        let view = |finding: &Finding| Self {
            code: finding.code.as_str(),
            severity: finding.severity.as_str(),
            cause: local.then(|| finding.cause.clone()),
            next: local.then(|| finding.next.clone()),
        };
        findings.iter().map(view).collect()
    }
}

#[derive(Debug, Serialize)]
struct LinkView {
    name: &'static str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl LinkView {
    fn of(name: &'static str, link: &LinkStatus, audience: Audience) -> Self {
        let (state, detail) = match link {
            LinkStatus::Up => ("up", None),
            LinkStatus::Connecting { detail } => ("connecting", Some(detail)),
            LinkStatus::Down { detail, .. } => ("down", Some(detail)),
        };
        let detail = detail.filter(|_| audience == Audience::Local).cloned();
        Self { name, state, detail }
    }
}

#[derive(Debug, Serialize)]
struct GateView {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    seconds: f64,
}

impl GateView {
    fn of(gate: &GateStatus, now: Instant, audience: Audience) -> Self {
        let local = audience == Audience::Local;
        Self {
            kind: gate.kind,
            text: local.then(|| gate.text.clone()),
            hint: local.then(|| gate.hint.clone()),
            seconds: now.saturating_duration_since(gate.since).as_secs_f64(),
        }
    }
}
