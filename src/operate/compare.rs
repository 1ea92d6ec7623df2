//! Compares settled events with the messages of the stream, for `postrider audit` and `reconcile`.

use serde::{Serialize, Serializer};

use super::{CompareError, Step};
use crate::{
    broker::{BrokerError, Keeps},
    config::{Config, SinkKind},
    event::Seq,
    nats::{self, Connector, StreamScan, identity, kept},
    outbox::{ACCOUNTING_SETTINGS, Settled, SettledDue, SettledEvent},
    pg::{connect::connect, schema::Schema},
};

/// Maximum number of events that are compared while the stream is read once, at 25 bytes each. For
/// more events the stream is read several times.
const AT_ONCE: usize = 4_194_304;

/// Maximum number of events that are read from the outbox at once.
const PAGE: usize = 50_000;

/// Maximum number of missing events that one run remembers. The next run finds the others.
const MISSING_MAX: usize = 1_000_000;

/// Number of messages between two reports of progress.
const MESSAGES_A_STEP: u64 = 100_000;

/// Capacity of the connection's buffer, for messages that the server sends before they are read.
const CAPACITY: usize = 8192;

/// Result of the comparison of settled events with the stream.
#[derive(Debug, Default, Serialize)]
pub struct Compared {
    /// Messages that were read.
    pub messages: u64,
    /// Number of events that the stream has to contain.
    pub expected: u64,
    /// Number of expected events that the stream contains.
    pub held: u64,
    /// Expected events that the stream may have dropped by its own limits or by a purge.
    pub dropped: u64,
    /// Expected events that are missing, by their `seq` in ascending order; at most 1,000,000.
    /// Serialised as the number of these events.
    #[serde(serialize_with = "number_of")]
    pub missing: Vec<i64>,
}

#[expect(clippy::ptr_arg, reason = "serde passes the field as it is")]
fn number_of<S: Serializer>(missing: &Vec<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    missing.len().serialize(serializer)
}

/// Opens a session that reads the settled events of the configured relay.
pub(super) async fn settled(config: &Config, purpose: &str) -> Result<Settled, CompareError> {
    let connection = connect(&config.database, purpose, &ACCOUNTING_SETTINGS).await?;
    let schema = Schema::from(&config.database.schema);
    Ok(Settled::new(connection, schema, config.relay.name.as_str().to_owned()))
}

/// Compares all settled events with the whole stream. The database is read before the stream, so
/// that an event that is settled meanwhile does not count as missing.
pub(super) async fn compare(
    config: &Config,
    settled: &Settled,
    on_step: &mut impl FnMut(Step),
) -> Result<Compared, CompareError> {
    match config.route.sink {
        SinkKind::Nats => {}
        SinkKind::Unrouted => return Err(CompareError::Unrouted),
        SinkKind::Stdout => return Err(CompareError::Stdout),
    }
    let broker = broker(config).await?;
    let kept = kept(&broker.jetstream, &config.stream.name).await;
    let (keeps, first_seq) = kept.map_err(|error| match error {
        // There are settled events, so the stream existed when they were published.
        BrokerError::Missing { .. } => CompareError::Unreadable(nats::gone(&config.stream)),
        error @ (BrokerError::Unavailable { .. } | BrokerError::Refused { .. }) => {
            CompareError::Unreadable(error)
        }
    })?;
    if keeps != Keeps::UntilItsLimits {
        return Err(CompareError::Removing { stream: config.stream.name.clone() });
    }
    let mut compared = Compared::default();
    let mut above = Seq(0);
    loop {
        let mut expected = Vec::new();
        let mut is_last = false;
        while expected.len() < AT_ONCE && !is_last {
            let page = settled.page(above, PAGE, first_seq).await?;
            is_last = page.len() < PAGE;
            above = page.last().map_or(above, |last| last.seq);
            expected.extend(page.into_iter().filter(|event| event.due != SettledDue::Nowhere));
        }
        if !expected.is_empty() {
            read_against(&broker, &config.stream.name, expected, (&mut compared, on_step)).await?;
        }
        if is_last {
            return Ok(compared);
        }
    }
}

/// Opens a connection to NATS.
async fn broker(config: &Config) -> Result<nats::NatsConnection, CompareError> {
    let connector = Connector::new(&config.nats, "postrider/audit".to_owned(), CAPACITY).await;
    let mut connector = connector.map_err(CompareError::Settings)?;
    let url = || config.nats.url.to_string();
    connector
        .connect_in_time()
        .await
        .map_err(|error| CompareError::Unreachable { url: url(), error })
}

async fn read_against(
    broker: &nats::NatsConnection,
    stream: &str,
    mut expected: Vec<SettledEvent>,
    (compared, on_step): (&mut Compared, &mut impl FnMut(Step)),
) -> Result<(), CompareError> {
    expected.sort_unstable_by_key(|event| (event.id, event.seq));
    let mut held = vec![false; expected.len()];
    let mut scan = StreamScan::new(broker.jetstream.clone(), stream.to_owned(), 0);
    scan.advance().await.map_err(CompareError::Unreadable)?;
    while let Some(message) = scan.next().await.map_err(CompareError::Unreadable)? {
        if scan.messages().is_multiple_of(MESSAGES_A_STEP) {
            on_step(Step::Read { messages: scan.messages(), of: scan.expected() });
        }
        let Some(identity) = message.headers.as_ref().and_then(identity) else { continue };
        if let Ok(at) = expected.binary_search_by_key(&identity, |event| (event.id, event.seq))
            && let Some(held) = held.get_mut(at)
        {
            *held = true;
        }
    }
    compared.messages = scan.messages();
    compared.expected += expected.len() as u64;
    let mut missing = Vec::new();
    for (event, held) in expected.into_iter().zip(held) {
        if held {
            compared.held += 1;
        } else if event.due == SettledDue::InStreamUnlessDropped {
            compared.dropped += 1;
        } else {
            missing.push(event.seq.0);
        }
    }
    missing.sort_unstable();
    let room = MISSING_MAX.saturating_sub(compared.missing.len());
    compared.missing.extend(missing.into_iter().take(room));
    Ok(())
}
