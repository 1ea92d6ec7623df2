//! Checks NATS: the connection, JetStream, and whether the stream keeps the messages that it
//! accepts.

use std::time::Duration;

use super::{
    CheckItem,
    requests::{self, unusable},
    room,
};
use crate::{
    broker::{BrokerError, LogFacts},
    cli::exit::Exit,
    config::{self, Config, SinkKind},
    delivery::{BatchKind, BatchSupport, Batching},
    nats::{self, Connector, ExpectedStream, NatsConnectError},
    wire::SubjectTemplate,
};

const NATS: &str = "nats";
const STREAM: &str = "stream";

/// Number of messages that the NATS client can buffer. A check sends and receives only a few.
const CAPACITY: usize = 64;

/// The stream as this check found it: whether it exists, and its facts.
pub(super) enum SeenStream {
    Missing,
    Exists(Box<LogFacts>),
}

/// The findings about NATS, and the stream when it could be asked for. The checks end at the first
/// refusal, because later ones would fail for the same reason.
pub(super) async fn findings(config: &Config) -> (Vec<CheckItem>, Option<SeenStream>) {
    let template = match SubjectTemplate::parse(&config.route.subject) {
        Ok(template) => template,
        Err(error) => {
            let finding = CheckItem::refused("route", Exit::Configuration, error.to_string());
            return (vec![finding], None);
        }
    };
    if config.route.sink == SinkKind::Unrouted {
        return (Vec::new(), None);
    }
    if config.route.sink == SinkKind::Stdout {
        let text = "standard output: for inspection and for development; what was in flight at a crash \
                    comes again";
        return (vec![CheckItem::fine("sink", text)], None);
    }
    let name = "postrider/check".to_owned();
    let mut connector = match Connector::new(&config.nats, name, CAPACITY).await {
        Ok(connector) => connector,
        Err(error) => {
            let finding = CheckItem::refused(NATS, Exit::Configuration, error.to_string());
            return (vec![finding.hint(error.hint())], None);
        }
    };
    let mut connection = match connector.connect_in_time().await {
        Ok(connection) => connection,
        Err(error) => return (vec![unreachable(config, &error)], None),
    };
    let server = connection.client.server_info();
    let mut findings = vec![CheckItem::fine(NATS, format!("version {}", server.version))];
    let name = &config.stream.name;
    if let Some(denied) = requests::access(&mut connection, name).await {
        findings.push(denied);
        return (findings, None);
    }
    // A check changes nothing, so it does not create the stream.
    let existing = config::StreamConfig { create: false, ..config.stream.clone() };
    let ack_timeout = config.nats.ack_timeout.0;
    match nats::verify(&connection.jetstream, &existing, &template, ack_timeout).await {
        Ok(facts) => {
            let text = format!("{} exists, last sequence {}", config.stream.name, facts.last_seq);
            findings.push(CheckItem::fine(STREAM, text));
            let stream = &config.stream.name;
            if config.stream.batches != config::Batches::Off {
                findings.extend(batches(stream, facts.batches, &server.version));
            }
            findings.extend(forgetful(config, facts.recognises));
            findings.extend(facts.warnings.iter().map(|warning| {
                CheckItem::risky(STREAM, format!("{stream} {}", warning.text)).hint(warning.hint)
            }));
            findings.extend(room::findings(&connection, stream).await);
            findings.extend(requests::findings(&mut connection, stream, &facts).await);
            let wanted = ExpectedStream { stream, domain: facts.domain.as_deref() };
            findings.extend(requests::taker(&mut connection, &template.sample(), wanted).await);
            (findings, Some(SeenStream::Exists(Box::new(facts))))
        }
        Err(BrokerError::Missing { .. }) => {
            if config.stream.create {
                findings.extend(requests::creation(&mut connection, &config.stream).await);
                let wanted = ExpectedStream { stream: name, domain: None };
                findings.extend(requests::taker(&mut connection, &template.sample(), wanted).await);
            }
            (findings, Some(SeenStream::Missing))
        }
        Err(error) => {
            findings.push(unusable(&error));
            (findings, None)
        }
    }
}

/// The finding about a duplicate window that is not longer than the lease. A frozen leader that
/// wakes up would store its messages a second time.
fn forgetful(config: &Config, window: Duration) -> Option<CheckItem> {
    let lease = config.relay.lease;
    (window <= lease.0).then(|| {
        let text = format!(
            "{} forgets message ids after {window:?}, a leader that was frozen is replaced after {lease}",
            config.stream.name
        );
        CheckItem::risky(STREAM, text)
            .hint("make its duplicate window longer than relay.lease; 10 minutes is good")
    })
}

/// The finding about the kinds of batches that the stream accepts. It is never a warning, because
/// events flow without batches too.
fn batches(stream: &str, batching: Batching, version: &str) -> Option<CheckItem> {
    let takes = |what| Some(CheckItem::fine(STREAM, format!("{stream} takes {what} batches")));
    match batching {
        Batching::IfFaster(BatchSupport::Both) => takes("atomic and fast"),
        Batching::IfFaster(BatchSupport::Atomic) | Batching::Always(BatchKind::Atomic) => {
            takes("atomic")
        }
        Batching::IfFaster(BatchSupport::Fast) | Batching::Always(BatchKind::Fast) => takes("fast"),
        Batching::Off => {
            let text =
                format!("{stream} takes no batches: a hot key goes one round trip at a time");
            Some(CheckItem::fine(STREAM, text).hint(
                "allow_atomic: true in the stream's configuration switches them on, allow_batched: true \
                 faster ones; no restart is needed",
            ))
        }
        Batching::Unknown => {
            let text = format!(
                "{stream} takes no batches: nats-server {version} takes none of messages with ids, 2.12.1 \
                 and newer do"
            );
            Some(CheckItem::fine(STREAM, text))
        }
    }
}

/// Reason why there is no connection.
fn unreachable(config: &Config, error: &NatsConnectError) -> CheckItem {
    let text = format!("no connection to {}: {error}", config.nats.url);
    CheckItem::refused(NATS, error.into(), text).hint(error.hint())
}
