//! Reads single messages of the stream, and how long it keeps them.

use async_nats::jetstream::{
    Context, ErrorCode,
    stream::{RawMessageErrorKind, Stream},
};
use tokio::time::timeout;

use super::{
    info::{API_TIMEOUT, find},
    scan::identity,
    stream::{Cause, Keeps, StreamError},
};
use crate::event::EventId;

/// One message as the stream holds it.
#[derive(Debug, Clone)]
pub struct Held {
    /// The event that it is, when it carries the identity of one.
    pub event_id: Option<EventId>,
    /// Its subject.
    pub subject: String,
    /// Its payload.
    pub payload: bytes::Bytes,
}

/// For how long a stream keeps its messages, and the first that it has.
///
/// # Errors
/// [`StreamError::Unavailable`] when it does not answer.
pub async fn kept(jetstream: &Context, stream: &str) -> Result<(Keeps, u64), StreamError> {
    let info = find(jetstream, stream).await?;
    Ok((Keeps::of(&info.config), info.state.first_sequence))
}

/// What the stream holds under a sequence; `None` when it holds nothing there.
///
/// # Errors
/// [`StreamError::Unavailable`] when it does not answer.
pub async fn held_at(
    jetstream: &Context,
    stream: &str,
    seq: u64,
) -> Result<Option<Held>, StreamError> {
    let unavailable = |cause, reason: String| {
        StreamError::unavailable(stream, cause, format!("reading message {seq}: {reason}"))
    };
    let source: Stream<()> = jetstream
        .get_stream_no_info(stream)
        .await
        .map_err(|error| unavailable(Cause::Answered, error.to_string()))?;
    match timeout(API_TIMEOUT, source.get_raw_message(seq)).await {
        Err(_) => Err(unavailable(Cause::Silent, format!("no answer within {API_TIMEOUT:?}"))),
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
            RawMessageErrorKind::JetStream(api) => {
                Err(unavailable(Cause::Answered, api.to_string()))
            }
            RawMessageErrorKind::InvalidSubject | RawMessageErrorKind::Other => {
                Err(unavailable(Cause::Silent, error.to_string()))
            }
        },
    }
}
