//! Reads single messages of the stream, and the rule by which the stream keeps its messages.

use async_nats::jetstream::{
    Context, ErrorCode,
    stream::{RawMessageErrorKind, Stream},
};
use tokio::time::timeout;

use super::{
    fault::{Fault, unavailable},
    scan::identity,
    stream::keeps,
    stream_info::{API_TIMEOUT, find},
};
use crate::{
    broker::{BrokerError, Keeps, StoredMessage},
    event::EventId,
};

/// How a stream keeps its messages ([`Keeps`]), and the sequence of the first message.
///
/// # Errors
/// [`BrokerError::Unavailable`] when the stream does not answer.
pub async fn kept(jetstream: &Context, stream: &str) -> Result<(Keeps, u64), BrokerError> {
    let info = find(jetstream, stream).await?;
    Ok((keeps(&info.config), info.state.first_sequence))
}

/// Reads the message under a sequence; `None` when the stream contains none.
///
/// # Errors
/// [`BrokerError::Unavailable`] when the stream does not answer.
pub async fn message_at(
    jetstream: &Context,
    stream: &str,
    seq: u64,
) -> Result<Option<StoredMessage>, BrokerError> {
    let unavailable = |fault, reason: String| {
        unavailable(stream, fault, format!("reading message {seq}: {reason}"))
    };
    let source: Stream<()> = jetstream
        .get_stream_no_info(stream)
        .await
        .map_err(|error| unavailable(Fault::Answered, error.to_string()))?;
    match timeout(API_TIMEOUT, source.get_raw_message(seq)).await {
        Err(_) => Err(unavailable(Fault::Silent, format!("no answer within {API_TIMEOUT:?}"))),
        Ok(Ok(message)) => Ok(Some(StoredMessage {
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
            RawMessageErrorKind::JetStream(api) => {
                Err(unavailable(Fault::Answered, api.to_string()))
            }
            RawMessageErrorKind::InvalidSubject | RawMessageErrorKind::Other => {
                Err(unavailable(Fault::Silent, error.to_string()))
            }
        },
    }
}
