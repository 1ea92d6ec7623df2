//! Demo: a small shop that places orders, and a consumer that notes each of its events once.

use std::{convert::Infallible, time::Duration};

use async_nats::{
    HeaderMap, HeaderValue,
    jetstream::{self, consumer::pull},
};
use futures_util::StreamExt as _;
use jiff::{Timestamp, Unit};
use thiserror::Error;
use tokio::{
    sync::mpsc,
    time::{Instant, interval, sleep},
};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use super::{
    stage::STREAM,
    stream_reader::{count_messages, is_missing},
};
use crate::tasks;

/// Interval between two acts of the shop.
const PACE: Duration = Duration::from_millis(600);

/// Interval between two readings of the letters.
const LETTERS_INTERVAL: Duration = Duration::from_millis(500);

/// Longest time that the relay may take to create the stream.
const STREAM_DEADLINE: Duration = Duration::from_secs(30);

/// Interval between two requests for the stream, until it exists.
const STREAM_WAIT: Duration = Duration::from_millis(50);

/// Counts of events at the end of the demo: in the outbox, in the stream and among the letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Number of rows of the outbox.
    pub events: i64,
    /// Messages of the stream.
    pub messages: u64,
    /// Number of unresolved letters that wait for an operator.
    pub dead: i64,
    /// Number of unresolved letters that the relay would have tried again.
    pub retrying: i64,
    /// Number of unresolved letters that wait behind another of their key.
    pub held: i64,
}

/// Reason why the demo could not go on.
#[derive(Debug, Error)]
pub enum DemoError {
    /// The database refused something.
    #[error("ask the demo's database: {0}")]
    Postgres(#[from] tokio_postgres::Error),
    /// The broker refused something.
    #[error("read the demo's stream: {0}")]
    Nats(String),
}

/// Creates the shop's tables.
///
/// # Errors
/// When the database refuses.
///
/// # Cancel safety
/// When the future is dropped, some of the tables may exist.
pub async fn prepare(database: &str) -> Result<(), DemoError> {
    Ok(connect(database).await?.batch_execute(include_str!("demo/tables.sql")).await?)
}

/// Places orders, pays some of them and rolls some back, until the future is dropped. Each act is a
/// line in `lines`, for a person to read.
///
/// # Errors
/// When the database refuses or goes away.
///
/// # Cancel safety
/// An open transaction is rolled back by the database.
pub async fn produce(
    database: &str,
    lines: &mpsc::Sender<String>,
) -> Result<Infallible, DemoError> {
    let mut client = connect(database).await?;
    let place = client.prepare(include_str!("demo/place.sql")).await?;
    let pay = client.prepare(include_str!("demo/pay.sql")).await?;
    let mut ticks = interval(PACE);
    for number in 1_i32.. {
        ticks.tick().await;
        let transaction = client.transaction().await?;
        let placed = transaction.query_one(&place, &[&(number * 7 % 100 + 1)]).await?;
        let order: i64 = placed.try_get(0)?;
        if number % 5 == 0 {
            transaction.rollback().await?;
            say(lines, format!("shop      rolled back order {order}: its event may not arrive"))
                .await;
            continue;
        }
        transaction.commit().await?;
        if number % 3 == 0 {
            client.execute(&pay, &[&order]).await?;
        }
    }
    std::future::pending().await
}

/// Consumes the stream until the future is dropped, and notes each event once, however often it is
/// delivered.
///
/// # Errors
/// When the database or the broker refuses or goes away.
///
/// # Cancel safety
/// An event that was being noted is delivered again to the next consumer of this name.
pub async fn consume(
    database: &str,
    nats: &str,
    lines: &mpsc::Sender<String>,
) -> Result<Infallible, DemoError> {
    let client = connect(database).await?;
    let note = client.prepare(include_str!("demo/note.sql")).await?;
    let broker = async_nats::connect(nats).await.map_err(refused)?;
    let stream = created_stream(&jetstream::new(broker)).await?;
    let name = Some("demo".to_owned());
    let config = pull::Config { durable_name: name, ..pull::Config::default() };
    let consumer = stream.create_consumer(config).await.map_err(refused)?;
    let mut messages = consumer.messages().await.map_err(refused)?;
    while let Some(message) = messages.next().await {
        let message = message.map_err(refused)?;
        let headers = message.headers.clone().unwrap_or_default();
        let id = header(&headers, "Nats-Msg-Id").and_then(|id| Uuid::parse_str(id).ok());
        let event_type = header(&headers, "ce-type").unwrap_or("?");
        // The statement is a transaction: the event's id and the note about it are stored together,
        // or neither.
        let is_new = match id {
            Some(id) => !client.query(&note, &[&id, &event_type]).await?.is_empty(),
            None => false,
        };
        message.ack().await.map_err(refused)?;
        let key = header(&headers, "ce-partitionkey").unwrap_or("(no key)");
        let payload = String::from_utf8_lossy(&message.payload);
        let ending = if is_new { age(&headers) } else { "seen before".to_owned() };
        let subject = message.subject.as_str();
        say(lines, format!("consumer  {subject:<22} {key:<10} {payload}  ({ending})")).await;
    }
    Err(DemoError::Nats("the subscription ended".to_owned()))
}

/// The stream, after a wait until the relay has created it: a relay counts as ready before that.
async fn created_stream(
    context: &jetstream::Context,
) -> Result<jetstream::stream::Stream, DemoError> {
    let deadline = Instant::now() + STREAM_DEADLINE;
    loop {
        match context.get_stream(STREAM).await {
            Ok(stream) => return Ok(stream),
            Err(error) if is_missing(&error) && Instant::now() < deadline => {
                sleep(STREAM_WAIT).await;
            }
            Err(error) => return Err(refused(error)),
        }
    }
}

/// Sends a line for each event that becomes a letter, until the future is dropped.
///
/// # Errors
/// When the database refuses or goes away.
///
/// # Cancel safety
/// The function only reads, so dropping the future changes nothing.
pub async fn watch_letters(
    database: &str,
    lines: &mpsc::Sender<String>,
) -> Result<Infallible, DemoError> {
    let client = connect(database).await?;
    let read = client.prepare(include_str!("demo/letters.sql")).await?;
    let mut ticks = interval(LETTERS_INTERVAL);
    let mut seen = 0_i64;
    loop {
        ticks.tick().await;
        for row in client.query(&read, &[&seen]).await? {
            seen = row.try_get("id")?;
            let (state, event_type): (&str, &str) =
                (row.try_get("state")?, row.try_get("event_type")?);
            let (key, code): (&str, &str) = (row.try_get("key")?, row.try_get("error_code")?);
            let error: &str = row.try_get("error")?;
            say(
                lines,
                format!(
                    "letter    {seen} is {state}: {event_type} {key}, {code}: {error}  \
                     (postrider dlq show {seen})"
                ),
            )
            .await;
        }
    }
}

/// Counts what is in the outbox, in the stream and among the letters.
///
/// # Errors
/// When the database or the broker does not answer.
///
/// # Cancel safety
/// The function only reads, so dropping the future changes nothing.
pub async fn summary(database: &str, nats: &str) -> Result<Summary, DemoError> {
    let client = connect(database).await?;
    let row = client.query_one(include_str!("demo/summary.sql"), &[]).await?;
    let broker = async_nats::connect(nats).await.map_err(refused)?;
    let messages = count_messages(&jetstream::new(broker), STREAM).await;
    Ok(Summary {
        events: row.try_get("events")?,
        messages: messages.map_err(refused)?,
        dead: row.try_get("dead")?,
        retrying: row.try_get("retrying")?,
        held: row.try_get("held")?,
    })
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(HeaderValue::as_str)
}

/// Age of an event, from the time in its header `ce-time`.
fn age(headers: &HeaderMap) -> String {
    let occurred_at: Option<Timestamp> = header(headers, "ce-time").and_then(|t| t.parse().ok());
    let Some(occurred_at) = occurred_at else { return "no time".to_owned() };
    let age = Timestamp::now() - occurred_at;
    match age.total(Unit::Millisecond) {
        Ok(millis) => format!("{millis:.1} ms after it happened"),
        Err(_) => "long ago".to_owned(),
    }
}

/// Sends a line to the task that prints it. Waits while the channel is full, because a late line is
/// better than none.
async fn say(lines: &mpsc::Sender<String>, line: String) {
    // A line without a reader is dropped.
    drop(lines.send(line).await);
}

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tasks::drive(async move { drop(connection.await) });
    Ok(client)
}

fn refused(error: impl std::fmt::Display) -> DemoError {
    DemoError::Nats(error.to_string())
}
