//! Denials by the server: of a subject, of a request to JetStream, or of everything.

use std::time::{Duration, Instant};

use tracing::warn;

use super::{Relay, broker::Verified, holding::Holding, scan::ScanError};
use crate::{
    config::OnDenied,
    delivery::{Attempt, Closure, Outcome, Rejection},
    event::Event,
    metrics::Failure,
};

/// What a request to JetStream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To verify the stream, or to create it.
    Verify,
    /// To scan the stream.
    Scan,
    /// To compare single messages, or to clean up: the relay can do without.
    Spare,
}

impl Purpose {
    fn of(request: &str) -> Self {
        let is = |verbs: &[&str]| verbs.iter().any(|verb| request.starts_with(verb));
        if is(&["STREAM.INFO", "STREAM.CREATE"]) {
            Self::Verify
        } else if is(&["CONSUMER.CREATE", "CONSUMER.MSG.NEXT"]) {
            Self::Scan
        } else {
            Self::Spare
        }
    }
}

impl Relay {
    /// The server forbids us something. The scope of that is what it names: a request concerns what
    /// asked for it, a subject the events of it, and only the rest concerns everything.
    pub(super) fn denied(
        &mut self,
        holding: &mut Holding,
        closure: Closure,
        subject: Option<String>,
        now: Instant,
    ) {
        let request = subject
            .as_deref()
            .and_then(|subject| self.broker.publisher.request_of(subject).map(Purpose::of));
        if let Some(purpose) = request {
            self.denied_request(holding, purpose, &closure, now);
            return;
        }
        let may_retry = self.settings.on_denied == OnDenied::Retry;
        let Some(subject) = subject.filter(|_| may_retry) else {
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

    /// A request that is forbidden is never answered: what waits for it ends at once. One that
    /// nothing waits for is only logged.
    fn denied_request(
        &mut self,
        holding: &mut Holding,
        purpose: Purpose,
        closure: &Closure,
        now: Instant,
    ) {
        let error = self.broker.denied(closure.text.clone());
        let is_verifying = !self.broker.verifying.is_idle();
        let is_scanning = !self.broker.looking.is_idle();
        match purpose {
            Purpose::Verify if is_verifying => {
                self.metrics.publishing.failed(Failure::PermissionDenied);
                self.broker.verifying.clear();
                if let Verified::Closed(closure) = self.broker.verified(Err(error), now) {
                    self.close_gate(holding, closure, now);
                }
            }
            Purpose::Verify | Purpose::Scan if is_scanning => {
                self.metrics.publishing.failed(Failure::PermissionDenied);
                self.broker.looking.clear();
                if let Err(ended) = self.looked_up(holding, Err(ScanError::Stream(error))) {
                    warn!(?ended, "a scan that was denied ended the holding");
                }
            }
            Purpose::Verify | Purpose::Scan | Purpose::Spare => {
                if self.broker.is_news(&closure.text) {
                    warn!(
                        error = %closure.text,
                        hint = "allow this user to publish to it",
                        "the server forbids a request to JetStream that events can go without"
                    );
                }
            }
        }
    }
}
