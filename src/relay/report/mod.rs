//! Report of the relay: log lines, metrics, the status snapshot.

pub(super) mod dead_letters;
pub mod flows;
pub mod heartbeat;
pub mod outage;
pub mod producers;
pub mod status;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tracing::{debug, error, info, warn};

use self::{
    dead_letters::Deaths,
    status::{GateStatus, Link},
};
use crate::{
    clock,
    delivery::{
        ClosureKind, DeadEvent, Delivery, LetterChange, Outcome, Record, Records, RecordsPart,
        Settlement, Transition,
    },
    event::Event,
    metrics::{CircuitState, Failure, Metrics, PublishedBatch},
    outbox::{DeadLetter, SettleError, Written},
    pg::error::QueryError,
    relay::{
        Relay,
        holding::{Ended, Holding, reader::Reading},
    },
};

/// How often the status snapshot is taken at most.
const STATUS_INTERVAL: Duration = Duration::from_millis(250);

/// How often busy answers are logged one by one at most.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is logged at most that the publishing gate closed as misconfigured.
const FOREIGN_INTERVAL: Duration = Duration::from_secs(5);

/// State of the report: figures between two snapshots, and the lines logged last.
#[derive(Debug, Default)]
pub(in crate::relay) struct Report {
    pub(in crate::relay) batch: PublishedBatch,
    pub(in crate::relay) deaths: Deaths,
    /// The time of day: reading the clock for each event would cost more than what it tells.
    time_of_day: Timestamp,
    published_total: u64,
    last_status: Option<Instant>,
    last_line: Option<Instant>,
    suppressed: u64,
    regression: Option<String>,
    /// When the publishing gate, closed as misconfigured, was logged last.
    foreign_told: Option<Instant>,
    /// Since when the trust in the lease is seen to have ended.
    pub(in crate::relay) untrusted_since: Option<Instant>,
    /// Whether people were told that the lease cannot be renewed.
    pub(in crate::relay) untrusted: bool,
}

impl Report {
    /// Reads both clocks before answers are taken in.
    pub(in crate::relay) fn note_the_time(&mut self) -> Instant {
        self.time_of_day = Timestamp::now();
        clock::now()
    }

    /// Events are to become dead letters. The log names them once they are written.
    pub(in crate::relay) fn deaths(&mut self, metrics: &Metrics, delivery: &mut Delivery) {
        for DeadEvent { reason, .. } in delivery.take_dead_events() {
            metrics.publishing.dead_lettered(reason.code);
            self.deaths.decided(reason.code);
        }
    }

    /// The stream has lost what it had acknowledged. Returns whether that is news.
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

    /// The broker answered.
    pub(in crate::relay) fn outcome(
        &mut self,
        metrics: &Metrics,
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
                metrics.publishing.failed(Failure::Rejected);
                debug!(code = rejection.code, "rejected");
            }
            Outcome::Busy { reason, .. } => {
                metrics.publishing.failed(Failure::Busy);
                if let Some(suppressed) = self.may_log() {
                    warn!(answer = %reason.text, suppressed, "the broker asks for patience");
                }
            }
            Outcome::Unconfirmed => metrics.publishing.failed(Failure::Unconfirmed),
            Outcome::Unavailable(closure) => metrics.publishing.failed(failure(closure.kind)),
        }
    }

    /// The publishing gate closed or opened.
    pub(in crate::relay) fn gate(
        &mut self,
        delivery: &mut Delivery,
        transition: Transition,
        now: Instant,
    ) {
        match (transition, delivery.breaker().cause()) {
            (Transition::None | Transition::WentBack, _) => return,
            // A stranger that answers for some subjects only opens and closes the publishing
            // gate all the time.
            (Transition::Opened, Some((closure, _))) if !self.may_tell_gate(closure.kind, now) => {
                debug!(error = %closure.text, "nothing can be published just now; events wait");
            }
            (Transition::Opened, Some((closure, _))) => warn!(
                kind = closure.kind.as_str(), error = %closure.text, hint = &*closure.hint,
                "nothing can be published just now; events wait"
            ),
            (Transition::Opened | Transition::Closed, _) => info!("events flow again"),
        }
        self.last_status = None;
        debug!(state = delivery.breaker().state_name(), ?now, "gate");
    }

    /// Whether it is logged that the publishing gate has closed: of foreign answers not again
    /// within a while.
    fn may_tell_gate(&mut self, kind: ClosureKind, now: Instant) -> bool {
        let is_again =
            self.foreign_told.is_some_and(|at| now.duration_since(at) < FOREIGN_INTERVAL);
        if kind != ClosureKind::Misconfigured {
            return true;
        }
        if !is_again {
            self.foreign_told = Some(now);
        }
        !is_again
    }

    /// Whether one more line may be logged, and how many were not since the last.
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

impl Relay {
    /// Takes the status snapshot and sets the gauges, from time to time.
    pub(in crate::relay) fn report(&mut self, holding: &Holding, now: Instant) {
        let last = self.report.last_status;
        if last.is_some_and(|last| now.duration_since(last) < STATUS_INTERVAL) {
            return;
        }
        self.report.last_status = Some(now);
        self.report.deaths.sum_up(now);
        let delivery = &holding.delivery;
        self.metrics.publishing.held(delivery.in_flight(), delivery.blocked_keys());
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
        // A closed publishing gate says more than a scan that goes on beside it.
        let gate = gate.or_else(|| self.log.scan_status(now));
        let connected = self.log.is_connected();
        let readiness = self.readiness(holding, now);
        self.status.send_modify(|status| {
            // Conditions that follow each other are one pause.
            let since = status.unready.map_or(now, |(_, since)| since);
            status.unready = readiness.finding().is_some().then_some((readiness, since));
            if !connected && matches!(status.nats, Link::Up) {
                status.nats = Link::Connecting { detail: "no connection yet".to_owned() };
            }
            status.gate = gate;
            status.in_flight = delivery.in_flight();
            status.waiting = delivery.events().saturating_sub(delivery.in_flight());
            if status.published_total != self.report.published_total {
                status.published_total = self.report.published_total;
                status.confirmed_at = now;
            }
        });
    }

    /// Takes in a reading of the outbox.
    pub(in crate::relay) fn fetched(
        &mut self,
        holding: &mut Holding,
        reading: Result<Reading, QueryError>,
    ) -> Result<(), Ended> {
        let rows = holding.fetched(reading, clock::now())?;
        if rows > 0 {
            self.metrics.outbox.fetched(rows);
        }
        Ok(())
    }

    /// Takes in what became of a settlement.
    pub(in crate::relay) fn settled(
        &mut self,
        holding: &mut Holding,
        settlement: Settlement,
        result: &Result<Written, SettleError>,
    ) -> Result<(), Ended> {
        let now = clock::now();
        if let Ok(Written { dead, .. }) = result {
            self.report.deaths.written(dead_letters::of_settlement(&settlement), dead, now);
        }
        if let Some(committed) = holding.settled(settlement, result, now)? {
            if committed.events > 0 {
                self.metrics.publishing.settled(committed.events);
            }
            debug!(
                events = committed.events,
                letters = committed.letters.len(),
                bookmark = committed.position.bookmark.0,
                "settled"
            );
        }
        Ok(())
    }

    /// Takes in what became of a part of the records about letters.
    pub(in crate::relay) fn recorded(
        &mut self,
        holding: &mut Holding,
        records: Records,
        part: &RecordsPart,
        result: &Result<Vec<DeadLetter>, SettleError>,
    ) -> Result<(), Ended> {
        let now = clock::now();
        if let Ok(dead) = result {
            self.report.deaths.written(dead_letters::of_records(&part.records), dead, now);
            let published = |record: &&_| {
                matches!(record, Record { change: LetterChange::Published { .. }, .. })
            };
            let published = part.records.iter().filter(published).count();
            debug!(records = part.records.len(), published, "recorded what became of letters");
        }
        holding.recorded(records, part, result, now)
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

/// How long ago the row was written, by two clocks: it is a measure for people, nothing rests on
/// it.
fn since_written(event: &Event, now: Timestamp) -> Option<Duration> {
    now.duration_since(event.occurred_at?).try_into().ok()
}
