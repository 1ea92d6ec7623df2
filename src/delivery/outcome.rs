//! What the broker told us, and what we make of it.

use crate::event::{Position, Seq};

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
    /// The broker asks for patience with this message.
    Busy {
        /// What it said.
        text: String,
    },
    /// The broker, the stream or the route refuses everything just now.
    Unavailable(Closure),
}

/// Why a message can never be stored.
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
}

/// Which kind of trouble closes the gate.
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
}

impl ClosureKind {
    /// The name in `status`, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StreamUnavailable => "stream_unavailable",
            Self::Misconfigured => "misconfigured",
            Self::PermissionDenied => "permission_denied",
            Self::BrokerStalled => "broker_stalled",
        }
    }

    /// What the person on call can do.
    pub fn hint(self) -> &'static str {
        match self {
            Self::StreamUnavailable => {
                "events wait and nothing is lost; see with `nats stream info` whether the stream \
                 exists, has a leader and has room"
            }
            Self::Misconfigured => {
                "change the stream, or [stream] and [route] to match it, then run `postrider check`"
            }
            Self::PermissionDenied => {
                "allow this user to publish to the route's subjects and $JS.API.STREAM.INFO, and \
                 to subscribe to its inbox"
            }
            Self::BrokerStalled => {
                "the server is connected but silent: look at its disk and its log; after a full \
                 JetStream disk it needs a restart"
            }
        }
    }
}

/// What was decided about an event that leaves memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the stream.
    Published {
        /// Where.
        stream_seq: u64,
    },
    /// It goes to the dead letters.
    Dead(Rejection),
    /// It waits behind a dead letter of its key.
    Held,
}

/// An event that left the fast path, as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Which row.
    pub seq: Seq,
    /// Why; `None` for one that is held behind another.
    pub rejection: Option<Rejection>,
}

/// What one transaction writes back: the position and the letters it passes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// How far everything is settled.
    pub position: Position,
    /// The events that left the fast path up to there, in order.
    pub letters: Vec<Letter>,
    /// The highest stream sequence that was acknowledged; 0 when none was.
    pub stream_seq: u64,
    /// How many events this settles.
    pub events: usize,
}
