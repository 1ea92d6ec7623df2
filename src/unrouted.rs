//! The sink of the events that no route takes: it counts each event, logs the types of these
//! events, and keeps nothing.

use std::{
    collections::{HashSet, VecDeque},
    future::pending,
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, ready},
};
use tracing::warn;

use crate::{
    broker::{Absorbed, BrokerError, Cause, LogFacts, NotSent, VerifiedLog},
    delivery::{Outcome, StreamMark, Ticket},
    wire::Message,
};

/// Name of this log in places that otherwise have the name of a stream. It has a `/`, so no stream
/// can have the same name.
pub const LOG: &str = "/unrouted";

/// The name of this log in messages for people.
pub const NAME: &str = "the count of unrouted events";

/// Event types that are logged by name at most, each once. Events of further types are only
/// counted.
const TYPES_MAX: usize = 64;

/// The count of unrouted events as a sink.
#[derive(Debug, Default)]
pub struct UnroutedSink {
    counted: VecDeque<(Ticket, u64)>,
    /// The number of the last counted event. Events of earlier holdings are included.
    number: u64,
    types: HashSet<String>,
    is_connected: bool,
}

impl UnroutedSink {
    /// The name of this log in messages for people.
    pub fn log(&self) -> String {
        NAME.to_owned()
    }

    /// Succeeds always: events can be counted. `mark` is the count of earlier holdings.
    pub fn verify(&self, mark: StreamMark) -> BoxFuture<'static, Result<VerifiedLog, BrokerError>> {
        // The limit of 0 bytes for a message keeps payloads from being read from the outbox.
        let facts = LogFacts::out_of_reach(NAME, self.number.max(mark.acked), 0);
        ready(Ok(VerifiedLog { facts, acked: mark.acked, is_rewritten: false })).boxed()
    }

    /// The error of a sink that cannot count, which never happens.
    pub fn broken(&self, reason: String) -> BrokerError {
        let hint = "start the program again";
        BrokerError::Unavailable { log: self.log(), reason, cause: Cause::Answered, hint }
    }

    /// Continues the count after `facts.last_seq`, where earlier holdings ended.
    pub fn adopt(&mut self, facts: &LogFacts) {
        self.number = self.number.max(facts.last_seq);
    }

    /// The number of the last counted event.
    pub fn last_seq(&self) -> u64 {
        self.number
    }

    /// Counts an event. In this sink the subject of a message is the type of its event.
    ///
    /// # Errors
    /// Never. The return type is the one that every sink has.
    pub fn publish(&mut self, ticket: Ticket, message: Message) -> Result<(), NotSent> {
        if self.types.len() < TYPES_MAX && !self.types.contains(&message.subject) {
            warn!(
                event_type = message.subject,
                hint =
                    "add a [[route]] that takes the type, then `postrider reconcile --route NAME`",
                "no route takes events of this type; they are counted and not published"
            );
            self.types.insert(message.subject);
        }
        self.number += 1;
        self.counted.push_back((ticket, self.number));
        Ok(())
    }

    /// Waits for the next answer: first that the sink is connected, then one for each event.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Absorbed {
        if !std::mem::replace(&mut self.is_connected, true) {
            return Absorbed::Connected;
        }
        match self.try_next() {
            Some(absorbed) => absorbed,
            // No answer comes before the next `publish`, after which the relay calls this function
            // again.
            None => pending().await,
        }
    }

    /// The next answer about an event, if there is one already; does not wait.
    pub fn try_next(&mut self) -> Option<Absorbed> {
        let (ticket, stream_seq) = self.counted.pop_front()?;
        let outcome = Outcome::Acked { stream_seq, duplicate: false };
        Some(Absorbed::Outcome { ticket, outcome, took: Duration::ZERO })
    }

    /// Forgets the events that were not answered yet.
    pub fn forget(&mut self) {
        self.counted.clear();
    }
}
