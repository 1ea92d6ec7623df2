//! Answers of the broker, and news about the connection to it, as the relay absorbs them.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::{
    broker::{Absorbed, SUBJECT_FULL},
    delivery::{BatchOutcome, Closure, ClosureKind, Outcome, Ticket, Transition},
    failpoint,
    metrics::Failure,
    relay::{Relay, holding::Holding},
};

/// Answers absorbed in one turn, at most, so that dispatch goes on in between.
const ABSORB_MAX: usize = 1024;

impl Relay {
    pub(in crate::relay) fn absorb(&mut self, holding: &mut Holding, first: Absorbed) {
        let now = self.report.note_the_time();
        let mut next = Some(first);
        for _ in 0..ABSORB_MAX {
            let Some(absorbed) = next else { break };
            self.absorb_one(holding, absorbed, now);
            next = self.log.sink.try_next(now);
        }
        if let Some(last) = next {
            self.absorb_one(holding, last, now);
        }
        self.report.metrics.publishing.published(&mut self.report.batch);
    }

    fn absorb_one(&mut self, holding: &mut Holding, absorbed: Absorbed, now: Instant) {
        match absorbed {
            Absorbed::Outcome { ticket, outcome, took } => {
                self.log.answered();
                if let Outcome::Acked { stream_seq, duplicate: true } = outcome
                    && !holding.delivery.explains_duplicate(ticket)
                    && let Some((event, _)) = holding.delivery.event(ticket)
                {
                    self.log.check(ticket, event, stream_seq);
                    return;
                }
                self.resolve(holding, ticket, outcome, (took, now));
            }
            Absorbed::Unconfirmed { ticket, silent } => {
                self.report.metrics.publishing.failed(Failure::Unconfirmed);
                holding.delivery.resolve(ticket, Outcome::Unconfirmed, now);
                if silent {
                    self.log.unanswered(now);
                }
            }
            Absorbed::Batch { tickets, outcome, took, silent } => {
                if outcome != BatchOutcome::Unconfirmed {
                    self.log.answered();
                }
                self.batch_answered(holding, &tickets, &outcome, (took, now));
                if silent {
                    self.log.unanswered(now);
                }
            }
            Absorbed::Connected => {
                info!("connected to {}", self.log.sink.broker());
                self.log.connected(now);
                holding.delivery.slow_start();
                holding.delivery.restart_trial();
            }
            Absorbed::Disconnected => {
                warn!(
                    "lost the connection to {}; messages in flight are sent again",
                    self.log.sink.broker()
                );
                self.log.disconnected();
                self.report.connection_lost();
            }
            Absorbed::Denied { closure, forbidden } => {
                self.denied(holding, closure, forbidden, now);
            }
        }
    }

    /// Judges the outcome of an event. The text of an outcome that concerns a whole subject gets
    /// the subject's name.
    pub(in crate::relay) fn resolve(
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
                Outcome::Busy { reason: self.log.named(event, reason), attempt }
            }
            // Something other than the stream answers for this subject.
            (Outcome::Unavailable(closure), Some((event, _)))
                if closure.kind == ClosureKind::Misconfigured =>
            {
                Outcome::Unavailable(self.log.named_closure(event, closure))
            }
            (outcome, _) => outcome,
        };
        self.report.outcome(event, &outcome, took);
        let transition = holding.delivery.resolve(ticket, outcome, now);
        failpoint::pass("answered");
        if matches!(transition, Transition::Opened | Transition::WentBack) {
            self.log.verify_soon(now);
        }
        self.report.dead_events(&mut holding.delivery);
        self.report.gate(&mut holding.delivery, transition, now);
    }

    /// Absorbs the comparison of an unexplained duplicate with the message in the log.
    pub(in crate::relay) fn checked(
        &mut self,
        holding: &mut Holding,
        (ticket, outcome): (Ticket, Outcome),
    ) {
        let now = self.report.note_the_time();
        self.resolve(holding, ticket, outcome, (Duration::ZERO, now));
        self.report.metrics.publishing.published(&mut self.report.batch);
    }

    pub(in crate::relay) fn close_gate(
        &mut self,
        holding: &mut Holding,
        closure: Closure,
        now: Instant,
    ) {
        let transition = holding.delivery.close_gate(closure, now);
        self.report.gate(&mut holding.delivery, transition, now);
    }
}
