//! Atomic batches: messages that the stream stores together and in order, or not at all.
//!
//! Each message names its batch and its place in it; the last says that the batch is complete, and
//! it alone is answered. A batch whose last message never comes is dropped by the server.

use std::{collections::VecDeque, time::Instant};

use async_nats::client::PublishErrorKind;
use futures_util::FutureExt;
use rustc_hash::FxHashMap;
use tokio::task::coop::unconstrained;

use super::{
    error::{Answer, PubAck},
    publish::{NotSent, Publisher, map_of},
};
use crate::{
    delivery::{BatchOutcome, Ticket},
    wire::Message,
};

/// The batches among what was sent.
#[derive(Debug, Default)]
pub(super) struct Batches {
    /// On their way, each by its number among what was sent.
    sent: FxHashMap<u64, Box<[Ticket]>>,
    /// Those that ended without an answer and are yet to be told.
    given_up: VecDeque<Box<[Ticket]>>,
}

impl Batches {
    /// The events of a number that is a batch's; nobody waits for it any more.
    pub(super) fn take(&mut self, number: u64) -> Option<Box<[Ticket]>> {
        if self.sent.is_empty() { None } else { self.sent.remove(&number) }
    }

    /// No answer can come any more. Returns whether the number was a batch's.
    pub(super) fn give_up(&mut self, number: u64) -> bool {
        let batch = self.take(number);
        let is_one = batch.is_some();
        self.given_up.extend(batch);
        is_one
    }

    pub(super) fn next_given_up(&mut self) -> Option<Box<[Ticket]>> {
        self.given_up.pop_front()
    }

    pub(super) fn forget(&mut self) {
        self.sent.clear();
        self.given_up.clear();
    }
}

impl Publisher {
    /// Hands a batch to the client and returns at once.
    ///
    /// # Errors
    /// When it was handed over in part only, or not at all: the server stores none of it.
    pub fn publish_together(
        &mut self,
        tickets: Box<[Ticket]>,
        messages: Vec<Message>,
        now: Instant,
    ) -> Result<(), NotSent> {
        let number = self.next_number();
        let (Some(live), Some(first)) = (&self.live, tickets.first().copied()) else {
            return Err(NotSent::NotNow);
        };
        let client = &live.connection.client;
        let id = batch_id(&live.reply_prefix, number);
        let last = messages.len();
        for (sequence, message) in (1..).zip(messages) {
            let Message { subject, mut headers, payload, .. } = message;
            headers.add("Nats-Batch-Id", &id);
            headers.add("Nats-Batch-Sequence", sequence);
            // The client's queue has room for two windows, and a batch is no more than one.
            let handed = if sequence == last {
                headers.add("Nats-Batch-Commit", "1");
                let (reply, headers) = (live.reply_to(number), map_of(&headers));
                let handing =
                    client.publish_with_reply_and_headers(subject, reply, headers, payload);
                unconstrained(handing).now_or_never()
            } else {
                let handing = client.publish_with_headers(subject, map_of(&headers), payload);
                unconstrained(handing).now_or_never()
            };
            match handed {
                Some(Ok(())) => {}
                Some(Err(error)) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                    return Err(NotSent::TooLarge);
                }
                Some(Err(_)) | None => return Err(NotSent::NotNow),
            }
        }
        self.batches.sent.insert(number, tickets);
        self.wait_for(first, now);
        Ok(())
    }

    /// No answer is waited for to the batches that hold such an event.
    pub fn give_up_batches(&mut self, holds: impl Fn(Ticket) -> bool) {
        let sent = self.batches.sent.iter();
        let such = sent.filter(|(_, batch)| batch.iter().any(|ticket| holds(*ticket)));
        let numbers: Vec<u64> = such.map(|(number, _)| *number).collect();
        for number in numbers {
            self.batches.give_up(number);
            self.give_up_number(number);
        }
    }

    /// What the answer to a batch of so many messages means.
    pub(super) fn batch_outcome(
        &self,
        answer: Answer<'_>,
        number: u64,
        messages: usize,
    ) -> BatchOutcome {
        let id = self.live.as_ref().map(|live| batch_id(&live.reply_prefix, number));
        classify(answer, &self.stream, id.as_deref(), messages)
    }
}

/// A name for a batch that no other one has: that of the inbox, which no other connection has, and the
/// number of the publish. At most 64 bytes, as the protocol wants it.
fn batch_id(reply_prefix: &str, number: u64) -> String {
    let inbox = reply_prefix.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    format!("{inbox}-{number}")
}

fn classify(answer: Answer<'_>, stream: &str, id: Option<&str>, messages: usize) -> BatchOutcome {
    let Answer::Payload(payload) = answer else {
        return BatchOutcome::Refused { text: "no stream answers for the subject".to_owned() };
    };
    match serde_json::from_slice::<PubAck<'_>>(payload) {
        // Whatever it is about, the whole batch or one message of it: nothing is stored, and what is
        // wrong shows when the events go one by one.
        Ok(PubAck { error: Some(error), .. }) => BatchOutcome::Refused {
            text: format!("{} (JetStream code {})", error.description, error.err_code),
        },
        // Our stream has all of it.
        Ok(PubAck { stream: Some(name), seq, batch, count, .. })
            if name == stream && batch == id && count == messages as u64 && seq >= count =>
        {
            BatchOutcome::Committed { last_seq: seq }
        }
        // Something else answers: who knows what it did.
        Ok(_) | Err(_) => BatchOutcome::Unconfirmed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(json: &str) -> BatchOutcome {
        classify(Answer::Payload(json.as_bytes()), "EVENTS", Some("b-7"), 3)
    }

    #[test]
    fn only_an_acknowledgement_of_the_whole_batch_by_our_stream_counts() {
        let whole = r#"{"stream":"EVENTS","seq":9,"batch":"b-7","count":3}"#;
        assert_eq!(answer(whole), BatchOutcome::Committed { last_seq: 9 });
        for other in [
            r#"{"stream":"OTHER","seq":9,"batch":"b-7","count":3}"#,
            r#"{"stream":"EVENTS","seq":9,"batch":"b-8","count":3}"#,
            r#"{"stream":"EVENTS","seq":9,"batch":"b-7","count":2}"#,
            r#"{"stream":"EVENTS","seq":2,"batch":"b-7","count":3}"#,
            // A server that knows no batches has stored the last message, and maybe the others.
            r#"{"stream":"EVENTS","seq":9}"#,
            "",
        ] {
            assert_eq!(answer(other), BatchOutcome::Unconfirmed, "{other}");
        }
    }

    #[test]
    fn an_error_stores_nothing() {
        let refused = answer(
            r#"{"error":{"code":400,"err_code":10201,"description":"duplicate"},"stream":"EVENTS","seq":0}"#,
        );
        assert_eq!(
            refused,
            BatchOutcome::Refused { text: "duplicate (JetStream code 10201)".to_owned() }
        );
        let nobody = classify(Answer::NoResponders, "EVENTS", Some("b-7"), 3);
        assert!(matches!(nobody, BatchOutcome::Refused { .. }));
    }

    #[test]
    fn the_name_of_a_batch_is_short_enough() {
        let id = batch_id("_INBOX.0123456789012345678901.", u64::MAX);
        assert_eq!(id, format!("0123456789012345678901-{}", u64::MAX));
        assert!(id.len() <= 64);
    }
}
