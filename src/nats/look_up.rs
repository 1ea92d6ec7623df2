//! Looks into the stream: which of our events it holds, and what it holds under one sequence.
//!
//! Read are the headers only, from a sequence on. An event is known by its `Nats-Msg-Id` and its
//! `ce-sequence`, the place in the outbox, so that two rows with one id are told apart.

use std::time::Instant;

use async_nats::{
    Client, HeaderMap, Message,
    jetstream::{
        self, ErrorCode,
        consumer::{DeliverPolicy, pull::OrderedConfig},
        stream::{RawMessageErrorKind, Stream},
    },
};
use futures_util::StreamExt;
use tokio::time::timeout;
use uuid::Uuid;

use super::stream::{API_TIMEOUT, Keeps, StreamError, find};
use crate::{
    clock,
    delivery::{FOUND_MAX, Found},
    event::{EventId, Seq},
};

/// What a look has found.
#[derive(Debug, Clone)]
pub struct LookedUp {
    /// Our events among the messages.
    pub found: Found,
    /// When the look began.
    pub began: Instant,
    /// The last sequence that the stream had then.
    pub last_seq: u64,
    /// Messages that were read.
    pub messages: u64,
    /// Ids that were found and forgotten, because there were more than [`FOUND_MAX`].
    pub forgotten: u64,
}

/// One message as the stream holds it.
#[derive(Debug, Clone)]
pub struct Held {
    /// The event that it is, when it is one of ours.
    pub event_id: Option<EventId>,
    /// Its subject.
    pub subject: String,
    /// Its payload.
    pub payload: bytes::Bytes,
}

/// Finds the events that the stream holds above a sequence.
///
/// # Errors
/// [`StreamError::Unavailable`] when it does not answer, or sends less than it says that it has.
pub async fn look_up(client: &Client, stream: &str, above: u64) -> Result<LookedUp, StreamError> {
    let began = clock::now();
    let mut ids: Vec<(Uuid, Seq)> = Vec::new();
    let mut forgotten = 0;
    let seen = |_: u64, headers: Option<&HeaderMap>| {
        let Some(id) = headers.and_then(identity) else { return };
        if ids.len() >= FOUND_MAX {
            // The oldest are the first to have been settled, so they matter least.
            let half = FOUND_MAX / 2;
            forgotten += half as u64;
            drop(ids.drain(..half));
        }
        ids.push(id);
    };
    let (last_seq, messages) = read_headers(client, stream, above, seen).await?;
    Ok(LookedUp { began, found: Found::new(ids), last_seq, messages, forgotten })
}

/// Reads the headers of every message above a sequence, up to the one that is last when it begins.
/// Returns that last sequence and how many messages there were.
///
/// # Errors
/// As [`look_up`].
pub async fn read_headers(
    client: &Client,
    stream: &str,
    above: u64,
    mut seen: impl FnMut(u64, Option<&HeaderMap>),
) -> Result<(u64, u64), StreamError> {
    let source = find(&context(client), stream).await?;
    let state = &source.cached_info().state;
    let last_seq = state.last_sequence;
    if last_seq <= above || state.messages == 0 || last_seq < state.first_sequence {
        return Ok((last_seq, 0));
    }
    let unavailable = |reason: String, silent| StreamError::Unavailable {
        stream: stream.to_owned(),
        reason: format!("looking for what it holds: {reason}"),
        silent,
    };
    let consumer = source.create_consumer(OrderedConfig {
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: above + 1 },
        headers_only: true,
        ..OrderedConfig::default()
    });
    let consumer = timeout(API_TIMEOUT, consumer)
        .await
        .map_err(|_| unavailable("no consumer can be created in time".to_owned(), true))?
        .map_err(|error| unavailable(error.to_string(), false))?;
    if consumer.cached_info().num_pending == 0 {
        return Ok((last_seq, 0));
    }
    let name = consumer.cached_info().name.clone();
    let mut messages =
        consumer.messages().await.map_err(|error| unavailable(error.to_string(), false))?;
    let mut count = 0;
    loop {
        let next = timeout(API_TIMEOUT, messages.next())
            .await
            .map_err(|_| unavailable(format!("nothing came for {API_TIMEOUT:?}"), true))?;
        let Some(message) = next else {
            return Err(unavailable("the reading ended early".to_owned(), false));
        };
        let message = message.map_err(|error| unavailable(error.to_string(), false))?;
        let info = message.info().map_err(|error| unavailable(error.to_string(), false))?;
        let (seq, pending) = (info.stream_sequence, info.pending);
        if seq <= last_seq {
            count += 1;
            let Message { headers, .. } = &message.message;
            seen(seq, headers.as_ref());
        }
        if seq >= last_seq || pending == 0 {
            break;
        }
    }
    drop(messages);
    // It would end by itself, but a stream has room for so many.
    if let Ok(Err(error)) = timeout(API_TIMEOUT, source.delete_consumer(&name)).await {
        tracing::debug!(%error, "a consumer is left to end by itself");
    }
    Ok((last_seq, count))
}

/// For how long a stream keeps its messages, and the first that it has.
///
/// # Errors
/// As [`look_up`].
pub async fn kept(client: &Client, stream: &str) -> Result<(Keeps, u64), StreamError> {
    let found = find(&context(client), stream).await?;
    let info = found.cached_info();
    Ok((Keeps::of(&info.config), info.state.first_sequence))
}

/// What the stream holds under a sequence; `None` when it holds nothing there.
///
/// # Errors
/// As [`look_up`].
pub async fn held_at(client: &Client, stream: &str, seq: u64) -> Result<Option<Held>, StreamError> {
    let source: Stream<()> = context(client).get_stream_no_info(stream).await.map_err(|error| {
        StreamError::Unavailable {
            stream: stream.to_owned(),
            reason: error.to_string(),
            silent: false,
        }
    })?;
    let unavailable = |reason: String, silent| StreamError::Unavailable {
        stream: stream.to_owned(),
        reason: format!("reading message {seq}: {reason}"),
        silent,
    };
    match timeout(API_TIMEOUT, source.get_raw_message(seq)).await {
        Err(_) => Err(unavailable(format!("no answer within {API_TIMEOUT:?}"), true)),
        Ok(Ok(message)) => Ok(Some(Held {
            event_id: identity(&message.headers).map(|(id, _)| EventId(id)),
            subject: message.subject.to_string(),
            payload: message.payload,
        })),
        Ok(Err(error)) => match error.kind() {
            RawMessageErrorKind::NoMessageFound => Ok(None),
            RawMessageErrorKind::JetStream(api)
                if api.error_code() == ErrorCode::NO_MESSAGE_FOUND =>
            {
                Ok(None)
            }
            RawMessageErrorKind::JetStream(api) => Err(unavailable(api.to_string(), false)),
            RawMessageErrorKind::InvalidSubject | RawMessageErrorKind::Other => {
                Err(unavailable(error.to_string(), true))
            }
        },
    }
}

fn context(client: &Client) -> jetstream::Context {
    let mut context = jetstream::new(client.clone());
    context.set_timeout(API_TIMEOUT);
    context
}

/// Which event a message is; `None` for a message of somebody else.
pub fn identity(headers: &HeaderMap) -> Option<(Uuid, Seq)> {
    let text = |name: &str| headers.get(name).map(async_nats::HeaderValue::as_str);
    let id = Uuid::try_parse(text("Nats-Msg-Id")?).ok()?;
    let seq = text("ce-sequence")?.parse().ok()?;
    Some((id, Seq(seq)))
}
