//! Outcome, verdict and settlement: the broker's answer, the decision, and the write-back.

use std::{borrow::Cow, time::Duration};

use crate::{
    delivery::{Certainty, Ticket},
    event::{EventId, Position, Seq},
};

/// Outcome of one publish. Some outcomes concern one message, others the whole broker. So an outage
/// makes no dead letters, and a message that cannot be stored is not taken for an outage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The log contains the message.
    Acked {
        /// Sequence of the message in the log.
        stream_seq: u64,
        /// Whether the log contained it already, from an earlier attempt.
        duplicate: bool,
    },
    /// The message can never be stored as it is.
    Rejected(Rejection),
    /// No answer came: the message may or may not be stored. It is sent again under the same id.
    Unconfirmed,
    /// The broker refused this message for now, while it may accept others.
    Busy {
        /// Reason that the broker gave for its refusal.
        reason: Rejection,
        /// Whether the answer uses up an attempt.
        attempt: Attempt,
    },
    /// The broker, the stream or the route refuses everything just now.
    Unavailable(Closure),
}

/// Whether an answer uses up one of the attempts that an event has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The answer uses up an attempt.
    Counts,
    /// The answer uses up no attempt: an answer without a known meaning makes no dead letter.
    IsFree,
    /// The answer uses up an attempt as long as at most half of them are used, so that waits grow.
    /// The event never becomes a dead letter by it, because the event itself is valid.
    CountsAsWait,
}

/// Reason for which a message was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Code of the reason, which letters and metrics show. It stays the same from release to
    /// release.
    pub code: &'static str,
    /// Reason in words, for people.
    pub text: String,
}

/// Closure of the publishing gate: the reason why no event can be published just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closure {
    /// Kind of failure that keeps events from being published.
    pub kind: ClosureKind,
    /// Failure that keeps events from being published, in words without secrets.
    pub text: String,
    /// Advice for the person on call.
    pub hint: Cow<'static, str>,
}

impl Closure {
    /// A closure with the hint of its kind.
    pub fn new(kind: ClosureKind, text: String) -> Self {
        Self { kind, text, hint: kind.hint().into() }
    }

    /// A closure with the hint of its cause, which is more precise than that of its kind.
    pub fn with_hint(kind: ClosureKind, text: String, hint: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, text, hint: hint.into() }
    }
}

/// Kind of failure that closes the publishing gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClosureKind {
    /// The log does not answer: it elects a leader, is missing or is full.
    StreamUnavailable,
    /// The log exists and cannot accept events as it is set up.
    Misconfigured,
    /// The server forbids us to publish.
    PermissionDenied,
    /// The broker is connected and answers no request.
    BrokerStalled,
    /// The broker answers requests and acknowledges no message: it stores nothing.
    StoreStalled,
    /// The log lost messages that it had acknowledged.
    BrokerRegressed,
}

impl ClosureKind {
    /// Name in `status`, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StreamUnavailable => "stream_unavailable",
            Self::Misconfigured => "misconfigured",
            Self::PermissionDenied => "permission_denied",
            Self::BrokerStalled => "broker_stalled",
            Self::StoreStalled => "store_stalled",
            Self::BrokerRegressed => "broker_regressed",
        }
    }

    /// Advice for the person on call.
    pub fn hint(self) -> &'static str {
        match self {
            Self::StreamUnavailable => {
                "events wait and nothing is lost; run `postrider check`, which asks for the stream"
            }
            Self::Misconfigured => {
                "change the stream, or [stream] and [route] to match it, then run `postrider check`"
            }
            Self::PermissionDenied => {
                "allow the relay's user at the broker to publish, and to verify and scan the stream: \
                 `postrider check` names each request"
            }
            Self::BrokerStalled => "the broker is connected but silent: check its disk and its log",
            Self::StoreStalled => {
                "check the free space of the broker's disk and its log; with the disk full, make room \
                 and restart the server, which does not go on by itself"
            }
            Self::BrokerRegressed => {
                "see with `postrider reconcile --dry-run` what is missing; `postrider reconcile` \
                 publishes it again, in order and under the same ids"
            }
        }
    }
}

/// Verdict about an event that leaves memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The log contains the event.
    Published,
    /// The event becomes a dead letter.
    Dead {
        /// Reason for which the broker, or the relay itself, refused the event last.
        reason: Rejection,
        /// Number of attempts to publish that the event has used up.
        attempts: u32,
    },
    /// The event leaves the fast path and is tried again later.
    Retrying(Retry),
    /// The event waits behind a letter of its key.
    Held(Certainty),
    /// The event has a letter already: the position was put back, so its row is read again.
    Lettered,
}

/// Retry of an event as a letter: when, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Reason for which the broker, or the relay itself, refused the event last.
    pub reason: Rejection,
    /// Number of attempts to publish that the event has used up.
    pub attempts: u32,
    /// Wait before the next attempt, by the database's clock.
    pub wait: Duration,
}

/// New letter: an event that left the fast path, as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLetter {
    /// Place of the row in the outbox.
    pub seq: Seq,
    /// State in which the letter begins.
    pub fate: Fate,
    /// Values for a settlement that is written in parts, if this letter is the last one of a part.
    pub end: PartEnd,
}

/// End of a part of a settlement. A settlement can be divided behind any of its letters, and the
/// part up to there has these values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartEnd {
    /// Position up to which everything is settled.
    pub position: Position,
    /// Exclusive lower bound for the stream sequences of the events that come after the part.
    pub stream_floor: u64,
    /// Number of events that the settlement has up to here.
    pub events: usize,
    /// Number of published events that the settlement has up to here.
    pub published: usize,
    /// Exclusive upper bound for the tickets of the events in the part.
    pub up_to: Ticket,
}

/// Fate of an event that leaves the fast path: the state in which its letter begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Dead: an operator decides about the letter.
    Dead {
        /// Reason for which the broker, or the relay itself, refused the event last.
        reason: Rejection,
        /// Number of attempts to publish that the event has used up.
        attempts: u32,
    },
    /// Retrying: the relay tries the letter again later.
    Retrying(Retry),
    /// Held: the letter waits behind an earlier one of its key, if there is one.
    Held(Certainty),
}

/// Mark of the log: the stream sequences that the relay knows. It is stored with the position, so
/// that the next run has it after a crash.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamMark {
    /// Highest stream sequence that was acknowledged; 0 before the first.
    pub acked: u64,
    /// Event that is stored at the sequence `acked`, if known.
    pub event_id: Option<EventId>,
    /// Exclusive lower bound for the stream sequence of any sent and unsettled event.
    pub floor: u64,
}

/// Settlement: the position and the letters before it, as one statement writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// Position up to which everything is settled.
    pub position: Position,
    /// Events before the position that left the fast path, in order.
    pub letters: Vec<NewLetter>,
    /// Stream sequences that the relay knows when it makes the settlement.
    pub stream: StreamMark,
    /// Number of events that the settlement settles.
    pub events: usize,
    /// Number of published events among the settled ones.
    pub published: usize,
    /// Exclusive upper bound for the tickets of the settled events.
    pub up_to: Ticket,
}

impl Settlement {
    /// Divides the settlement into the part with the first `letters` letters, at least one, and the
    /// rest. Each part is written by itself, in this order.
    pub fn divide(mut self, letters: usize) -> (Self, Option<Self>) {
        let count = letters.max(1).min(self.letters.len());
        let mut left = self.letters.split_off(count);
        let Some(PartEnd { position, stream_floor, events, published, up_to }) =
            self.letters.last().filter(|_| !left.is_empty()).map(|last| last.end.clone())
        else {
            return (self, None);
        };
        for letter in &mut left {
            letter.end.events -= events;
            letter.end.published -= published;
        }
        let stream = StreamMark { floor: self.stream.floor.min(stream_floor), ..self.stream };
        let letters = std::mem::replace(&mut self.letters, left);
        self.events -= events;
        self.published -= published;
        (Self { position, letters, stream, events, published, up_to }, Some(self))
    }
}
