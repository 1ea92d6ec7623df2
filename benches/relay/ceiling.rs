//! The ceiling: the program's own publisher and encoder without a database and without keys.

use std::{process, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use postrider::{
    config::{self, secret::SecretUrl},
    delivery::{Outcome, Ticket},
    event::{AggregateKey, Event, EventId, Payload, Seq},
    nats::{self, Absorbed, Connector, Publisher},
    wire::{Encoder, SubjectTemplate},
};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{
    measure::float,
    proc,
    stage::{AGGREGATE_TYPE, EVENT_TYPE, KEYS, SUBJECTS, Stage, payload},
    stream,
};

const STREAM: &str = "CEILING";

/// Messages on their way at most, as the relay has it.
const WINDOW: u64 = 1024;

/// What a bare publisher reaches.
pub(crate) struct Ceiling {
    /// Messages a second.
    pub(crate) rate: f64,
    /// Processor time of the publishing process, µs a message.
    pub(crate) client_us: f64,
    /// Processor time of the server, µs a message.
    pub(crate) server_us: f64,
}

/// Publishes `count` messages into a stream of its own.
pub(crate) async fn run(stage: &Stage, count: u64) -> Result<Ceiling> {
    let (mut publisher, encoder) = connect(stage).await?;
    let server_before = stage.nats_cpu_seconds()?;
    let client_before = proc::cpu_seconds(process::id())?;
    publish(&mut publisher, &encoder, count).await?;
    let per_message = |seconds: f64| seconds * 1e6 / float(count);
    let client_us = per_message(proc::cpu_seconds(process::id())? - client_before);
    let server_us = per_message(stage.nats_cpu_seconds()? - server_before);
    let rate = stream::rate(&stage.jetstream, STREAM, count).await?;
    stream::remove(&stage.jetstream, STREAM).await?;
    Ok(Ceiling { rate, client_us, server_us })
}

async fn connect(stage: &Stage) -> Result<(Publisher, Encoder)> {
    let servers = config::Nats { url: SecretUrl::new(stage.nats.url()), ..Default::default() };
    let stream = config::Stream {
        name: STREAM.to_owned(),
        subjects: vec![SUBJECTS.to_owned()],
        create: true,
        ..Default::default()
    };
    let template = SubjectTemplate::parse(&config::Route::default().subject)?;
    let ack_timeout = servers.ack_timeout.0;
    let capacity = usize::try_from(WINDOW)? * 2 + 64;
    let mut connector = Connector::new(&servers, "postrider/bench".to_owned(), capacity).await?;
    let (sender, connections) = mpsc::channel(1);
    sender.send(connector.connect_in_time().await?).await?;
    let mut publisher =
        Publisher::new(connections, stream.name.clone(), ack_timeout, Instant::now());
    while !matches!(publisher.next().await, Absorbed::Connected) {}
    let client = publisher.client().context("there is a connection")?;
    let facts = nats::verify(client, &stream, &template, ack_timeout).await?;
    let source = config::Relay::default().source;
    Ok((publisher, Encoder::new(template, source, facts.limits)))
}

async fn publish(publisher: &mut Publisher, encoder: &Encoder, count: u64) -> Result<()> {
    let mut event = event();
    let (mut sent, mut acked) = (0, 0);
    while acked < count {
        let now = Instant::now();
        while sent < count && sent - acked < WINDOW {
            sent += 1;
            renew(&mut event, sent);
            let message = encoder.encode(&event)?;
            let handed = publisher.publish(Ticket(sent), message, now);
            ensure!(handed.is_ok(), "a message was not handed over: {handed:?}");
        }
        let mut next = Some(publisher.next().await);
        let now = Instant::now();
        while let Some(absorbed) = next {
            let Absorbed::Outcome { outcome: Outcome::Acked { .. }, .. } = absorbed else {
                bail!("not an ack: {absorbed:?}");
            };
            acked += 1;
            next = publisher.try_next(now);
        }
    }
    Ok(())
}

/// An event with the columns that a row of the backlog has.
fn event() -> Event {
    Event {
        seq: Seq(0),
        id: EventId(Uuid::nil()),
        occurred_at: Some(jiff::Timestamp::now()),
        event_type: EVENT_TYPE.to_owned(),
        event_version: 1,
        kind: "domain".into(),
        key: None,
        aggregate_version: None,
        source: None,
        subject: None,
        content_type: "application/json".into(),
        payload: Payload::Bytes(Bytes::from(payload())),
        headers: None,
        correlation_id: None,
        causation_id: None,
        actor: None,
    }
}

/// What differs from event to event.
fn renew(event: &mut Event, number: u64) {
    event.seq = Seq(i64::try_from(number).unwrap_or_default());
    // Ids that look random to the broker's table of them.
    let random = u128::from(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)) << 64;
    event.id = EventId(Uuid::from_u128(random | u128::from(number)));
    let key = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    event.key = Some(AggregateKey::new(AGGREGATE_TYPE, &(key % u64::from(KEYS)).to_string()));
}
