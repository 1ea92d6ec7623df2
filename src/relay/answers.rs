//! Takes in what the broker says, and what becomes of its connection.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{Relay, holding::Holding, status::Link};
use crate::{
    config::OnDenied,
    delivery::{Attempt, Closure, Outcome, Rejection, Ticket, Transition},
    event::Event,
    failpoint,
    metrics::{Dependency, Failure},
    nats::Absorbed,
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
            next = self.broker.publisher.try_next(now);
        }
        if let Some(last) = next {
            self.absorb_one(holding, last, now);
        }
        self.metrics.publishing.published(&mut self.report.batch);
    }

    fn absorb_one(&mut self, holding: &mut Holding, absorbed: Absorbed, now: Instant) {
        match absorbed {
            Absorbed::Outcome { ticket, outcome, took } => {
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
                    // Is it the stream, or does nothing at all answer? The look at it tells.
                    self.broker.doubt(now);
                }
            }
            Absorbed::Batch { tickets, outcome, took, silent } => {
                self.answered_together(holding, &tickets, &outcome, (took, now));
                if silent {
                    self.broker.doubt(now);
                }
            }
            Absorbed::Connected => {
                info!("connected to NATS");
                self.broker.connected(now);
                holding.delivery.slow_start();
                holding.delivery.measure_anew();
            }
            Absorbed::Disconnected => {
                warn!("lost the connection to NATS; what is on its way is sent again");
                self.broker.disconnected();
                self.metrics.dependencies.lost(Dependency::Nats);
                let detail = "connection lost, connecting again".to_owned();
                self.status.send_modify(|status| status.nats = Link::Down { detail });
            }
            Absorbed::Denied { closure, subject } => self.denied(holding, closure, subject, now),
        }
    }

    /// Judges what the broker told us about one event.
    pub(super) fn resolve(
        &mut self,
        holding: &mut Holding,
        ticket: Ticket,
        outcome: Outcome,
        (took, now): (Duration, Instant),
    ) {
        let event = holding.delivery.event(ticket);
        self.report.outcome(&self.metrics, event, &outcome, took);
        let transition = holding.delivery.resolve(ticket, outcome, now);
        failpoint::pass("answered");
        if matches!(transition, Transition::Opened | Transition::WentBack) {
            self.broker.doubt(now);
        }
        self.report.deaths(&self.metrics, &mut holding.delivery);
        self.report.gate(&mut holding.delivery, transition, now);
    }

    /// What the stream holds in place of an event that it called a duplicate without our knowing.
    pub(super) fn checked(&mut self, holding: &mut Holding, (ticket, outcome): (Ticket, Outcome)) {
        let now = self.report.note_the_time();
        self.resolve(holding, ticket, outcome, (Duration::ZERO, now));
        self.metrics.publishing.published(&mut self.report.batch);
    }

    /// The server forbids us something: a subject, which concerns the events of it, or all of it.
    pub(super) fn denied(
        &mut self,
        holding: &mut Holding,
        closure: Closure,
        subject: Option<String>,
        now: Instant,
    ) {
        // What the API forbids is no event's trouble.
        let may_retry = self.settings.on_denied == OnDenied::Retry;
        let denied = subject.filter(|subject| may_retry && !subject.starts_with('$'));
        let Some(subject) = denied else {
            self.metrics.publishing.failed(Failure::PermissionDenied);
            self.close_gate(holding, closure, now);
            return;
        };
        let encoder = &self.broker.encoder;
        let is_to =
            |event: &Event| encoder.encode(event).is_ok_and(|message| *message.subject == *subject);
        // A batch that lacks its last message is never answered; its events go one by one.
        let delivery = &holding.delivery;
        let holds = |ticket| delivery.event(ticket).is_some_and(|(event, _)| is_to(event));
        self.broker.publisher.give_up_batches(holds);
        // The first complaint of a volley answers for all of them; the others find none.
        for ticket in holding.delivery.on_their_way(is_to) {
            self.broker.publisher.answered_otherwise(ticket);
            // The complaint names a subject and no message: this one may have been taken before.
            holding.delivery.doubt(ticket);
            let reason = Rejection { code: "permission_denied", text: closure.text.clone() };
            let outcome = Outcome::Busy { reason, attempt: Attempt::Counts };
            self.resolve(holding, ticket, outcome, (Duration::ZERO, now));
        }
    }

    pub(super) fn close_gate(&mut self, holding: &mut Holding, closure: Closure, now: Instant) {
        let transition = holding.delivery.close_gate(closure, now);
        self.report.gate(&mut holding.delivery, transition, now);
    }
}
