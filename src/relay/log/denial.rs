//! Denials by the broker: of a subject, of a request, or of everything.

use std::time::{Duration, Instant};

use tracing::warn;

use super::{scan::ScanError, verification::Verified};
use crate::{
    broker::Forbidden,
    config::OnDenied,
    delivery::{Attempt, Closure, Outcome, Rejection},
    event::Event,
    metrics::Failure,
    relay::{Relay, holding::Holding},
};

impl Relay {
    /// Handles a denial by the server. Its scope is what the complaint names: a request, the events
    /// of a subject, or else everything.
    pub(in crate::relay) fn denied(
        &mut self,
        holding: &mut Holding,
        closure: Closure,
        forbidden: Forbidden,
        now: Instant,
    ) {
        let subject = match forbidden {
            Forbidden::Verifying | Forbidden::Scanning | Forbidden::Spare => {
                self.denied_request(holding, &forbidden, &closure, now);
                return;
            }
            Forbidden::Subject(subject) if self.settings.on_denied == OnDenied::Retry => subject,
            Forbidden::Subject(_) | Forbidden::Everything => {
                self.report.metrics.publishing.failed(Failure::PermissionDenied);
                self.close_gate(holding, closure, now);
                return;
            }
        };
        let encoder = &self.log.encoder;
        let is_to =
            |event: &Event| encoder.encode(event).is_ok_and(|message| message.subject == subject);
        // A batch without its last message is never answered, so its events go one by one.
        let delivery = &holding.delivery;
        let has = |ticket| delivery.event(ticket).is_some_and(|(event, _)| is_to(event));
        self.log.sink.give_up_batches(has);
        // The first complaint about a subject ends the publish of each message in flight to it.
        // Later complaints find no such message.
        for ticket in holding.delivery.in_flight_matching(is_to) {
            self.log.sink.answered_otherwise(ticket);
            // The complaint names a subject and no message, so this message may have been stored.
            holding.delivery.mark_unanswered(ticket);
            let reason = Rejection { code: "permission_denied", text: closure.text.clone() };
            let outcome = Outcome::Busy { reason, attempt: Attempt::Counts };
            self.resolve(holding, ticket, outcome, (Duration::ZERO, now));
        }
    }

    /// Handles the denial of a request. The request gets no answer, so the operation that waits for
    /// it ends at once. Without such an operation the denial is only logged.
    fn denied_request(
        &mut self,
        holding: &mut Holding,
        forbidden: &Forbidden,
        closure: &Closure,
        now: Instant,
    ) {
        let error = self.log.denied(closure.text.clone());
        let is_verifying = !self.log.verifying.is_idle();
        let is_scanning = !self.log.scanning.is_idle();
        match forbidden {
            Forbidden::Verifying if is_verifying => {
                self.report.metrics.publishing.failed(Failure::PermissionDenied);
                self.log.verifying.clear();
                if let Verified::Closed(closure) = self.log.verified(Err(error), now) {
                    self.close_gate(holding, closure, now);
                }
            }
            Forbidden::Verifying | Forbidden::Scanning if is_scanning => {
                self.report.metrics.publishing.failed(Failure::PermissionDenied);
                self.log.scanning.clear();
                if let Err(ended) = self.scanned(holding, Err(ScanError::Stream(error))) {
                    warn!(?ended, "the broker denied a scan of the stream");
                }
            }
            Forbidden::Verifying
            | Forbidden::Scanning
            | Forbidden::Spare
            | Forbidden::Subject(_)
            | Forbidden::Everything => {
                if self.log.is_news(&closure.text) {
                    warn!(
                        error = %closure.text,
                        hint = "allow this user to publish to the subject in the error",
                        "the broker forbids a request of the relay; events are published without it"
                    );
                }
            }
        }
    }
}
