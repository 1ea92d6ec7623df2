//! Dispatch of events: messages are handed over under a trusted lease only, and few in one turn.

use std::time::Instant;

use super::{batches, readiness::Readiness};
use crate::{
    broker::NotSent,
    clock,
    delivery::{Grouping, Rejection, Ticket},
    failpoint,
    metrics::Failure,
    relay::{Relay, holding::Holding},
    wire::Message,
};

/// Messages handed over in one turn, at most, so that answers are absorbed in between.
const DISPATCH_MAX: usize = 512;

/// Messages handed over between two readings of the clock, at most.
const DISPATCH_CHUNK: usize = 32;

impl Relay {
    /// Hands over the events that are ready. Returns whether more may go in the next turn at once.
    pub(in crate::relay) fn dispatch(&mut self, holding: &mut Holding, now: Instant) -> bool {
        if holding.delivery.in_flight() > 0 {
            failpoint::pass("in-flight");
        }
        match Readiness::of(&self.log, holding, now) {
            // A closed publishing gate lets single messages through, as probes whether it can be
            // opened.
            Readiness::Ready | Readiness::GateClosed => {}
            Readiness::Disconnected | Readiness::Unverified | Readiness::Scanning => {
                holding.delivery.interrupt_trial();
                return false;
            }
            Readiness::SessionEnded | Readiness::LeaseUnheard | Readiness::LeaseUnconfirmed => {
                holding.delivery.interrupt_trial();
                if let Some(ticket) = holding.delivery.next(now) {
                    holding.delivery.give_back(ticket);
                    holding.lease.want(now);
                    holding.renew(now);
                }
                return false;
            }
        }
        batches::measure_trial(&mut holding.delivery, now);
        (0..DISPATCH_MAX).all(|number| {
            // The process may stand still inside of this turn too.
            let is_trusted = number % DISPATCH_CHUNK != 0 || holding.lease.is_trusted(clock::now());
            is_trusted && self.dispatch_next(holding, now)
        })
    }

    /// Hands over the next event. Returns whether more may go at once.
    fn dispatch_next(&mut self, holding: &mut Holding, now: Instant) -> bool {
        let Some(ticket) = holding.delivery.next(now) else { return false };
        if holding.delivery.is_stale(ticket, now) {
            holding.delivery.give_back(ticket);
            self.log.require_scan_above(holding.delivery.scan_above(), now);
            return false;
        }
        match holding.delivery.choose_grouping(ticket, now) {
            Grouping::Batch(kind, batch) if self.send_batch(holding, (kind, &batch), now) => {
                return true;
            }
            Grouping::Single | Grouping::Batch(..) => {}
            Grouping::Wait => return false,
        }
        let Some((event, sent_before)) = holding.delivery.event(ticket) else { return true };
        if sent_before {
            self.report.metrics.publishing.retried();
        }
        match self.log.encoder.encode(event) {
            Err(refusal) => {
                let rejection = Rejection { code: refusal.code(), text: refusal.to_string() };
                self.refuse(holding, ticket, rejection, now);
            }
            Ok(message) if holding.delivery.is_replaced(ticket, &message.subject) => {
                holding.delivery.pass_over(ticket);
            }
            Ok(message) => match self.hand_over(ticket, message, now) {
                Ok(()) => holding.delivery.sent(ticket, now),
                Err(NotSent::TooLarge) => {
                    let text = "larger than the server's max_payload".to_owned();
                    let rejection = Rejection { code: "payload_too_large", text };
                    self.refuse(holding, ticket, rejection, now);
                }
                Err(NotSent::NotNow) => {
                    holding.delivery.give_back(ticket);
                    return false;
                }
            },
        }
        true
    }

    fn hand_over(&mut self, ticket: Ticket, message: Message, now: Instant) -> Result<(), NotSent> {
        self.report.metrics.publishing.left_out(message.left_out);
        failpoint::pass("publish");
        let handed = self.log.sink.publish(ticket, message, now);
        failpoint::pass("handed-over");
        handed
    }

    pub(in crate::relay) fn refuse(
        &mut self,
        holding: &mut Holding,
        ticket: Ticket,
        rejection: Rejection,
        now: Instant,
    ) {
        self.report.metrics.publishing.failed(Failure::Refused);
        holding.delivery.refuse(ticket, rejection, now);
        self.report.dead_events(&mut holding.delivery);
    }
}
