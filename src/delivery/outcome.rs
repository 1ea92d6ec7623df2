//! What the broker told us, and what we make of it.

use std::{borrow::Cow, time::Duration};

use super::{blocked::Hold, lanes::Ticket};
use crate::event::{EventId, Position, Seq};

/// What became of one publish. The split is what keeps an outage from filling the dead letters and
/// a poison event from looking like an outage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The stream holds the message.
    Acked {
        /// Its sequence in the stream.
        stream_seq: u64,
        /// The stream held it already, from an earlier attempt.
        duplicate: bool,
    },
    /// This message can never be stored as it is.
    Rejected(Rejection),
    /// No answer: it may or may not be stored. It is sent again under the same id.
    Unconfirmed,
    /// The broker does not take this message just now, while it may take others.
    Busy {
        /// What it said.
        reason: Rejection,
        /// Whether this uses up an attempt.
        attempt: Attempt,
    },
    /// The broker, the stream or the route refuses everything just now.
    Unavailable(Closure),
}

/// Whether an answer uses up one of the attempts that an event has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// It does.
    Counts,
    /// It does not: what we do not understand never makes a dead letter.
    IsFree,
    /// The waits grow as if it did, up to half of the attempts, and it is never the last one: the
    /// event is fine, and its subject has no room for it.
    CountsAsWait,
}

/// Why a message was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// A stable code for letters and metrics.
    pub code: &'static str,
    /// What a person reads.
    pub text: String,
}

/// Why nothing can be published just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closure {
    /// Which kind of trouble it is.
    pub kind: ClosureKind,
    /// What is wrong, free of secrets.
    pub text: String,
    /// What the person on call can do.
    pub hint: Cow<'static, str>,
}

impl Closure {
    /// A closure with the hint of its kind.
    pub fn new(kind: ClosureKind, text: String) -> Self {
        Self { kind, text, hint: kind.hint().into() }
    }

    /// A closure whose cause tells more precisely what to do.
    pub fn with_hint(kind: ClosureKind, text: String, hint: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, text, hint: hint.into() }
    }
}

/// Which kind of trouble closes the publishing gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClosureKind {
    /// The stream does not answer: leader election, missing, full.
    StreamUnavailable,
    /// The stream is there and will not take events as it is set up.
    Misconfigured,
    /// The server forbids us to publish.
    PermissionDenied,
    /// Connected, and nothing is answered.
    BrokerStalled,
    /// Questions are answered, and no publish is: the broker stores nothing.
    StoreStalled,
    /// The stream lost messages that it had acknowledged.
    BrokerRegressed,
}

impl ClosureKind {
    /// The name in `status`, metrics and logs.
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

    /// What the person on call can do.
    pub fn hint(self) -> &'static str {
        match self {
            Self::StreamUnavailable => {
                "events wait and nothing is lost; see with `nats stream info` whether the stream \
                 exists and has a leader"
            }
            Self::Misconfigured => {
                "change the stream, or [stream] and [route] to match it, then run `postrider check`"
            }
            Self::PermissionDenied => {
                "allow this user to publish to the route's subjects and, of the stream, to \
                 $JS.API.STREAM.INFO, STREAM.MSG.GET, CONSUMER.CREATE, CONSUMER.MSG.NEXT and \
                 CONSUMER.DELETE, and to subscribe to its inbox"
            }
            Self::BrokerStalled => {
                "the server is connected but silent: look at its disk and its log; after a full \
                 JetStream disk it needs a restart"
            }
            Self::StoreStalled => {
                "look at the free space of the broker's disk and at its log; with the disk full, make \
                 room and restart the server, which does not go on by itself"
            }
            Self::BrokerRegressed => {
                "see with `postrider reconcile --dry-run` what is missing; `postrider reconcile` \
                 publishes it again, in order and under the same ids"
            }
        }
    }
}

/// What was decided about an event that leaves memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the stream.
    Published,
    /// It goes to the dead letters.
    Dead {
        /// Why.
        reason: Rejection,
        /// How often it was tried.
        attempts: u32,
    },
    /// It leaves the fast path and is tried again later.
    Retrying(Retry),
    /// It waits behind a letter of its key.
    Held(Hold),
    /// It is a letter already, from before the position was put back.
    Lettered,
}

/// When an event is tried again, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// What the broker said.
    pub reason: Rejection,
    /// How often it was tried.
    pub attempts: u32,
    /// How long to wait, by the database's clock.
    pub wait: Duration,
}

/// An event that left the fast path, as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Which row.
    pub seq: Seq,
    /// What becomes of it.
    pub fate: Fate,
    /// How far everything is settled with this letter and what is before it.
    pub until: Until,
}

/// How far a part of a settlement goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Until {
    /// As that of the settlement.
    pub position: Position,
    /// What was sent after it has a higher stream sequence than this.
    pub stream_floor: u64,
    /// How many events of the settlement are up to there.
    pub events: usize,
    /// How many of them are in the stream.
    pub published: usize,
    /// Every event with a lower ticket is up to there.
    pub up_to: Ticket,
}

/// What becomes of an event that leaves the fast path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is set aside.
    Dead {
        /// Why.
        reason: Rejection,
        /// How often it was tried.
        attempts: u32,
    },
    /// It is tried again later.
    Retrying(Retry),
    /// It waits behind an earlier letter of its key, if there is one.
    Held(Hold),
}

/// What is known of the stream, to be found again after a crash.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamMark {
    /// The highest stream sequence that was acknowledged; 0 when none was.
    pub acked: u64,
    /// The event that is stored there, when we know.
    pub event_id: Option<EventId>,
    /// Whatever was sent and is not settled has a higher stream sequence than this.
    pub floor: u64,
}

/// What one transaction writes back: the position and the letters it passes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// How far everything is settled.
    pub position: Position,
    /// The events that left the fast path up to there, in order.
    pub letters: Vec<Letter>,
    /// What is known of the stream.
    pub stream: StreamMark,
    /// How many events this settles.
    pub events: usize,
    /// How many of them are in the stream.
    pub published: usize,
    /// Every event with a lower ticket is settled by this.
    pub up_to: Ticket,
}

impl Settlement {
    /// The part with the first `letters` letters, one at least, and what is left. Each part is
    /// written by itself, in this order.
    pub fn divide(mut self, letters: usize) -> (Self, Option<Self>) {
        let count = letters.max(1).min(self.letters.len());
        let mut left = self.letters.split_off(count);
        let Some(Until { position, stream_floor, events, published, up_to }) =
            self.letters.last().filter(|_| !left.is_empty()).map(|last| last.until.clone())
        else {
            return (self, None);
        };
        for letter in &mut left {
            letter.until.events -= events;
            letter.until.published -= published;
        }
        let stream = StreamMark { floor: self.stream.floor.min(stream_floor), ..self.stream };
        let letters = std::mem::replace(&mut self.letters, left);
        self.events -= events;
        self.published -= published;
        (Self { position, letters, stream, events, published, up_to }, Some(self))
    }
}
