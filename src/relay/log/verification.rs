//! Verification of the log: what follows from its result.

use super::Verified;
use crate::{
    broker::{BrokerError, VerifiedLog},
    clock,
    config::Batches,
    delivery::{BatchKind, Batching, Capabilities},
    metrics::Failure,
    relay::{
        Relay, RelayError,
        holding::{Ended, Holding},
    },
};

/// Whether events may go in batches, as they are wanted and the stream takes them.
fn batching(wanted: Batches, stream: Batching) -> Batching {
    let kind = match wanted {
        Batches::Off => return Batching::Off,
        Batches::Auto => return stream,
        Batches::Always => BatchKind::Atomic,
        Batches::Fast => BatchKind::Fast,
    };
    match stream {
        Batching::IfFaster(taken) if taken.has(kind) => Batching::Always(kind),
        Batching::IfFaster(_) | Batching::Always(_) | Batching::Off | Batching::Unknown => {
            Batching::Off
        }
    }
}

impl Relay {
    /// Absorbs the result of a verification.
    pub(in crate::relay) fn verified(
        &mut self,
        holding: &mut Holding,
        seen: Result<VerifiedLog, BrokerError>,
    ) -> Result<Option<Ended>, RelayError> {
        let now = clock::now();
        let took_at_most = self.log.facts().map(|facts| facts.limits.message_bytes_max);
        match self.log.verified(seen, now) {
            Verified::Unusable(error) => return Err(RelayError::Stream(error)),
            Verified::Closed(closure) => self.close_gate(holding, closure, now),
            Verified::Regressed(regression) => self.regressed(holding, regression, now),
            Verified::Sound => {
                holding.authority.stream_created = self.log.identity();
                if let Some(facts) = self.log.facts() {
                    holding.delivery.set_capabilities(Capabilities {
                        recognises: facts.recognises,
                        is_scannable: facts.keeps.can_be_scanned(),
                        ack_timeout: self.settings.ack_timeout,
                    });
                    holding.delivery.stream_reaches(facts.last_seq);
                    let wanted = self.settings.stream.batches;
                    holding.delivery.set_batches(batching(wanted, facts.batches));
                    // What was too large to be read under the old limit is read again.
                    let takes = facts.limits.message_bytes_max;
                    let more = took_at_most.is_some_and(|before| before < takes);
                    if more && holding.delivery.has_left_out(takes) {
                        return Ok(Some(Ended::Again));
                    }
                }
                self.report.log_verified();
                let is_open = holding.delivery.breaker().cause().is_none();
                if let Some(closure) = self.log.store_stalled(now).filter(|_| is_open) {
                    self.report.metrics.publishing.failed(Failure::StoreStalled);
                    self.close_gate(holding, closure, now);
                }
                if holding.delivery.events() == 0 {
                    let transition = holding.delivery.open_gate();
                    self.report.gate(&mut holding.delivery, transition, now);
                }
            }
        }
        Ok(None)
    }
}
