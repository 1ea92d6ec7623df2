//! Takes in what the broker says, and what becomes of its connection.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{Relay, holding::Holding, status::Link};
use crate::{
    broker::{Absorbed, SUBJECT_FULL},
    delivery::{BatchOutcome, Closure, ClosureKind, Outcome, Ticket, Transition},
    failpoint,
    metrics::{Dependency, Failure},
};

/// Answers absorbed in one turn at most, so that sending goes on in between.
const ABSORB_MAX: usize = 1024;

impl Relay {
    pub(super) fn absorb(&mut self, holding: &mut Holding, first: Absorbed) {
        let now = self.report.note_the_time();
        let mut next = Some(first);
        for _ in 0..ABSORB_MAX {
            let Some(absorbed) = next else { break };
            self.absorb_one(holding, absorbed, now);
            next = self.broker.sink.try_next(now);
        }
        if let Some(last) = next {
            self.absorb_one(holding, last, now);
        }
        self.metrics.publishing.published(&mut self.report.batch);
    }

    fn absorb_one(&mut self, holding: &mut Holding, absorbed: Absorbed, now: Instant) {
        match absorbed {
            Absorbed::Outcome { ticket, outcome, took } => {
                self.broker.answered();
                if let Outcome::Acked { stream_seq, duplicate: true } = outcome
                    && !holding.delivery.explains_duplicate(ticket)
                    && let Some((event, _)) = holding.delivery.event(ticket)
                {
                    self.broker.check(ticket, event, stream_seq);
                    return;
                }
                self.resolve(holding, ticket, outcome, (took, now));
            }
            Absorbed::Unconfirmed { ticket, silent } => {
                self.metrics.publishing.failed(Failure::Unconfirmed);
                holding.delivery.resolve(ticket, Outcome::Unconfirmed, now);
                if silent {
                    self.broker.unanswered(now);
                }
            }
            Absorbed::Batch { tickets, outcome, took, silent } => {
                if outcome != BatchOutcome::Unconfirmed {
                    self.broker.answered();
                }
                self.batch_answered(holding, &tickets, &outcome, (took, now));
                if silent {
                    self.broker.unanswered(now);
                }
            }
            Absorbed::Connected => {
                info!("connected to {}", self.broker.sink.broker());
                self.broker.connected(now);
                holding.delivery.slow_start();
                holding.delivery.restart_trial();
            }
            Absorbed::Disconnected => {
                warn!(
                    "lost the connection to {}; what is on its way is sent again",
                    self.broker.sink.broker()
                );
                self.broker.disconnected();
                self.metrics.dependencies.lost(Dependency::Nats);
                let detail = "connection lost, connecting again".to_owned();
                self.status.send_modify(|status| status.nats = Link::Down { detail, hint: None });
            }
            Absorbed::Denied { closure, forbidden } => {
                self.denied(holding, closure, forbidden, now);
            }
        }
    }

    /// Judges the broker's answer about an event. An answer about a subject gets its name.
    pub(super) fn resolve(
        &mut self,
        holding: &mut Holding,
        ticket: Ticket,
        outcome: Outcome,
        (took, now): (Duration, Instant),
    ) {
        let event = holding.delivery.event(ticket);
        let outcome = match (outcome, event) {
            (Outcome::Busy { reason, attempt }, Some((event, _)))
                if reason.code == SUBJECT_FULL =>
            {
                Outcome::Busy { reason: self.broker.named(event, reason), attempt }
            }
            // Somebody else answers for this subject.
            (Outcome::Unavailable(closure), Some((event, _)))
                if closure.kind == ClosureKind::Misconfigured =>
            {
                Outcome::Unavailable(self.broker.named_closure(event, closure))
            }
            (outcome, _) => outcome,
        };
        self.report.outcome(&self.metrics, event, &outcome, took);
        let transition = holding.delivery.resolve(ticket, outcome, now);
        failpoint::pass("answered");
        if matches!(transition, Transition::Opened | Transition::WentBack) {
            self.broker.doubt(now);
        }
        self.report.deaths(&self.metrics, &mut holding.delivery);
        self.report.gate(&mut holding.delivery, transition, now);
    }

    /// Absorbs the comparison of an unexplained duplicate with the message in the log.
    pub(super) fn checked(&mut self, holding: &mut Holding, (ticket, outcome): (Ticket, Outcome)) {
        let now = self.report.note_the_time();
        self.resolve(holding, ticket, outcome, (Duration::ZERO, now));
        self.metrics.publishing.published(&mut self.report.batch);
    }

    pub(super) fn close_gate(&mut self, holding: &mut Holding, closure: Closure, now: Instant) {
        let transition = holding.delivery.close_gate(closure, now);
        self.report.gate(&mut holding.delivery, transition, now);
    }
}
