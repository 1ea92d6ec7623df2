//! Makes letters of events that the stream has lost, so that the relay publishes them again.

use serde::Serialize;

use super::{
    CompareError, Step,
    compare::{self, Compared},
    inspect,
};
use crate::{
    config::{Config, SinkKind},
    outbox::{Losses, RECONCILE_BATCH, SESSION_SETTINGS, Settled},
};

const PURPOSE: &str = "reconcile";

/// Events of one relay that the stream lacks, and how many of them are published again.
#[derive(Debug, Serialize)]
pub struct Reconciliation {
    /// The relay's name.
    pub relay: String,
    /// Number of events that the stream has to contain.
    pub expected: u64,
    /// Number of expected events that the stream contains.
    pub held: u64,
    /// Expected events that the stream may have dropped by its own limits or by a purge.
    pub dropped: u64,
    /// Expected events that are missing; at most 1,000,000.
    pub missing: u64,
    /// Number of events that are published again; 0 in a rehearsal.
    pub published_again: u64,
    /// Upper bound of the published events that are gone from the stream and the outbox.
    pub lost: u64,
    /// Losses of events from the stream that no operator has acknowledged: their number, and when
    /// they began.
    #[serde(skip)]
    pub losses: Losses,
    /// Whether the run was a rehearsal, which publishes nothing.
    #[serde(skip)]
    pub is_rehearsal: bool,
}

/// Whether the events of this route go to a stream of NATS.
pub fn is_in_stream(config: &Config) -> bool {
    config.route.sink == SinkKind::Nats
}

/// Finds the missing events, and changes nothing.
///
/// # Errors
/// The errors of the sessions, and those of a stream that cannot be compared.
pub async fn rehearse(
    config: &Config,
    on_step: &mut impl FnMut(Step),
) -> Result<Reconciliation, CompareError> {
    let (_, compared, losses) = compare_all(config, on_step).await?;
    Ok(Reconciliation { is_rehearsal: true, ..reconciliation(config, &compared, losses) })
}

/// Makes letters of the missing events, so that the relay publishes them again. They keep their
/// order and their ids.
///
/// # Errors
/// The errors of the sessions, and those of a stream that cannot be compared.
pub async fn reconcile(
    config: &Config,
    actor: &str,
    on_step: &mut impl FnMut(Step),
) -> Result<Reconciliation, CompareError> {
    let (settled, compared, losses) = compare_all(config, on_step).await?;
    let published_again = publish_again(&settled, &compared.missing, (actor, on_step)).await?;
    // A relay with `heal = "manual"` heals only after this request; every other relay ignores the
    // request.
    settled.ask_to_heal(actor).await?;
    Ok(Reconciliation { published_again, ..reconciliation(config, &compared, losses) })
}

async fn compare_all(
    config: &Config,
    on_step: &mut impl FnMut(Step),
) -> Result<(Settled, Compared, Losses), CompareError> {
    let inspection = inspect(config, PURPOSE, &SESSION_SETTINGS).await?;
    let losses = inspection.losses(config.relay.name.as_str()).await?;
    drop(inspection);
    let settled = compare::settled(config, PURPOSE).await?;
    let compared = compare::compare(config, &settled, on_step).await?;
    Ok((settled, compared, losses))
}

fn reconciliation(config: &Config, compared: &Compared, losses: Losses) -> Reconciliation {
    Reconciliation {
        relay: config.relay.name.as_str().to_owned(),
        expected: compared.expected,
        held: compared.held,
        dropped: compared.dropped,
        missing: compared.missing.len() as u64,
        published_again: 0,
        lost: losses.events,
        losses,
        is_rehearsal: false,
    }
}

async fn publish_again(
    settled: &Settled,
    missing: &[i64],
    (actor, on_step): (&str, &mut impl FnMut(Step)),
) -> Result<u64, CompareError> {
    let (mut again, mut events, of) = (0, 0, missing.len() as u64);
    for batch in missing.chunks(RECONCILE_BATCH) {
        again += settled.publish_again(batch, actor).await?;
        events += batch.len() as u64;
        on_step(Step::PublishedAgain { events, of });
    }
    Ok(again)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reconciliation_is_serialised_without_what_only_its_text_needs() {
        let done = Reconciliation {
            relay: "default".to_owned(),
            expected: 9,
            held: 6,
            dropped: 1,
            missing: 2,
            published_again: 2,
            lost: 4,
            losses: Losses { losses: 1, events: 4, noticed_at: None },
            is_rehearsal: false,
        };
        let expected = json!({
            "relay": "default",
            "expected": 9,
            "held": 6,
            "dropped": 1,
            "missing": 2,
            "published_again": 2,
            "lost": 4,
        });
        assert_eq!(serde_json::to_value(done).unwrap(), expected);
    }
}
