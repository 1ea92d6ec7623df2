//! Results of verifying and of scanning the log, as the relay absorbs them.

use std::time::Instant;

use tracing::{error, warn};

use super::{
    Relay, RelayError,
    broker::{NotScanned, Regression, Verified},
    holding::{Ended, Holding, survive},
    scan::{ScanError, Scanned},
    status::Link,
};
use crate::{
    broker::{BrokerError, Seen},
    clock,
    config::{Batches, Heal},
    delivery::{BatchKind, Batching, Capabilities, Closure, ClosureKind},
    failpoint,
    metrics::{Dependency, Failure},
    outbox::{HealWhen, Healed},
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
    pub(super) fn verified(
        &mut self,
        holding: &mut Holding,
        seen: Result<Seen, BrokerError>,
    ) -> Result<Option<Ended>, RelayError> {
        let now = clock::now();
        let took_at_most = self.broker.facts().map(|facts| facts.limits.message_bytes_max);
        match self.broker.verified(seen, now) {
            Verified::Unusable(error) => return Err(RelayError::Stream(error)),
            Verified::Closed(closure) => self.close_gate(holding, closure, now),
            Verified::Regressed(regression) => self.regressed(holding, regression, now),
            Verified::Sound => {
                holding.authority.stream_created = self.broker.identity();
                if let Some(facts) = self.broker.facts() {
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
                self.status.send_modify(|status| status.nats = Link::Up);
                self.metrics.dependencies.connected(Dependency::Nats);
                let is_open = holding.delivery.breaker().cause().is_none();
                if let Some(closure) = self.broker.store_stalled(now).filter(|_| is_open) {
                    self.metrics.publishing.failed(Failure::StoreStalled);
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

    /// Absorbs the result of a scan.
    pub(super) fn scanned(
        &mut self,
        holding: &mut Holding,
        scanned: Result<Scanned, ScanError>,
    ) -> Result<(), Ended> {
        let now = clock::now();
        match self.broker.take_scan(scanned, now) {
            Ok(Scanned { began, found, last_seq, forgotten, .. }) => {
                if forgotten > 0 {
                    warn!(
                        forgotten,
                        "the stream holds more than can be remembered of what may have been sent; \
                         the oldest of it may be stored twice"
                    );
                }
                holding.delivery.take_scan_result(found, last_seq, began);
                self.report.deaths(&self.metrics, &mut holding.delivery);
                failpoint::pass("scanned");
            }
            Err(NotScanned::Stream(closure)) => self.close_gate(holding, closure, now),
            Err(NotScanned::Outbox(error)) => survive("ask which messages are ours", &error)?,
        }
        Ok(())
    }

    /// Closes the gate and heals: the log has lost what it had acknowledged.
    pub(super) fn regressed(
        &mut self,
        holding: &mut Holding,
        regression: Regression,
        now: Instant,
    ) {
        let Regression { identity, last_seq, text, is_rewritten, .. } = regression;
        if self.report.regressed(&text) {
            self.metrics.publishing.failed(Failure::BrokerRegressed);
        }
        let when = match self.settings.stream.heal {
            // Of a stream that others wrote over it is not known where it still had everything.
            Heal::Auto if !is_rewritten => HealWhen::AtOnce,
            Heal::Auto | Heal::Manual => HealWhen::Asked,
        };
        holding.heal(identity, last_seq, when);
        let kind = ClosureKind::BrokerRegressed;
        self.close_gate(holding, Closure::new(kind, text), now);
    }

    /// Ends the holding after a healing; the next one begins at the position that was put back.
    pub(super) fn healed(healed: Result<Option<Healed>, String>) -> Option<Ended> {
        failpoint::pass("healed");
        match healed {
            Ok(None) => None,
            Ok(Some(Healed { letters, lost })) => {
                if lost > 0 {
                    error!(
                        events_at_most = lost,
                        hint = "restore them from a backup or accept it, then acknowledge it: postrider \
                                audit --acknowledge-loss --reason …",
                        "the stream has lost published events that the outbox no longer has: they cannot \
                         be published again"
                    );
                }
                warn!(
                    letters,
                    "beginning again from a checkpoint: the stream gets what it lost and the outbox has"
                );
                Some(Ended::Again)
            }
            Err(error) => Some(Ended::Failed(format!("could not heal the stream: {error}"))),
        }
    }
}
