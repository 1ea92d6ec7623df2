//! The sink of the events that no route takes: it keeps nothing, counts each, and says of what
//! types they are.

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

/// The name of this log where a stream's would stand; no stream can have it.
pub const LOG: &str = "/unrouted";

/// The log, as it is named in texts.
pub const NAME: &str = "the count of unrouted events";

/// Types that are said by name at most, each once; further ones are only counted.
const TYPES_MAX: usize = 64;

/// The count of unrouted events as a sink.
#[derive(Debug, Default)]
pub struct UnroutedSink {
    counted: VecDeque<(Ticket, u64)>,
    /// The number of the last event, those of earlier holdings included.
    number: u64,
    types: HashSet<String>,
    is_connected: bool,
}

impl UnroutedSink {
    /// The log, as it is named in texts.
    pub fn log(&self) -> String {
        NAME.to_owned()
    }

    /// Succeeds always: events can be counted. `mark` is the count of earlier holdings.
    pub fn verify(&self, mark: StreamMark) -> BoxFuture<'static, Result<VerifiedLog, BrokerError>> {
        // Without room for a payload none is read from the outbox.
        let facts = LogFacts::out_of_reach(NAME, self.number.max(mark.acked), 0);
        ready(Ok(VerifiedLog { facts, acked: mark.acked, is_rewritten: false })).boxed()
    }

    /// The error of a sink that cannot count, which never happens.
    pub fn broken(&self, reason: String) -> BrokerError {
        let hint = "start the program again";
        BrokerError::Unavailable { log: self.log(), reason, cause: Cause::Answered, hint }
    }

    /// Takes over where the count ended before.
    pub fn adopt(&mut self, facts: &LogFacts) {
        self.number = self.number.max(facts.last_seq);
    }

    /// The number of the last event.
    pub fn last_seq(&self) -> u64 {
        self.number
    }

    /// Counts an event, whose type is the subject.
    ///
    /// # Errors
    /// Never; the type is that of the seam.
    pub fn publish(&mut self, ticket: Ticket, message: Message) -> Result<(), NotSent> {
        if self.types.len() < TYPES_MAX && !self.types.contains(&message.subject) {
            warn!(
                event_type = message.subject,
                "no route takes events of this type; they are counted and not published"
            );
            self.types.insert(message.subject);
        }
        self.number += 1;
        self.counted.push_back((ticket, self.number));
        Ok(())
    }

    /// The next answer, as soon as there is one.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Absorbed {
        if !std::mem::replace(&mut self.is_connected, true) {
            return Absorbed::Connected;
        }
        match self.try_next() {
            Some(absorbed) => absorbed,
            // Whoever hands an event over asks again.
            None => pending().await,
        }
    }

    /// The next answer, if there is one already.
    pub fn try_next(&mut self) -> Option<Absorbed> {
        let (ticket, stream_seq) = self.counted.pop_front()?;
        let outcome = Outcome::Acked { stream_seq, duplicate: false };
        Some(Absorbed::Outcome { ticket, outcome, took: Duration::ZERO })
    }

    /// Forgets what was not answered yet.
    pub fn forget(&mut self) {
        self.counted.clear();
    }
}
