//! Healing of a log that has lost acknowledged messages: they are published again, from a
//! checkpoint on.

use std::time::Instant;

use tracing::{error, warn};

use super::Regression;
use crate::{
    config::Heal,
    delivery::{Closure, ClosureKind},
    failpoint,
    metrics::Failure,
    outbox::{HealWhen, Healed},
    relay::{
        Relay,
        holding::{Ended, Holding},
    },
};

impl Relay {
    /// Closes the publishing gate and heals, after the log has lost acknowledged messages.
    pub(in crate::relay) fn regressed(
        &mut self,
        holding: &mut Holding,
        regression: Regression,
        now: Instant,
    ) {
        let Regression { identity, last_seq, text, is_rewritten, .. } = regression;
        if self.report.regressed(&text) {
            self.report.metrics.publishing.failed(Failure::BrokerRegressed);
        }
        let when = match self.settings.stream.heal {
            // In a stream that others have written into, it is unknown which messages are left.
            Heal::Auto if !is_rewritten => HealWhen::AtOnce,
            Heal::Auto | Heal::Manual => HealWhen::Asked,
        };
        holding.heal(identity, last_seq, when);
        let kind = ClosureKind::BrokerRegressed;
        self.close_gate(holding, Closure::new(kind, text), now);
    }
}

/// Ends the holding after a healing. The next one begins at the position of the checkpoint.
pub(in crate::relay) fn end_after(healed: Result<Option<Healed>, String>) -> Option<Ended> {
    failpoint::pass("healed");
    match healed {
        Ok(None) => None,
        Ok(Some(Healed { letters, lost })) => {
            if lost > 0 {
                error!(
                    events_at_most = lost,
                    hint = "restore the events from a backup of the stream, or accept the loss; then \
                            run `postrider audit --acknowledge-loss --reason …`",
                    "the stream has lost published events that the outbox no longer has: they cannot \
                     be published again"
                );
            }
            warn!(
                letters,
                "publishing again from a checkpoint: the stream lost events, and those that the outbox still has are sent again"
            );
            Some(Ended::Again)
        }
        Err(error) => Some(Ended::Failed(format!("could not heal the stream: {error}"))),
    }
}
