//! Flows of a program as observers see them: each flow, and the sum of all.

use std::{cmp::Reverse, sync::Arc, time::Instant};

use tokio::sync::watch;

use super::status::{Counted, LinkStatus, Phase, Status};
use crate::{
    findings::{Finding, stops_flow},
    metrics::{Depth, FlowMetrics, Measured},
};

/// Flow as observers see it.
#[derive(Debug, Clone)]
pub struct ObservedFlow {
    /// Name of the flow's route.
    pub route: String,
    /// Status of the flow.
    pub status: watch::Receiver<Status>,
    /// Metrics of the flow.
    pub metrics: Arc<FlowMetrics>,
}

/// Flows of a program, at least one.
#[derive(Debug, Clone)]
pub struct Flows(pub Vec<ObservedFlow>);

impl Flows {
    /// Status of each flow at one moment.
    pub fn seen(&self) -> FlowStatuses {
        FlowStatuses(
            self.0.iter().map(|flow| (flow.route.clone(), flow.status.borrow().clone())).collect(),
        )
    }
}

/// Status of each flow at one moment, with the name of its route.
#[derive(Debug, Clone)]
pub struct FlowStatuses(pub Vec<(String, Status)>);

impl FlowStatuses {
    /// Findings of all flows, the worst first. With several flows each cause names its route.
    pub fn findings(&self, now: Instant) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (route, status) in &self.0 {
            for mut finding in status.findings(now) {
                if self.0.len() > 1 {
                    finding.cause = format!("route {route}: {}", finding.cause);
                }
                findings.push(finding);
            }
        }
        findings.sort_by_key(|finding| Reverse((finding.severity, stops_flow(finding.code))));
        findings
    }

    /// Sum of the flows: the phase of lowest `rank`, the worst connections and the sums of the
    /// figures.
    pub fn sum(&self) -> Status {
        let mut statuses = self.0.iter().map(|(_, status)| status.clone());
        let first = statuses.next().unwrap_or_else(Status::starting);
        statuses.fold(first, add)
    }
}

/// Sum of the statuses of two flows.
fn add(one: Status, other: Status) -> Status {
    let phase = if rank(other.phase) < rank(one.phase) { other.phase } else { one.phase };
    let now = Instant::now();
    let is_older = other.last_turn.age(now) > one.last_turn.age(now);
    Status {
        phase,
        postgres: worse(one.postgres_link(now), other.postgres_link(now)),
        nats: worse(one.nats, other.nats),
        gate: one.gate.or(other.gate),
        unready: [one.unready, other.unready].into_iter().flatten().min_by_key(|pause| pause.since),
        in_flight: one.in_flight + other.in_flight,
        waiting: one.waiting + other.waiting,
        measured: Measured {
            at: one.measured.at.min(other.measured.at),
            depth: deeper(one.measured.depth, other.measured.depth),
        },
        term: one.term.max(other.term),
        published_total: one.published_total
            + match other.counts {
                Counted::Published => other.published_total,
                Counted::Unrouted => 0,
            },
        last_turn: if is_older { other.last_turn } else { one.last_turn },
        leader: one.leader.or(other.leader),
        confirmed_at: one.confirmed_at.max(other.confirmed_at),
        ..Status::starting()
    }
}

/// Rank of a phase. The sum of several flows shows the phase with the lowest rank.
fn rank(phase: Phase) -> u8 {
    match phase {
        Phase::Starting => 0,
        Phase::Stopping => 1,
        Phase::Relaying => 2,
        Phase::Standby => 3,
        Phase::Stopped => 4,
    }
}

fn worse(one: LinkStatus, other: LinkStatus) -> LinkStatus {
    match (&one, &other) {
        (LinkStatus::Down { .. }, _) | (_, LinkStatus::Up) => one,
        _ => other,
    }
}

fn deeper(one: Depth, other: Depth) -> Depth {
    let oldest = [one.oldest_seconds, other.oldest_seconds].into_iter().flatten();
    Depth {
        unsettled: one.unsettled + other.unsettled,
        retrying: one.retrying + other.retrying,
        held: one.held + other.held,
        dead: one.dead + other.dead,
        oldest_seconds: oldest.max_by(f64::total_cmp),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn relaying(unsettled: u64) -> Status {
        let depth = Depth { unsettled, oldest_seconds: Some(1.0), ..Depth::default() };
        Status {
            phase: Phase::Relaying,
            postgres: LinkStatus::Up,
            nats: LinkStatus::Up,
            measured: Measured { at: Instant::now(), depth },
            ..Status::starting()
        }
    }

    fn seen(statuses: Vec<Status>) -> FlowStatuses {
        let names = ["orders", "invoices", "audit"];
        FlowStatuses(names.iter().map(ToString::to_string).zip(statuses).collect())
    }

    #[test]
    fn a_sum_is_no_further_than_its_last_and_no_better_than_its_worst() {
        let down = LinkStatus::Down { detail: "gone".to_owned(), hint: None };
        let failed =
            Status { phase: Phase::Starting, nats: down.clone(), in_flight: 3, ..relaying(5) };
        let sum = seen(vec![relaying(2), failed, relaying(1)]).sum();
        assert_eq!((sum.phase, sum.nats, sum.postgres), (Phase::Starting, down, LinkStatus::Up));
        assert_eq!((sum.in_flight, sum.measured.depth.backlog()), (3, 8));
        let one = seen(vec![relaying(2)]).sum();
        assert_eq!((one.phase, one.measured.depth.backlog()), (Phase::Relaying, 2));
    }

    #[test]
    fn findings_name_their_route_where_there_are_several() {
        let now = Instant::now();
        let failed = Status { phase: Phase::Stopping, ..relaying(0) };
        let alone = seen(vec![failed.clone()]).findings(now);
        let among = seen(vec![relaying(0), failed]).findings(now);
        assert_eq!(alone.len(), 1, "{alone:?}");
        assert_eq!(among[0].cause, format!("route invoices: {}", alone[0].cause));
    }

    #[test]
    fn the_loop_that_stands_still_is_the_sums() {
        let long_ago = Instant::now().checked_sub(Duration::from_mins(1)).unwrap();
        let still = crate::relay::report::heartbeat::Heartbeat::start_at(long_ago);
        let sum = seen(vec![relaying(0), Status { last_turn: still, ..relaying(0) }]).sum();
        assert!(sum.last_turn.age(Instant::now()) > Duration::from_secs(50));
    }
}
