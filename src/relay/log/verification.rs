//! Verification of the log: when it is due, and what follows from its result.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{BrokerLog, LogState, Regression};
use crate::{
    broker::{BrokerError, Cause, Creation, LogFacts, VerifiedLog, Warning},
    clock,
    config::Batches,
    delivery::{Backoff, BatchKind, Batching, Capabilities, Closure, ClosureKind, StreamMark},
    metrics::Failure,
    relay::{
        Relay, RelayError,
        holding::{Ended, Holding},
    },
};

/// Waits before an unusable log is verified again.
pub(super) const VERIFY: Backoff =
    Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(5) };

/// Interval at which a sound log is verified again.
const VERIFY_AGAIN: Duration = Duration::from_mins(1);

/// Consequence of a verification for the publishing gate.
pub(in crate::relay) enum Verified {
    /// The log may be used.
    Sound,
    /// The log may not be used at present.
    Closed(Closure),
    /// The log has lost acknowledged messages.
    Regressed(Regression),
    /// The log was unusable from the start, so a person has to act.
    Unusable(BrokerError),
}

impl BrokerLog {
    pub(super) fn verify_due(&self) -> Option<Instant> {
        match self.state {
            LogState::Unverified { at } | LogState::Verified { again_at: at }
                if self.verifying.is_idle() =>
            {
                Some(at)
            }
            LogState::Unverified { .. } | LogState::Disconnected | LogState::Verified { .. } => {
                None
            }
        }
    }

    /// Starts a verification that is due. `mark` has the last acknowledged message.
    pub(in crate::relay) fn verify(&mut self, mark: StreamMark, now: Instant) {
        if self.verify_due().is_none_or(|at| at > now) {
            return;
        }
        // A log that was published to is never created anew, because that would hide the loss.
        let is_new = self.identity.is_none() && mark.acked == 0;
        let creation = if is_new { Creation::Allowed } else { Creation::Forbidden };
        if let Some(verifying) = self.sink.verify(mark, creation) {
            self.verifying.start(verifying);
        }
    }

    /// Absorbs the result of a verification.
    pub(in crate::relay) fn verified(
        &mut self,
        result: Result<VerifiedLog, BrokerError>,
        now: Instant,
    ) -> Verified {
        let error = match result {
            Ok(seen) => {
                if let Some(regression) = self.regression(&seen) {
                    return self.regressed(regression, now);
                }
                self.sound(seen.facts, now);
                return Verified::Sound;
            }
            Err(error) => error,
        };
        self.failures += 1;
        if self.state != LogState::Disconnected {
            self.state = LogState::Unverified { at: now + VERIFY.after(self.failures) };
        }
        match &error {
            BrokerError::Refused { .. } if self.facts.is_none() => {
                return Verified::Unusable(error);
            }
            BrokerError::Unavailable { cause: Cause::Silent, .. } if self.is_connected() => {
                self.sink.reconnect();
                let (kind, hint) = (ClosureKind::BrokerStalled, error.hint().to_owned());
                return Verified::Closed(Closure::with_hint(kind, error.to_string(), hint));
            }
            BrokerError::Missing { .. }
            | BrokerError::Refused { .. }
            | BrokerError::Unavailable { .. } => {}
        }
        Verified::Closed(closure_of(&error))
    }

    fn sound(&mut self, facts: LogFacts, now: Instant) {
        if self.state != LogState::Disconnected {
            self.state = LogState::Verified { again_at: now + VERIFY_AGAIN };
        }
        if self.scan_above.is_some() {
            self.scan_at.get_or_insert(now);
        }
        self.identity = facts.identity.or(self.identity);
        self.sink.adopt(&facts);
        self.failures = 0;
        self.behind_since = None;
        self.encoder.set_limits(facts.limits.clone());
        if self.warned != facts.warnings {
            for Warning { text, hint } in &facts.warnings {
                warn!(log = %self.sink.log(), hint, "the stream {text}");
            }
            self.warned.clone_from(&facts.warnings);
        }
        if self.facts.is_none() {
            info!(log = %self.sink.log(), last_seq = facts.last_seq, "stream verified");
        }
        self.facts = Some(facts);
    }
}

impl Relay {
    /// Absorbs the result of a verification, and opens or closes the publishing gate.
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
                    // Events that were too large for the old limit are read again.
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

/// Batches that the route uses, by the setting and by what the stream supports.
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

/// Closure for a log that cannot be used, with the advice for this very error.
pub(super) fn closure_of(error: &BrokerError) -> Closure {
    let kind = match error {
        BrokerError::Missing { .. } | BrokerError::Refused { .. } => ClosureKind::Misconfigured,
        BrokerError::Unavailable { cause: Cause::Denied, .. } => ClosureKind::PermissionDenied,
        BrokerError::Unavailable { .. } => ClosureKind::StreamUnavailable,
    };
    Closure::with_hint(kind, error.to_string(), error.hint().to_owned())
}
