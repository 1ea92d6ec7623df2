//! Batches: messages that are answered together.
//!
//! Each message carries the name of its batch and its place in the batch. The last message says
//! that the batch is complete. An atomic batch has name and place in headers, a fast batch in the
//! reply subject.
//!
//! An atomic batch is stored as a whole and answered once. Of a fast batch each message is stored
//! as it comes, up to the first gap or fault. The answers before its end only report progress.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::{
    answer::{Answer, ExpectedStream, PubAck},
    live::LiveConnection,
};
use crate::{
    broker::NotSent,
    delivery::{BatchKind, BatchOutcome, Ticket},
    wire::{Headers, Message},
};

/// Rule of a fast batch: it ends at the first message that is missing or refused.
const FAST_RULES: &str = "fail";

/// Number of messages of a fast batch after which the server has to answer; it answers more often.
const FAST_FLOW: u16 = u16::MAX;

/// Beginning of an answer that reports progress with a fast batch.
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
    /// Batches in flight, each by the number of its publish.
    sent: FxHashMap<u64, SentBatch>,
    /// Batches that ended without an answer and have not been reported yet.
    given_up: VecDeque<Box<[Ticket]>>,
}

impl BatchesInFlight {
    /// Hands a batch to the NATS client. The server's answer to the batch will carry this number.
    ///
    /// # Errors
    /// When the batch was handed over in part only, or not at all.
    pub(super) fn hand_over(
        &mut self,
        live: &LiveConnection,
        number: u64,
        (kind, tickets): (BatchKind, Box<[Ticket]>),
        messages: Vec<Message>,
    ) -> Result<(), NotSent> {
        let naming = BatchNaming::new(kind, live, number, messages.len());
        for (place, mut message) in (1..).zip(messages) {
            let reply = naming.name(place, &mut message.headers);
            live.hand_over(message, reply)?;
        }
        self.sent.insert(number, SentBatch { kind, tickets });
        Ok(())
    }

    /// Gives up the batches that contain an event for which `has` is true. Returns their numbers.
    pub(super) fn give_up_with(&mut self, has: impl Fn(Ticket) -> bool) -> Vec<u64> {
        let sent = self.sent.iter();
        let such = sent.filter(|(_, batch)| batch.tickets.iter().any(|ticket| has(*ticket)));
        let numbers: Vec<u64> = such.map(|(number, _)| *number).collect();
        for number in &numbers {
            self.give_up(*number);
        }
        numbers
    }

    /// Removes the batch with this publish number; `None` when the number belongs to a single
    /// message.
    pub(super) fn take(&mut self, number: u64) -> Option<SentBatch> {
        if self.sent.is_empty() { None } else { self.sent.remove(&number) }
    }

    /// Gives up a batch whose answer cannot come any more. Returns whether the number was that of a
    /// batch.
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

impl SentBatch {
    /// Outcome of the batch, read from its answer.
    pub(super) fn outcome(
        &self,
        answer: Answer<'_>,
        wanted: ExpectedStream<'_>,
        id: &str,
    ) -> BatchOutcome {
        classify(answer, wanted, id, (self.kind, self.tickets.len()))
    }
}

/// Whether an answer only reports progress with a fast batch.
pub(super) fn is_progress(answer: &[u8]) -> bool {
    answer.starts_with(PROGRESS)
}

/// Naming of a batch: how each message says to which batch it belongs, and at which place.
struct BatchNaming {
    kind: BatchKind,
    id: String,
    /// Subject for the answer to an atomic batch, or the beginning of the subjects of a fast batch.
    reply: String,
    last: usize,
}

impl BatchNaming {
    fn new(kind: BatchKind, live: &LiveConnection, number: u64, messages: usize) -> Self {
        let (id, reply) = (live.batch_id(number), live.reply_to(number));
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

fn classify(
    answer: Answer<'_>,
    wanted: ExpectedStream<'_>,
    id: &str,
    (kind, messages): (BatchKind, usize),
) -> BatchOutcome {
    let Answer::Payload(payload) = answer else {
        // The answer says that nobody listens on a subject. In a fast batch that may concern one
        // message.
        let text = "no stream answers for the subject".to_owned();
        return not_taken(kind, text);
    };
    match serde_json::from_slice::<PubAck<'_>>(payload) {
        // The error may be about the whole batch or about one message. The relay then sends the
        // events one by one, which shows the message at fault.
        Ok(PubAck { error: Some(error), .. }) => {
            let text = format!("{} (JetStream code {})", error.description, error.err_code);
            not_taken(kind, text)
        }
        // The expected stream has stored the whole batch.
        Ok(PubAck { stream: Some(name), domain, seq, batch, count, .. })
            if wanted.is(name, domain)
                && batch == Some(id)
                && count == messages as u64
                && seq >= count =>
        {
            match kind {
                BatchKind::Atomic => BatchOutcome::Committed { last_seq: seq },
                BatchKind::Fast => BatchOutcome::Seen { last_seq: seq },
            }
        }
        // The answer does not prove that the expected stream has the whole batch, so it is unknown
        // which messages are stored.
        Ok(_) | Err(_) => BatchOutcome::Unconfirmed,
    }
}

/// Outcome of a batch that the stream refused or broke off. Of an atomic batch nothing is stored,
/// of a fast batch perhaps the first messages.
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
        classify(Answer::Payload(json.as_bytes()), EVENTS, "b-7", (kind, 3))
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
            // A server without batches has stored the last message, and perhaps the others.
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
        let nobody = classify(Answer::NoResponders, EVENTS, "b-7", (BatchKind::Atomic, 3));
        assert!(matches!(nobody, BatchOutcome::Refused { .. }));
    }
}
