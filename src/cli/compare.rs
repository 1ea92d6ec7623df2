//! What `audit` and `reconcile` share: the settled events beside what the stream holds.

use super::{
    exit::{Exit, Failure},
    print::{self, number},
};
use crate::{
    broker::{BrokerError, Cause, Keeps},
    config::{Config, SinkKind, error::Problem},
    event::Seq,
    nats::{self, Connector, Scan, identity, kept},
    outbox::{ACCOUNTING_SETTINGS, Settled, SettledDue, SettledEvent},
    pg::{connect::connect, schema::Schema},
};

/// Events compared in one reading of the stream: 25 bytes each. An outbox that retains more is
/// compared in several readings.
const AT_ONCE: usize = 4_194_304;

/// Events of one page from the outbox.
const PAGE: usize = 50_000;

/// Missing events that are remembered; what is beyond is found by the next run.
const MISSING_MAX: usize = 1_000_000;

/// Messages between two lines of progress.
const MESSAGES_A_LINE: u64 = 100_000;

/// Settled events beside the stream.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// Events that the stream has to hold.
    pub(super) expected: u64,
    /// Of these, those that it holds.
    pub(super) held: u64,
    /// Of these, those that it may have dropped by its own limits or by a purge.
    pub(super) dropped: u64,
    /// The rest, in the order of the outbox; [`MISSING_MAX`] at most.
    pub(super) missing: Vec<i64>,
    /// Messages that were read.
    pub(super) messages: u64,
}

/// A client whose connection stands.
pub(super) async fn broker(config: &Config) -> Result<nats::Connection, Failure> {
    // Room for what a reading of the stream sends ahead.
    let connector = Connector::new(&config.nats, "postrider/audit".to_owned(), 8192).await;
    let mut connector = connector
        .map_err(|error| Failure::new(Exit::Configuration, Problem::new(error.to_string())))?;
    connector.connect_in_time().await.map_err(|error| {
        let text = format!("no connection to {}: {error}", config.nats.url);
        Failure::new((&error).into(), Problem::new(text).hint(error.hint()))
    })
}

/// The settled events of the configured relay.
pub(super) async fn settled(config: &Config, purpose: &str) -> Result<Settled, Failure> {
    let connection = connect(&config.database, purpose, &ACCOUNTING_SETTINGS).await?;
    let schema = Schema::from(&config.database.schema);
    Ok(Settled::new(connection, schema, config.relay.name.as_str().to_owned()))
}

/// Compares all of them with all of the stream. First the database is read and then the stream, so
/// that what is settled meanwhile is no difference.
pub(super) async fn compare(config: &Config, settled: &Settled) -> Result<Compared, Failure> {
    if config.route.sink == SinkKind::Unrouted {
        let problem = Problem::new("events that no route takes are in no stream to compare with");
        return Err(Failure::new(Exit::Configuration, problem.hint("name another --route")));
    }
    if config.route.sink == SinkKind::Stdout {
        let problem =
            Problem::new("standard output cannot be read back, so that it cannot be compared")
                .hint("look at the database alone: postrider audit --database-only");
        return Err(Failure::new(Exit::Configuration, problem));
    }
    let broker = broker(config).await?;
    let kept = kept(&broker.jetstream, &config.stream.name).await;
    let (keeps, first_seq) = kept.map_err(|error| match error {
        // Settled events were published to it.
        BrokerError::Missing { .. } => unreadable(&nats::gone(&config.stream)),
        error @ (BrokerError::Unavailable { .. } | BrokerError::Refused { .. }) => {
            unreadable(&error)
        }
    })?;
    if keeps != Keeps::UntilItsLimits {
        let text = format!(
            "stream \"{}\" removes what its consumers have acknowledged, or what a later message of its \
             subject replaces, so that it cannot be compared",
            config.stream.name
        );
        let hint = "look at the database alone: postrider audit --database-only";
        return Err(Failure::new(Exit::Configuration, Problem::new(text).hint(hint)));
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
            read_against(&broker, &config.stream.name, expected, &mut compared).await?;
        }
        if is_last {
            return Ok(compared);
        }
    }
}

async fn read_against(
    broker: &nats::Connection,
    stream: &str,
    mut expected: Vec<SettledEvent>,
    compared: &mut Compared,
) -> Result<(), Failure> {
    expected.sort_unstable_by_key(|event| (event.id, event.seq));
    let mut held = vec![false; expected.len()];
    let mut scan = Scan::new(broker.jetstream.clone(), stream.to_owned(), 0);
    scan.advance().await.map_err(|error| unreadable(&error))?;
    while let Some(message) = scan.next().await.map_err(|error| unreadable(&error))? {
        if scan.messages().is_multiple_of(MESSAGES_A_LINE) {
            let (read, of) = (number(scan.messages()), number(scan.expected()));
            print::to_stderr(&format!("read {read} of {of} messages of the stream"));
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

fn unreadable(error: &BrokerError) -> Failure {
    let exit = match error {
        BrokerError::Unavailable { .. } => Exit::Unavailable,
        BrokerError::Missing { .. } | BrokerError::Refused { .. } => Exit::Configuration,
    };
    // A request that is forbidden is not answered.
    let hint = match error {
        BrokerError::Unavailable { cause: Cause::Silent, .. } => {
            "does it run, and may its user publish to $JS.API.STREAM.INFO, CONSUMER.CREATE, \
             CONSUMER.MSG.NEXT and CONSUMER.DELETE of the stream?"
        }
        other @ (BrokerError::Unavailable { .. }
        | BrokerError::Missing { .. }
        | BrokerError::Refused { .. }) => other.hint(),
    };
    Failure::new(exit, Problem::new(error.to_string()).hint(hint))
}
