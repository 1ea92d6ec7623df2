//! Reads a whole stream back, without code of the relay that filled it.
//!
//! An ordered consumer goes through all sequence numbers. The number of messages that came is then
//! compared with the server's own count. So a message that the reader missed is an error of the
//! reading, and is not reported as lost.

use std::{fmt::Display, time::Duration};

use async_nats::{
    HeaderMap,
    jetstream::{
        self, ErrorCode,
        consumer::pull::OrderedConfig,
        context::{GetStreamError, GetStreamErrorKind},
    },
};
use futures_util::StreamExt as _;
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    checker::{Digest, Stored},
    workload::{ANY_SEQUENCE, ANY_TIME},
};

/// Maximum time without a message while a stream is read, in the middle of it.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Reason why a stream could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The NATS server refused the reading, or cannot be reached.
    #[error("read stream \"{stream}\": {detail}")]
    Nats {
        /// The stream's name.
        stream: String,
        /// Error message of the NATS client.
        detail: String,
    },
    /// The server says that there is more, and does not send it.
    #[error("stream \"{stream}\" sent nothing for {} s after message {seq}", SILENCE_MAX.as_secs())]
    Silent {
        /// The stream's name.
        stream: String,
        /// Stream sequence of the last message that came.
        seq: u64,
    },
    /// The number of messages that came is not the number that the server says the stream has.
    #[error("stream \"{stream}\" has {said} messages by its own account, and {counted} came")]
    Count {
        /// The stream's name.
        stream: String,
        /// Two numbers of the server: its count of messages, then the count that follows from its
        /// first sequence, its last one and its deleted messages.
        said: String,
        /// Number of messages that were read.
        counted: u64,
    },
}

/// Reads all messages of a stream, from the first to the one that is last when the reading begins.
///
/// # Errors
/// When the stream does not exist, does not answer, or did not send as many messages as it counts.
///
/// # Cancel safety
/// The stream stays unchanged; the server removes the reader's consumer by itself.
pub async fn read_stream(url: &str, stream: &str) -> Result<Vec<Stored>, ReadError> {
    read_renamed(url, stream, ("", "")).await
}

/// Reads a stream as [`read_stream`] does. In the subjects that it returns one prefix is replaced:
/// `renamed` has the prefix in the stream, and the one to return.
///
/// # Errors
/// The errors of [`read_stream`].
///
/// # Cancel safety
/// The stream stays unchanged, as with [`read_stream`].
pub async fn read_renamed(
    url: &str,
    stream: &str,
    renamed: (&str, &str),
) -> Result<Vec<Stored>, ReadError> {
    let client = async_nats::connect(url).await.map_err(|error| refused(stream, error))?;
    let context = jetstream::new(client);
    let source = context.get_stream(stream).await.map_err(|error| refused(stream, error))?;
    let state = source.cached_info().state.clone();
    let mut stored = Vec::with_capacity(usize::try_from(state.messages).unwrap_or(0));
    if state.messages > 0 {
        let consumer = source
            .create_consumer(OrderedConfig::default())
            .await
            .map_err(|error| refused(stream, error))?;
        let mut messages = consumer.messages().await.map_err(|error| refused(stream, error))?;
        let mut seq = 0;
        while seq < state.last_sequence {
            let next = timeout(SILENCE_MAX, messages.next()).await;
            let Ok(Some(message)) = next else {
                return Err(ReadError::Silent { stream: stream.to_owned(), seq });
            };
            let message = message.map_err(|error| refused(stream, error))?;
            seq = message.info().map_err(|error| refused(stream, error))?.stream_sequence;
            stored.push(stored_message(seq, &message.message, renamed));
        }
    }
    let counted = stored.len() as u64;
    let numbers = match state.messages {
        0 => 0,
        _ => (state.last_sequence + 1).saturating_sub(state.first_sequence),
    };
    let left = numbers.saturating_sub(state.deleted_count.unwrap_or(0));
    if counted != state.messages || counted != left {
        let said = format!("{} or {left}", state.messages);
        return Err(ReadError::Count { stream: stream.to_owned(), said, counted });
    }
    Ok(stored)
}

/// The number of messages in a stream now; 0 when it does not exist yet.
///
/// # Errors
/// When the server cannot be reached.
///
/// # Cancel safety
/// Nothing is changed.
pub async fn count_messages(
    context: &jetstream::Context,
    stream: &str,
) -> Result<u64, GetStreamError> {
    match context.get_stream(stream).await {
        Ok(stream) => Ok(stream.cached_info().state.messages),
        Err(error) if is_missing(&error) => Ok(0),
        Err(error) => Err(error),
    }
}

/// Whether there is no such stream.
pub(super) fn is_missing(error: &GetStreamError) -> bool {
    let GetStreamErrorKind::JetStream(cause) = error.kind() else { return false };
    cause.error_code() == ErrorCode::STREAM_NOT_FOUND
}

fn refused(stream: &str, error: impl Display) -> ReadError {
    ReadError::Nats { stream: stream.to_owned(), detail: error.to_string() }
}

fn stored_message(seq: u64, message: &async_nats::Message, (from, to): (&str, &str)) -> Stored {
    let none = HeaderMap::new();
    let headers = message.headers.as_ref().unwrap_or(&none);
    let value = |name: &str| headers.get(name).map(async_nats::HeaderValue::as_str);
    Stored {
        seq,
        id: value("Nats-Msg-Id").and_then(|id| Uuid::parse_str(id).ok()),
        subject: match message.subject.strip_prefix(from) {
            Some(rest) => Digest::of(format!("{to}{rest}")),
            None => Digest::of(&*message.subject),
        },
        key: value("ce-partitionkey").map(Digest::of),
        payload: Digest::of(&message.payload),
        headers: digest_of(headers),
    }
}

/// The digest of all headers. Of values that the database chose, the time and the sequence, only
/// the format counts.
fn digest_of(headers: &HeaderMap) -> Digest {
    let mut pairs: Vec<(&str, &str)> = Vec::with_capacity(24);
    for (name, values) in headers.iter() {
        let name: &str = name.as_ref();
        // The headers of a batch are not part of the event.
        if name.starts_with("Nats-Batch-") {
            continue;
        }
        for value in values {
            pairs.push((name, shape(name, value.as_str())));
        }
    }
    Digest::of_headers(pairs)
}

fn shape<'a>(name: &str, value: &'a str) -> &'a str {
    match name {
        "ce-time" if value.parse::<jiff::Timestamp>().is_ok() => ANY_TIME,
        "ce-sequence" if value.len() == 20 && value.bytes().all(|byte| byte.is_ascii_digit()) => {
            ANY_SEQUENCE
        }
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_database_chose_is_compared_by_its_shape() {
        let digest = |time: &str, sequence: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("ce-time", time);
            headers.insert("ce-sequence", sequence);
            digest_of(&headers)
        };
        let wanted = Digest::of_headers([("ce-time", ANY_TIME), ("ce-sequence", ANY_SEQUENCE)]);
        assert_eq!(digest("2026-11-21T10:00:00.123456Z", "00000000000000000042"), wanted);
        assert_ne!(digest("yesterday", "00000000000000000042"), wanted);
        assert_ne!(digest("2026-11-21T10:00:00Z", "42"), wanted);
    }
}
