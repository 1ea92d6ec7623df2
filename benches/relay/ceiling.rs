//! Measures the ceiling of a drain: the program's own encoder and publisher, without a database and
//! without any order of keys.

use std::{process, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use postrider::{
    broker::Absorbed,
    config,
    delivery::{Outcome, Ticket},
    event::{AggregateKey, Event, EventId, Payload, Seq},
    nats::{self, Connector, Publisher},
    wire::{Encoder, Headers as WireHeaders, Message, SubjectTemplate},
};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{
    backlog::{AGGREGATE_TYPE, EVENT_TYPE, Shape},
    measure::float,
    proc,
    stage::{SUBJECTS, Stage},
    stream,
};

const STREAM: &str = "CEILING";

/// Largest number of unacknowledged messages, the same as the relay's default.
const WINDOW: u64 = 1024;

/// Headers that the messages carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Headers {
    /// All headers that the relay sends.
    Relay,
    /// The message id alone, without which an event may be stored twice.
    IdAlone,
}

/// Measured speed of a publisher that does nothing else.
pub(crate) struct Ceiling {
    /// Messages a second.
    pub(crate) rate: f64,
    /// Processor time of the publishing process, µs a message.
    pub(crate) client_us: f64,
    /// Processor time of the brokers, µs a message.
    pub(crate) server_us: f64,
}

/// Publishes `count` messages into a new stream and removes the stream afterwards.
pub(crate) async fn run(
    stage: &Stage,
    shape: Shape,
    count: u64,
    headers: Headers,
) -> Result<Ceiling> {
    // The publisher runs on one thread, as it does in the program.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let publishing = async {
        let (mut publisher, encoder) = connect(stage).await?;
        stage.brokers.wait_whole(&stage.jetstream, STREAM).await?;
        let mut source = Source { encoder, shape, headers, event: event(shape) };
        let server_before = stage.brokers.cpu_seconds()?;
        let client_before = proc::cpu_seconds(process::id())?;
        publish(&mut publisher, &mut source, count).await?;
        let per_message = |seconds: f64| seconds * 1e6 / float(count);
        let client_us = per_message(proc::cpu_seconds(process::id())? - client_before);
        let server_us = per_message(stage.brokers.cpu_seconds()? - server_before);
        Ok::<_, anyhow::Error>((client_us, server_us))
    };
    #[expect(clippy::disallowed_methods, reason = "no loop of the relay runs here")]
    let measured = tokio::task::block_in_place(move || runtime.block_on(publishing));
    let (client_us, server_us) = measured?;
    let (stored, rate) = stream::rate(&stage.jetstream, STREAM).await?;
    ensure!(stored == count, "{stored} messages, expected {count}");
    stream::remove(&stage.jetstream, STREAM).await?;
    Ok(Ceiling { rate, client_us, server_us })
}

async fn connect(stage: &Stage) -> Result<(Publisher, Encoder)> {
    let servers = stage.brokers.config();
    let stream = config::StreamConfig {
        name: STREAM.to_owned(),
        subjects: vec![SUBJECTS.to_owned()],
        create: true,
        replicas: stage.brokers.replicas(),
        ..Default::default()
    };
    let template = SubjectTemplate::parse(&config::RouteConfig::default().subject)?;
    let ack_timeout = servers.ack_timeout.0;
    let capacity = usize::try_from(WINDOW)? * 2 + 64;
    let mut connector = Connector::new(&servers, "postrider/bench".to_owned(), capacity).await?;
    let (sender, connections) = mpsc::channel(1);
    sender.send(connector.connect_in_time().await?).await?;
    let mut publisher =
        Publisher::new(connections, stream.name.clone(), ack_timeout, Instant::now());
    while !matches!(publisher.next().await, Absorbed::Connected) {}
    let jetstream = publisher.jetstream().context("there is a connection")?;
    let facts = nats::verify(jetstream, &stream, &template, ack_timeout).await?;
    let source = config::RelayConfig::default().source;
    Ok((publisher, Encoder::new(template, source).with_limits(facts.limits)))
}

async fn publish(publisher: &mut Publisher, source: &mut Source, count: u64) -> Result<()> {
    let (mut sent, mut acked) = (0, 0);
    while acked < count {
        let now = Instant::now();
        while sent < count && sent - acked < WINDOW {
            sent += 1;
            let handed = publisher.publish(Ticket(sent), source.message(sent)?, now);
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

/// Maker of the messages: one event whose number, id and key change from message to message.
struct Source {
    encoder: Encoder,
    shape: Shape,
    headers: Headers,
    event: Event,
}

impl Source {
    fn message(&mut self, number: u64) -> Result<Message> {
        self.renew(number);
        if self.headers == Headers::Relay {
            return Ok(self.encoder.encode(&self.event)?);
        }
        let Payload::Bytes(payload) = &self.event.payload else { bail!("no payload") };
        Ok(Message {
            id: self.event.id,
            subject: format!("events.{EVENT_TYPE}"),
            headers: WireHeaders::new(self.event.id),
            payload: payload.clone(),
            left_out: 0,
        })
    }

    /// Gives the event its number, and the id and key that belong to the number.
    fn renew(&mut self, number: u64) {
        self.event.seq = Seq(i64::try_from(number).unwrap_or_default());
        // The ids look random, because ordered ones might be cheaper for the broker's table of ids.
        let random = u128::from(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)) << 64;
        self.event.id = EventId(Uuid::from_u128(random | u128::from(number)));
        let key = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let key = (key % u64::from(self.shape.keys)).to_string();
        self.event.key = Some(AggregateKey::new(AGGREGATE_TYPE, &key));
    }
}

/// Makes an event that has the same columns as a row of the backlog.
fn event(shape: Shape) -> Event {
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
        payload: Payload::Bytes(Bytes::from(shape.payload())),
        headers: None,
        correlation_id: None,
        causation_id: None,
        actor: None,
    }
}
