//! Report of the relay: its log lines, metrics and status.

pub(super) mod dead_letters;
pub mod flows;
pub mod heartbeat;
pub mod outage;
pub mod producers;
pub mod status;
mod transitions;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use self::{
    dead_letters::DeadLetterLog,
    heartbeat::Heartbeat,
    status::{GateStatus, LEASE_UNCONFIRMED, LinkStatus, Status},
};
use crate::{
    clock,
    delivery::{ClosureKind, DeadEvent, Delivery, Outcome, Settlement, Transition},
    event::Event,
    metrics::{CircuitState, Failure, FlowMetrics, PublishedBatch},
    relay::{holding::Holding, log::BrokerLog, publishing::readiness::Readiness},
};

/// Shortest time between two status snapshots.
const STATUS_INTERVAL: Duration = Duration::from_millis(250);

/// Shortest time between two log lines about messages that the broker refuses for now.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Shortest time between two log lines about a publishing gate that is closed as misconfigured.
const MISCONFIGURED_INTERVAL: Duration = Duration::from_secs(5);

/// Reporter: the status and metrics of the relay, and what it has logged lately.
#[derive(Debug)]
pub(in crate::relay) struct Reporter {
    pub(in crate::relay) status: Arc<watch::Sender<Status>>,
    pub(in crate::relay) metrics: Arc<FlowMetrics>,
    heartbeat: Heartbeat,
    pub(in crate::relay) batch: PublishedBatch,
    pub(in crate::relay) dead_letters: DeadLetterLog,
    /// Time of day. It is read once for many events, because reading the clock for each would cost
    /// too much.
    time_of_day: Timestamp,
    published_total: u64,
    last_status: Option<Instant>,
    last_line: Option<Instant>,
    suppressed: u64,
    regression: Option<String>,
    /// When a publishing gate that is closed as misconfigured was last logged.
    misconfigured_logged: Option<Instant>,
    /// Whether the last log line about the lease says that it is confirmed.
    is_trusted: bool,
}

impl Reporter {
    /// A reporter that has reported nothing yet.
    pub(in crate::relay) fn new(
        status: Arc<watch::Sender<Status>>,
        metrics: Arc<FlowMetrics>,
    ) -> Self {
        let heartbeat = status.borrow().last_turn.clone();
        Self {
            status,
            metrics,
            heartbeat,
            batch: PublishedBatch::default(),
            dead_letters: DeadLetterLog::default(),
            time_of_day: Timestamp::default(),
            published_total: 0,
            last_status: None,
            last_line: None,
            suppressed: 0,
            regression: None,
            misconfigured_logged: None,
            is_trusted: true,
        }
    }

    /// Reads the time of day and the monotonic clock, before answers are absorbed.
    pub(in crate::relay) fn note_the_time(&mut self) -> Instant {
        self.time_of_day = Timestamp::now();
        clock::now()
    }

    /// Counts events that become dead letters. They are logged once they are written.
    pub(in crate::relay) fn dead_events(&mut self, delivery: &mut Delivery) {
        for DeadEvent { reason, .. } in delivery.take_dead_events() {
            self.metrics.publishing.dead_lettered(reason.code);
            self.dead_letters.decided(reason.code);
        }
    }

    /// Reports a committed settlement.
    pub(in crate::relay) fn settled(&self, settlement: &Settlement) {
        if settlement.events > 0 {
            self.metrics.publishing.settled(settlement.events);
        }
        debug!(
            events = settlement.events,
            letters = settlement.letters.len(),
            bookmark = settlement.position.bookmark.0,
            "wrote the position of the relay"
        );
    }

    /// Reports that the broker has lost acknowledged messages. Returns whether this was not
    /// reported before.
    pub(in crate::relay) fn regressed(&mut self, text: &str) -> bool {
        if self.regression.as_deref() == Some(text) {
            return false;
        }
        error!(
            error = text,
            hint = ClosureKind::BrokerRegressed.hint(),
            "the broker has lost events that it had acknowledged"
        );
        self.regression = Some(text.to_owned());
        true
    }

    /// Counts the outcome of a publish.
    pub(in crate::relay) fn outcome(
        &mut self,
        event: Option<(&Event, bool)>,
        outcome: &Outcome,
        took: Duration,
    ) {
        match outcome {
            Outcome::Acked { duplicate, .. } => {
                self.published_total += 1;
                let since = event.and_then(|(event, _)| since_written(event, self.time_of_day));
                if *duplicate {
                    self.batch.deduplicated(took, since);
                } else {
                    self.batch.stored(took, since);
                }
            }
            Outcome::Rejected(rejection) => {
                self.metrics.publishing.failed(Failure::Rejected);
                debug!(
                    code = rejection.code,
                    "a message was rejected for good; its event becomes a dead letter"
                );
            }
            Outcome::Busy { reason, .. } => {
                self.metrics.publishing.failed(Failure::Busy);
                if let Some(suppressed) = self.may_log() {
                    warn!(answer = %reason.text, suppressed, "the broker refused a message for now; the relay tries it again");
                }
            }
            Outcome::Unconfirmed => self.metrics.publishing.failed(Failure::Unconfirmed),
            Outcome::Unavailable(closure) => self.metrics.publishing.failed(failure(closure.kind)),
        }
    }

    /// Logs that the publishing gate has closed or opened.
    pub(in crate::relay) fn gate(
        &mut self,
        delivery: &mut Delivery,
        transition: Transition,
        now: Instant,
    ) {
        match (transition, delivery.breaker().cause()) {
            (Transition::None | Transition::WentBack, _) => return,
            // A foreign service that answers on some subjects makes the gate close and open all the
            // time, so not every closure is logged.
            (Transition::Opened, Some((closure, _))) if !self.may_log_gate(closure.kind, now) => {
                debug!(error = %closure.text, "nothing can be published just now; events wait");
            }
            (Transition::Opened, Some((closure, _))) => warn!(
                kind = closure.kind.as_str(), error = %closure.text, hint = &*closure.hint,
                "nothing can be published just now; events wait"
            ),
            (Transition::Opened | Transition::Closed, _) => {
                info!("publishing goes on after the pause");
            }
        }
        self.last_status = None;
        debug!(breaker = delivery.breaker().state_name(), ?now, "the publishing gate changed");
    }

    /// Whether to log that the publishing gate has closed. A gate that is closed as misconfigured
    /// is logged at most every [`MISCONFIGURED_INTERVAL`].
    fn may_log_gate(&mut self, kind: ClosureKind, now: Instant) -> bool {
        let is_again = self
            .misconfigured_logged
            .is_some_and(|at| now.duration_since(at) < MISCONFIGURED_INTERVAL);
        if kind != ClosureKind::Misconfigured {
            return true;
        }
        if !is_again {
            self.misconfigured_logged = Some(now);
        }
        !is_again
    }

    /// Whether another line about busy answers may be logged: `None` if not, else the number of
    /// lines suppressed since the last one.
    fn may_log(&mut self) -> Option<u64> {
        let now = clock::now();
        if self.last_line.is_some_and(|last| now.duration_since(last) < LOG_INTERVAL) {
            self.suppressed += 1;
            return None;
        }
        self.last_line = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl Reporter {
    /// Takes the status snapshot and sets the gauges, at most every [`STATUS_INTERVAL`].
    pub(in crate::relay) fn snapshot(&mut self, log: &BrokerLog, holding: &Holding, now: Instant) {
        let last = self.last_status;
        if last.is_some_and(|last| now.duration_since(last) < STATUS_INTERVAL) {
            return;
        }
        self.last_status = Some(now);
        self.dead_letters.sum_up(now);
        let delivery = &holding.delivery;
        self.metrics.publishing.set_waiting(delivery.in_flight(), delivery.blocked_keys());
        self.metrics.dependencies.circuit(match delivery.breaker().state_name() {
            "closed" => CircuitState::Closed,
            "half_open" => CircuitState::HalfOpen,
            _ => CircuitState::Open,
        });
        let gate = delivery.breaker().cause().map(|(closure, since)| GateStatus {
            kind: closure.kind.as_str(),
            text: closure.text.clone(),
            hint: closure.hint.clone().into_owned(),
            since: *since,
        });
        // A closed publishing gate says more than the progress of a scan.
        let gate = gate.or_else(|| log.scan_status(now));
        let readiness = Readiness::of(log, holding, now);
        let published_total = self.published_total;
        self.status.send_modify(|status| {
            status.note_readiness(readiness, now);
            if !log.is_connected() && matches!(status.nats, LinkStatus::Up) {
                status.nats = LinkStatus::Connecting { detail: "no connection yet".to_owned() };
            }
            status.gate = gate;
            status.in_flight = delivery.in_flight();
            status.waiting = delivery.events().saturating_sub(delivery.in_flight());
            if status.published_total != published_total {
                status.published_total = published_total;
                status.confirmed_at = now;
            }
        });
        // Trust is logged with a session only: without one no lease can be confirmed, and the lost
        // session has a log line of its own.
        if readiness != Readiness::SessionEnded {
            self.log_trust(now);
        }
    }

    /// Logs once that the lease cannot be confirmed, and once that it is confirmed again.
    fn log_trust(&mut self, now: Instant) {
        let link = self.status.borrow().postgres_link(now);
        let is_trusted = !matches!(link, LinkStatus::Down { .. });
        if is_trusted == self.is_trusted {
            return;
        }
        self.is_trusted = is_trusted;
        if is_trusted {
            info!("the lease is confirmed again; publishing goes on");
        } else {
            warn!(error = LEASE_UNCONFIRMED, "publishing pauses until postgres confirms the lease");
        }
    }
}

fn failure(kind: ClosureKind) -> Failure {
    match kind {
        ClosureKind::StreamUnavailable => Failure::StreamUnavailable,
        ClosureKind::Misconfigured => Failure::Misconfigured,
        ClosureKind::PermissionDenied => Failure::PermissionDenied,
        ClosureKind::BrokerStalled => Failure::BrokerStalled,
        ClosureKind::StoreStalled => Failure::StoreStalled,
        ClosureKind::BrokerRegressed => Failure::BrokerRegressed,
    }
}

/// Time since the event occurred. The clocks of two machines are compared and may differ, so it is
/// only a figure for people.
fn since_written(event: &Event, now: Timestamp) -> Option<Duration> {
    now.duration_since(event.occurred_at?).try_into().ok()
}
