//! Counts what has become of every committed event, according to the database and to the stream.

use serde::Serialize;

use super::{
    CompareError, DatabaseError, Step,
    compare::{self, Compared},
    inspect,
};
use crate::{
    config::{Config, SinkKind},
    outbox::{ACCOUNTING_SETTINGS, Losses, SESSION_SETTINGS},
};

const PURPOSE: &str = "audit";

/// The numbers of one relay, and the comparison with the stream.
#[derive(Debug, Serialize)]
pub struct Audit {
    /// The relay's name.
    pub relay: String,
    /// Whether the numbers add up, no loss is unacknowledged, and the stream lacks no event.
    pub fine: bool,
    /// Number of rows that the outbox retains.
    pub committed: u64,
    /// Rows whose messages the sink has acknowledged.
    pub published: u64,
    /// Number of rows that are still to be published.
    pub pending: u64,
    /// Number of rows that wait for an operator.
    pub dead: u64,
    /// Number of rows with a letter that an operator discarded.
    pub discarded: u64,
    /// Number of rows that the relay's filter leaves out.
    pub filtered: u64,
    /// Number of unresolved letters whose payload is lost, because it was in a row that is gone.
    pub payloads_lost: u64,
    /// Letters whose row now has another event id.
    pub strangers: u64,
    /// Upper bound of the published events that are gone from the stream and the outbox.
    pub lost: u64,
    /// The comparison with the stream; `None` when the stream was not read.
    pub stream: Option<Compared>,
    /// Losses of events from the stream that no operator has acknowledged: their number, and when
    /// they began.
    #[serde(skip)]
    pub losses: Losses,
    /// The sink of the route's events.
    #[serde(skip)]
    pub sink: SinkKind,
}

/// Result of acknowledging the losses of one relay.
#[derive(Debug, Serialize)]
pub struct Acknowledged {
    /// The relay's name.
    pub relay: String,
    /// Number of losses that were acknowledged. Each of them is recorded in the table `audit`.
    pub losses: u64,
}

/// Whether an audit reads the database alone, or the stream too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The audit reads the database alone.
    Database,
    /// The audit reads the database, and the stream too where the route's sink can be read back.
    Stream,
}

/// Counts what has become of the events of the configured relay, and compares them with the stream.
///
/// # Errors
/// The errors of the sessions, and those of a stream that cannot be compared.
pub async fn audit(
    config: &Config,
    extent: Extent,
    on_step: &mut impl FnMut(Step),
) -> Result<Audit, CompareError> {
    let inspection = inspect(config, PURPOSE, &ACCOUNTING_SETTINGS).await?;
    let (relay, sink) = (config.relay.name.as_str(), config.route.sink);
    let accounting = inspection.accounting(relay).await?;
    let losses = inspection.losses(relay).await?;
    let stream = if extent == Extent::Stream && is_compared(config) {
        let settled = compare::settled(config, PURPOSE).await?;
        Some(compare::compare(config, &settled, on_step).await?)
    } else {
        None
    };
    let is_complete = stream.as_ref().is_none_or(|stream| stream.missing.is_empty());
    Ok(Audit {
        relay: relay.to_owned(),
        fine: accounting.is_balanced() && losses.losses == 0 && is_complete,
        committed: accounting.committed(),
        published: accounting.published(),
        pending: accounting.pending(),
        dead: accounting.dead(),
        discarded: accounting.discarded(),
        filtered: accounting.filtered(),
        payloads_lost: accounting.payloads_lost,
        strangers: accounting.strangers,
        lost: losses.events,
        stream,
        losses,
        sink,
    })
}

/// Whether the audit compares the database with the log. Standard output cannot be read back: among
/// several routes, one that writes there is audited by the database alone. As the only route it is
/// compared, which reports the error to the person who asks.
fn is_compared(config: &Config) -> bool {
    match config.route.sink {
        SinkKind::Nats => true,
        SinkKind::Stdout => config.relay.siblings.len() <= 1,
        SinkKind::Unrouted => false,
    }
}

/// Records that a person has seen the losses of the configured relay, so that their alarm ends.
///
/// # Errors
/// The errors of the session.
pub async fn acknowledge_loss(
    config: &Config,
    actor: &str,
    reason: &str,
) -> Result<Acknowledged, DatabaseError> {
    let inspection = inspect(config, PURPOSE, &SESSION_SETTINGS).await?;
    let relay = config.relay.name.as_str();
    let losses = inspection.acknowledge_loss(relay, actor, reason).await?;
    Ok(Acknowledged { relay: relay.to_owned(), losses })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_audit_is_serialised_with_the_number_of_what_is_missing() {
        let stream =
            Compared { messages: 9, expected: 8, held: 5, dropped: 1, missing: vec![17, 18] };
        let audit = Audit {
            relay: "default".to_owned(),
            fine: false,
            committed: 36,
            published: 8,
            pending: 7,
            dead: 6,
            discarded: 5,
            filtered: 10,
            payloads_lost: 3,
            strangers: 2,
            lost: 1,
            stream: Some(stream),
            losses: Losses { losses: 1, events: 1, noticed_at: None },
            sink: SinkKind::Nats,
        };
        let expected = json!({
            "relay": "default",
            "fine": false,
            "committed": 36,
            "published": 8,
            "pending": 7,
            "dead": 6,
            "discarded": 5,
            "filtered": 10,
            "payloads_lost": 3,
            "strangers": 2,
            "lost": 1,
            "stream": { "messages": 9, "expected": 8, "held": 5, "dropped": 1, "missing": 2 },
        });
        assert_eq!(serde_json::to_value(audit).unwrap(), expected);
    }
}
