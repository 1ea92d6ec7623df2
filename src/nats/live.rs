//! Connection that takes messages, with its inbox for answers.

use async_nats::{Subscriber, client::PublishErrorKind};
use futures_util::FutureExt;
use tokio::task::coop::unconstrained;

use super::{NatsConnection, headers::header_map};
use crate::{broker::NotSent, wire::Message};

/// Connection in use, with an inbox of its own.
#[derive(Debug)]
pub(super) struct LiveConnection {
    pub(super) connection: NatsConnection,
    pub(super) answers: Subscriber,
    /// `<inbox>.`, to which the number of a publish is appended.
    reply_prefix: String,
}

impl LiveConnection {
    /// Subscribes to a new inbox; `None` when the connection has ended already.
    pub(super) fn over(connection: NatsConnection) -> Option<Self> {
        let inbox = connection.client.new_inbox();
        // The client's command queue is still empty, so subscribing does not wait for room in it.
        let answers = connection.client.subscribe(format!("{inbox}.>"));
        let Some(Ok(answers)) = unconstrained(answers).now_or_never() else {
            connection.ended.cancel();
            return None;
        };
        Some(Self { connection, answers, reply_prefix: format!("{inbox}.") })
    }

    /// Subject to which the answer to a publish goes.
    pub(super) fn reply_to(&self, number: u64) -> String {
        let mut digits = itoa::Buffer::new();
        [self.reply_prefix.as_str(), digits.format(number)].concat()
    }

    /// Number of the publish to which an answer on this subject belongs.
    pub(super) fn number_of(&self, subject: &str) -> Option<u64> {
        let place = subject.strip_prefix(&self.reply_prefix)?;
        // In the answers to a fast batch, the subject goes on after the number.
        let number = place.split_once('.').map_or(place, |(number, _)| number);
        number.parse().ok()
    }

    /// Name of a batch that no other batch has: the inbox, which no other connection has, and the
    /// number of the publish. At most 64 bytes, the limit of the protocol.
    pub(super) fn batch_id(&self, number: u64) -> String {
        batch_id(&self.reply_prefix, number)
    }

    /// Hands a message to the NATS client, without waiting.
    ///
    /// # Errors
    /// [`NotSent`] says whether it may go later.
    pub(super) fn hand_over(&self, message: Message, reply: Option<String>) -> Result<(), NotSent> {
        let Message { subject, headers, payload, .. } = message;
        let (client, headers) = (&self.connection.client, header_map(&headers));
        // The client's queue has room for more messages than may be in flight, so the future
        // completes at once. It runs unconstrained: the runtime's budget for one poll of a task is
        // smaller than that number of messages, and would make a ready future appear pending.
        let handed = if let Some(reply) = reply {
            let handing = client.publish_with_reply_and_headers(subject, reply, headers, payload);
            unconstrained(handing).now_or_never()
        } else {
            let handing = client.publish_with_headers(subject, headers, payload);
            unconstrained(handing).now_or_never()
        };
        match handed {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                Err(NotSent::TooLarge)
            }
            Some(Err(_)) | None => Err(NotSent::NotNow),
        }
    }
}

fn batch_id(reply_prefix: &str, number: u64) -> String {
    let inbox = reply_prefix.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    format!("{inbox}-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_batch_is_short_enough() {
        let id = batch_id("_INBOX.0123456789012345678901.", u64::MAX);
        assert_eq!(id, format!("0123456789012345678901-{}", u64::MAX));
        assert!(id.len() <= 64);
    }
}
