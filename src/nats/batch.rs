//! Batches: messages that are answered together.
//!
//! Each message names its batch and its place in it, and the last says that the batch is complete:
//! those of an atomic batch in headers, those of a fast one in the subject for its answers. An
//! atomic batch is stored as a whole and answered once. Of a fast one each message is stored as it
//! comes, up to the first gap or fault; what is answered before its end says how far it is.

use std::{collections::VecDeque, time::Instant};

use async_nats::client::PublishErrorKind;
use futures_util::FutureExt;
use rustc_hash::FxHashMap;
use tokio::task::coop::unconstrained;

use super::{
    error::{Answer, ExpectedStream, PubAck},
    publish::{Live, Publisher, map_of},
};
use crate::{
    broker::NotSent,
    delivery::{BatchKind, BatchOutcome, Ticket},
    wire::{Headers, Message},
};

/// A fast batch ends at the first message that is missing or not taken.
const FAST_RULES: &str = "fail";

/// The most messages between two answers that a server may be asked for; it gives more of them.
const FAST_FLOW: u16 = u16::MAX;

/// How the answer to a message of a fast batch begins that says how far the server is.
const PROGRESS: &[u8] = br#"{"type":"ack""#;

/// Batch in flight.
#[derive(Debug)]
pub(super) struct SentBatch {
    kind: BatchKind,
    pub(super) tickets: Box<[Ticket]>,
}

/// Batches in flight, and those that were given up.
#[derive(Debug, Default)]
pub(super) struct BatchesInFlight {
    /// On their way, each by its number among what was sent.
    sent: FxHashMap<u64, SentBatch>,
    /// Batches that ended without an answer and are yet to be reported.
    given_up: VecDeque<Box<[Ticket]>>,
}

impl BatchesInFlight {
    /// The events of a number that is a batch's; nobody waits for it any more.
    pub(super) fn take(&mut self, number: u64) -> Option<SentBatch> {
        if self.sent.is_empty() { None } else { self.sent.remove(&number) }
    }

    /// No answer can come any more. Returns whether the number was a batch's.
    pub(super) fn give_up(&mut self, number: u64) -> bool {
        let batch = self.take(number);
        let is_one = batch.is_some();
        self.given_up.extend(batch.map(|batch| batch.tickets));
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
    /// When it was handed over in part only, or not at all: of an atomic one the server stores
    /// nothing.
    pub fn publish_batch(
        &mut self,
        kind: BatchKind,
        tickets: Box<[Ticket]>,
        messages: Vec<Message>,
        now: Instant,
    ) -> Result<(), NotSent> {
        let number = self.next_number();
        let (Some(live), Some(first)) = (&self.live, tickets.first().copied()) else {
            return Err(NotSent::NotNow);
        };
        if let Err(why) =
            hand_over(live, &Naming::new(kind, live, number, messages.len()), messages)
        {
            self.skip_number();
            return Err(why);
        }
        self.batches.sent.insert(number, SentBatch { kind, tickets });
        self.wait_for(first, now);
        Ok(())
    }

    /// No answer is waited for to the batches that hold such an event.
    pub fn give_up_batches(&mut self, holds: impl Fn(Ticket) -> bool) {
        let sent = self.batches.sent.iter();
        let such = sent.filter(|(_, batch)| batch.tickets.iter().any(|ticket| holds(*ticket)));
        let numbers: Vec<u64> = such.map(|(number, _)| *number).collect();
        for number in numbers {
            self.batches.give_up(number);
            self.give_up_number(number);
        }
    }

    /// Outcome of a batch, by its answer.
    pub(super) fn batch_outcome(
        &self,
        answer: Answer<'_>,
        number: u64,
        batch: &SentBatch,
    ) -> BatchOutcome {
        let id = self.live.as_ref().map(|live| batch_id(&live.reply_prefix, number));
        let SentBatch { kind, tickets } = batch;
        classify(answer, self.wanted(), id.as_deref(), (*kind, tickets.len()))
    }
}

fn hand_over(live: &Live, batch: &Naming, messages: Vec<Message>) -> Result<(), NotSent> {
    let client = &live.connection.client;
    for (place, message) in (1..).zip(messages) {
        let Message { subject, mut headers, payload, .. } = message;
        let reply = batch.name(place, &mut headers);
        let headers = map_of(&headers);
        // The client's queue has room for two windows, and a batch is no more than one.
        let handed = if let Some(reply) = reply {
            let handing = client.publish_with_reply_and_headers(subject, reply, headers, payload);
            unconstrained(handing).now_or_never()
        } else {
            let handing = client.publish_with_headers(subject, headers, payload);
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
    Ok(())
}

/// Whether an answer only says how far the server is with a fast batch.
pub(super) fn is_progress(answer: &[u8]) -> bool {
    answer.starts_with(PROGRESS)
}

/// How the messages of a batch say which one they are.
struct Naming {
    kind: BatchKind,
    id: String,
    /// Of an atomic batch the subject for its answer, of a fast one what all its subjects begin
    /// with.
    reply: String,
    last: usize,
}

impl Naming {
    fn new(kind: BatchKind, live: &Live, number: u64, messages: usize) -> Self {
        let (id, reply) = (batch_id(&live.reply_prefix, number), live.reply_to(number));
        let reply = match kind {
            BatchKind::Atomic => reply,
            BatchKind::Fast => format!("{reply}.{id}.{FAST_FLOW}.{FAST_RULES}."),
        };
        Self { kind, id, reply, last: messages }
    }

    /// Names the message at this place, counted from 1. Returns the subject for its answer.
    fn name(&self, place: usize, headers: &mut Headers) -> Option<String> {
        match self.kind {
            BatchKind::Atomic => {
                headers.add("Nats-Batch-Id", &self.id);
                headers.add("Nats-Batch-Sequence", place);
                (place == self.last).then(|| {
                    headers.add("Nats-Batch-Commit", "1");
                    self.reply.clone()
                })
            }
            BatchKind::Fast => {
                let operation = match place {
                    last if last == self.last => ".2.$FI",
                    1 => ".0.$FI",
                    _ => ".1.$FI",
                };
                let mut digits = itoa::Buffer::new();
                Some([self.reply.as_str(), digits.format(place), operation].concat())
            }
        }
    }
}

/// A name for a batch that no other one has: that of the inbox, which no other connection has, and
/// the number of the publish. At most 64 bytes, as the protocol wants it.
fn batch_id(reply_prefix: &str, number: u64) -> String {
    let inbox = reply_prefix.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    format!("{inbox}-{number}")
}

fn classify(
    answer: Answer<'_>,
    wanted: ExpectedStream<'_>,
    id: Option<&str>,
    (kind, messages): (BatchKind, usize),
) -> BatchOutcome {
    let Answer::Payload(payload) = answer else {
        // Of a fast batch this may be about one of its messages.
        let text = "no stream answers for the subject".to_owned();
        return not_taken(kind, text);
    };
    match serde_json::from_slice::<PubAck<'_>>(payload) {
        // Whatever it is about, the whole batch or one message of it: what is wrong shows when the
        // events go one by one.
        Ok(PubAck { error: Some(error), .. }) => {
            let text = format!("{} (JetStream code {})", error.description, error.err_code);
            not_taken(kind, text)
        }
        // Our stream has all of it.
        Ok(PubAck { stream: Some(name), domain, seq, batch, count, .. })
            if wanted.is(name, domain)
                && batch == id
                && count == messages as u64
                && seq >= count =>
        {
            match kind {
                BatchKind::Atomic => BatchOutcome::Committed { last_seq: seq },
                BatchKind::Fast => BatchOutcome::Seen { last_seq: seq },
            }
        }
        // Something else answers: who knows what it did.
        Ok(_) | Err(_) => BatchOutcome::Unconfirmed,
    }
}

/// Of an atomic batch that is refused nothing is stored, of a fast one maybe the first messages.
fn not_taken(kind: BatchKind, text: String) -> BatchOutcome {
    match kind {
        BatchKind::Atomic => BatchOutcome::Refused { text },
        BatchKind::Fast => BatchOutcome::Broken { text },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: ExpectedStream<'_> = ExpectedStream { stream: "EVENTS", domain: None };

    fn answer(json: &str) -> BatchOutcome {
        to(BatchKind::Atomic, json)
    }

    fn to(kind: BatchKind, json: &str) -> BatchOutcome {
        classify(Answer::Payload(json.as_bytes()), EVENTS, Some("b-7"), (kind, 3))
    }

    #[test]
    fn of_a_fast_batch_only_its_end_counts() {
        let to = |json: &str| to(BatchKind::Fast, json);
        let whole = r#"{"stream":"EVENTS","seq":9,"batch":"b-7","count":3}"#;
        assert_eq!(to(whole), BatchOutcome::Seen { last_seq: 9 });
        for other in [
            r#"{"stream":"EVENTS","seq":9,"batch":"b-7","count":2}"#,
            r#"{"stream":"EVENTS","seq":9,"batch":"b-8","count":3}"#,
            r#"{"type":"gap","last_seq":2,"seq":3}"#,
        ] {
            assert_eq!(to(other), BatchOutcome::Unconfirmed, "{other}");
        }
        for (fault, text) in [
            (
                r#"{"type":"err","seq":3,"error":{"code":503,"err_code":10077,"description":"full"}}"#,
                "full (JetStream code 10077)",
            ),
            (
                r#"{"error":{"code":400,"err_code":10208,"description":"unknown"},"stream":"EVENTS","seq":0}"#,
                "unknown (JetStream code 10208)",
            ),
        ] {
            assert_eq!(to(fault), BatchOutcome::Broken { text: text.to_owned() }, "{fault}");
        }
        assert!(is_progress(br#"{"type":"ack","seq":0,"msgs":500}"#));
        assert!(!is_progress(whole.as_bytes()));
    }

    #[test]
    fn only_an_acknowledgement_of_the_whole_batch_by_our_stream_counts() {
        let whole = r#"{"stream":"EVENTS","seq":9,"batch":"b-7","count":3}"#;
        assert_eq!(answer(whole), BatchOutcome::Committed { last_seq: 9 });
        for other in [
            r#"{"stream":"OTHER","seq":9,"batch":"b-7","count":3}"#,
            r#"{"stream":"EVENTS","domain":"leaf","seq":9,"batch":"b-7","count":3}"#,
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
        let nobody = classify(Answer::NoResponders, EVENTS, Some("b-7"), (BatchKind::Atomic, 3));
        assert!(matches!(nobody, BatchOutcome::Refused { .. }));
    }

    #[test]
    fn the_name_of_a_batch_is_short_enough() {
        let id = batch_id("_INBOX.0123456789012345678901.", u64::MAX);
        assert_eq!(id, format!("0123456789012345678901-{}", u64::MAX));
        assert!(id.len() <= 64);
    }
}
