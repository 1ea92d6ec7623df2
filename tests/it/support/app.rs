//! Application's side of a test: inserts events, and reads the stream back without the relay.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::{
        ErrorCode,
        consumer::pull::OrderedConfig,
        context::{GetStreamError, GetStreamErrorKind},
    },
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio_postgres::GenericClient;
use uuid::Uuid;

use super::{eventually, nats};

/// Emits an event with the SQL function, with `key` as (aggregate type, aggregate id). Returns the
/// event's id.
pub(crate) async fn emit(
    client: &impl GenericClient,
    event_type: &str,
    key: Option<(&str, &str)>,
    payload: &str,
) -> Uuid {
    let (aggregate_type, aggregate_id) = key.unzip();
    let statement = r#"SELECT "postrider".emit(event_type => $1, payload => $2::text::json,
        aggregate_type => $3, aggregate_id => $4)"#;
    let row = client
        .query_one(statement, &[&event_type, &payload, &aggregate_type, &aggregate_id])
        .await
        .unwrap();
    row.get(0)
}

/// Inserts `count` events in one statement, spread over `keys` keys. Field `n` of the payload
/// counts from 0.
pub(crate) async fn insert_backlog(client: &impl GenericClient, count: i64, keys: i64) {
    let statement = r#"
        INSERT INTO "postrider".outbox (event_type, aggregate_type, aggregate_id, payload)
        SELECT 'load.made', 'load', (n % $2::bigint)::text, json_build_object('n', n)
        FROM generate_series(0, $1::bigint - 1) AS n"#;
    client.execute(statement, &[&count, &keys]).await.unwrap();
}

/// Message of the stream.
#[derive(Debug, Clone)]
pub(crate) struct StoredMessage {
    pub(crate) seq: u64,
    pub(crate) subject: String,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
}

impl StoredMessage {
    /// First value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(async_nats::HeaderValue::as_str)
    }

    /// Id of the event, from the header `Nats-Msg-Id`.
    pub(crate) fn id(&self) -> Uuid {
        self.header("Nats-Msg-Id").and_then(|id| id.parse().ok()).expect("an id in Nats-Msg-Id")
    }

    /// Payload parsed as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.payload).unwrap()
    }
}

/// Reads all messages in the order of the stream. A stream that does not exist has no messages.
pub(crate) async fn read_stream(url: &str, stream: &str) -> Vec<StoredMessage> {
    let jetstream = nats::connect(url).await;
    let stream = match jetstream.get_stream(stream).await {
        Ok(stream) => stream,
        Err(error) if is_missing(&error) => return Vec::new(),
        Err(error) => panic!("{error}"),
    };
    let expected = stream.cached_info().state.messages;
    let mut messages = Vec::new();
    if expected == 0 {
        return messages;
    }
    let consumer = stream.create_consumer(OrderedConfig::default()).await.unwrap();
    let mut reader = consumer.messages().await.unwrap();
    loop {
        let message = reader.next().await.expect("an endless reader").unwrap();
        let (seq, pending) =
            message.info().map(|info| (info.stream_sequence, info.pending)).unwrap();
        messages.push(StoredMessage {
            seq,
            subject: message.subject.to_string(),
            headers: message.headers.clone().unwrap_or_default(),
            payload: message.payload.clone(),
        });
        if pending == 0 {
            return messages;
        }
    }
}

/// Waits until the stream exists and has at least `count` messages.
pub(crate) async fn wait_stored(url: &str, stream: &str, count: u64, deadline: Duration) {
    let jetstream = nats::connect(url).await;
    eventually(format!("{count} messages in {stream}"), deadline, async || {
        let found = jetstream.get_stream(stream).await;
        found.is_ok_and(|stream| stream.cached_info().state.messages >= count)
    })
    .await;
}

fn is_missing(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}
