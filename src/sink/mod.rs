//! The seam between a flow and its broker: an enum with a variant for each broker.
//!
//! A flow speaks to this enum alone. Words, errors and client of a particular broker stay in that
//! broker's module.

use std::time::Instant;

use futures_util::future::BoxFuture;

use crate::{
    broker::{
        Absorbed, BrokerError, Creation, Keeps, LogFacts, NotSent, Sighting, StoredMessage,
        VerifiedLog,
    },
    delivery::{BatchKind, StreamMark, Ticket},
    nats, stdout, unrouted,
    wire::Message,
};

/// The place where a flow publishes to.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for each flow, and it never moves")]
pub enum Sink {
    /// A JetStream stream.
    Nats(nats::JetStreamSink),
    /// Standard output.
    Stdout(stdout::StdoutSink),
    /// The count of the events that no route takes. They are not published.
    Unrouted(unrouted::UnroutedSink),
}

/// A scan of a log in progress: the search for events that it may contain without our knowing.
#[expect(clippy::large_enum_variant, reason = "there is at most one for each flow")]
pub enum Scan {
    /// The scan of a JetStream stream.
    Nats(nats::StreamScan),
    /// The scan of a log that cannot be read back. It reads no message, and ends at once.
    OutOfReach {
        /// The last sequence of that log.
        last_seq: u64,
    },
}

impl Sink {
    /// The name of the broker in messages for people.
    pub fn broker(&self) -> &'static str {
        match self {
            Self::Nats(_) => "NATS",
            Self::Stdout(_) => stdout::NAME,
            Self::Unrouted(_) => unrouted::NAME,
        }
    }

    /// The name of the log in messages for people.
    pub fn log(&self) -> String {
        match self {
            Self::Nats(sink) => sink.log(),
            Self::Stdout(sink) => sink.log(),
            Self::Unrouted(sink) => sink.log(),
        }
    }

    /// Verifies the log, and creates it where `creation` and the configuration allow that. `mark`
    /// has the last acknowledged message. Returns `None` while there is no connection.
    pub fn verify(
        &self,
        mark: StreamMark,
        creation: Creation,
    ) -> Option<BoxFuture<'static, Result<VerifiedLog, BrokerError>>> {
        match self {
            Self::Nats(sink) => sink.verify(mark, creation),
            Self::Stdout(sink) => Some(sink.verify(mark)),
            Self::Unrouted(sink) => Some(sink.verify(mark)),
        }
    }

    /// Takes over facts that the last verification found, such as the last sequence of the log.
    pub fn adopt(&mut self, facts: &LogFacts) {
        match self {
            Self::Nats(sink) => sink.adopt(facts),
            Self::Stdout(sink) => sink.adopt(facts),
            Self::Unrouted(sink) => sink.adopt(facts),
        }
    }

    /// A scan of the log above a sequence. `None` without a connection.
    pub fn scan(&self, above: u64) -> Option<Scan> {
        match self {
            Self::Nats(sink) => sink.scan(above).map(Scan::Nats),
            Self::Stdout(sink) => Some(Scan::OutOfReach { last_seq: sink.last_seq().max(above) }),
            Self::Unrouted(sink) => Some(Scan::OutOfReach { last_seq: sink.last_seq().max(above) }),
        }
    }

    /// Reads the message under a sequence. `None` without a connection.
    pub fn message_at(
        &self,
        seq: u64,
    ) -> Option<BoxFuture<'static, Result<Option<StoredMessage>, BrokerError>>> {
        match self {
            Self::Nats(sink) => sink.message_at(seq),
            // Standard output and the count of unrouted events never report a duplicate, so no
            // message of theirs is read back for a comparison.
            Self::Stdout(_) | Self::Unrouted(_) => None,
        }
    }

    /// The error of a request that the broker forbids.
    pub fn denied(&self, complaint: String) -> BrokerError {
        match self {
            Self::Nats(sink) => sink.denied(complaint),
            Self::Stdout(sink) => sink.broken(complaint),
            Self::Unrouted(sink) => sink.broken(complaint),
        }
    }

    /// Hands a message to the sink and returns at once. [`next`](Self::next) gives its outcome.
    ///
    /// # Errors
    /// [`NotSent`] says whether the message may be sent later.
    pub fn publish(
        &mut self,
        ticket: Ticket,
        message: Message,
        now: Instant,
    ) -> Result<(), NotSent> {
        match self {
            Self::Nats(sink) => sink.publish(ticket, message, now),
            Self::Stdout(sink) => sink.publish(ticket, message, now),
            Self::Unrouted(sink) => sink.publish(ticket, message),
        }
    }

    /// Hands a batch to the sink and returns at once. [`next`](Self::next) gives its outcome.
    ///
    /// # Errors
    /// When the batch was handed over in part only, or not at all.
    pub fn publish_batch(
        &mut self,
        kind: BatchKind,
        tickets: Box<[Ticket]>,
        messages: Vec<Message>,
        now: Instant,
    ) -> Result<(), NotSent> {
        match self {
            Self::Nats(sink) => sink.publish_batch(kind, tickets, messages, now),
            // Standard output and the count of unrouted events take no batches. Their facts say so,
            // and the relay sends them none.
            Self::Stdout(_) | Self::Unrouted(_) => Err(NotSent::NotNow),
        }
    }

    /// Waits for the next answer of the broker, or for news about the connection.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Absorbed {
        match self {
            Self::Nats(sink) => sink.next().await,
            Self::Stdout(sink) => sink.next().await,
            Self::Unrouted(sink) => sink.next().await,
        }
    }

    /// The next answer, if there is one already.
    pub fn try_next(&mut self, now: Instant) -> Option<Absorbed> {
        match self {
            Self::Nats(sink) => sink.try_next(now),
            Self::Stdout(sink) => sink.try_next(now),
            Self::Unrouted(sink) => sink.try_next(),
        }
    }

    /// Stops waiting for the answers to the batches with an event for which `has` is true.
    pub fn give_up_batches(&mut self, has: impl Fn(Ticket) -> bool) {
        match self {
            Self::Nats(sink) => sink.give_up_batches(has),
            Self::Stdout(_) | Self::Unrouted(_) => {}
        }
    }

    /// Stops waiting for the answer to a publish that a complaint of the server about its subject
    /// has answered already.
    pub fn answered_otherwise(&mut self, ticket: Ticket) {
        match self {
            Self::Nats(sink) => sink.answered_otherwise(ticket),
            Self::Stdout(_) | Self::Unrouted(_) => {}
        }
    }

    /// Forgets what is in flight: nobody waits for its answers any more.
    pub fn forget(&mut self) {
        match self {
            Self::Nats(sink) => sink.forget(),
            Self::Stdout(sink) => sink.forget(),
            Self::Unrouted(sink) => sink.forget(),
        }
    }

    /// Replaces the connection with a new one, because the broker answers nothing over the old one.
    pub fn reconnect(&self) {
        match self {
            Self::Nats(sink) => sink.reconnect(),
            Self::Stdout(_) | Self::Unrouted(_) => {}
        }
    }

    /// Gives the connection up, with the messages that the client has not written yet. Everything
    /// in flight is unconfirmed.
    pub fn abandon_connection(&mut self) {
        match self {
            Self::Nats(sink) => sink.abandon_connection(),
            Self::Stdout(_) | Self::Unrouted(_) => {}
        }
    }
}

impl Scan {
    /// Begins the scan, up to the present last sequence of the log. A later call extends it by the
    /// messages that the log has stored since.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when the log cannot be read.
    pub async fn advance(&mut self) -> Result<(), BrokerError> {
        match self {
            Self::Nats(scan) => scan.advance().await,
            Self::OutOfReach { .. } => Ok(()),
        }
    }

    /// Reads the next page of messages into `sightings`. Returns whether there are more pages.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when the log cannot be read to its end.
    pub async fn page(&mut self, sightings: &mut Vec<Sighting>) -> Result<bool, BrokerError> {
        match self {
            Self::Nats(scan) => scan.page(sightings).await,
            Self::OutOfReach { .. } => {
                sightings.clear();
                Ok(false)
            }
        }
    }

    /// The last sequence of the log when the scan last advanced.
    pub fn last_seq(&self) -> u64 {
        match self {
            Self::Nats(scan) => scan.last_seq(),
            Self::OutOfReach { last_seq } => *last_seq,
        }
    }

    /// Number of messages that the scan has read.
    pub fn messages(&self) -> u64 {
        match self {
            Self::Nats(scan) => scan.messages(),
            Self::OutOfReach { .. } => 0,
        }
    }

    /// Number of messages in the whole scan, read and unread, as of when it last advanced.
    pub fn expected(&self) -> u64 {
        match self {
            Self::Nats(scan) => scan.expected(),
            Self::OutOfReach { .. } => 0,
        }
    }

    /// How long the log keeps a message.
    pub fn keeps(&self) -> Keeps {
        match self {
            Self::Nats(scan) => scan.keeps(),
            Self::OutOfReach { .. } => Keeps::OutOfReach,
        }
    }
}
