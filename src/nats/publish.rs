//! Sends messages to one stream, and returns the outcome of each over an inbox of its own.
//!
//! Each publish has a reply subject `<inbox>.<n>`; a message of a fast batch has more behind it.
//! The answers come back on one subscription. That costs half as much as the client's own
//! acknowledgements, and leaves nothing behind for an answer that never comes.
//!
//! A publish is unconfirmed when no answer comes before its deadline or the end of the connection.
//! The message may be stored, and is sent again under the same id.

use std::{
    collections::VecDeque,
    future::pending,
    time::{Duration, Instant},
};

use async_nats::{Event, ServerError, StatusCode, jetstream::Context};
use futures_util::{FutureExt, StreamExt};
use tokio::{sync::mpsc, task::coop::unconstrained};

use super::{
    NatsConnection,
    answer::{Answer, ExpectedStream, classify_answer},
    batch::{BatchesInFlight, is_progress},
    denial,
    live::LiveConnection,
    unanswered::{SentMessage, Unanswered},
};
use crate::{
    broker::{Absorbed, NotSent},
    clock,
    delivery::{BatchKind, BatchOutcome, Ticket},
    wire::Message,
};

/// Publisher to one stream.
#[derive(Debug)]
pub struct Publisher {
    connections: mpsc::Receiver<NatsConnection>,
    live: Option<LiveConnection>,
    stream: String,
    /// JetStream domain that the stream had when it was verified.
    domain: Option<String>,
    ack_timeout: Duration,
    unanswered: Unanswered,
    batches: BatchesInFlight,
    /// Tickets of publishes that ended without an answer and have not been reported yet.
    unconfirmed: VecDeque<Ticket>,
    last_answer: Instant,
}

impl Publisher {
    /// A publisher that waits for its first connection.
    pub fn new(
        connections: mpsc::Receiver<NatsConnection>,
        stream: String,
        ack_timeout: Duration,
        now: Instant,
    ) -> Self {
        Self {
            connections,
            live: None,
            stream,
            domain: None,
            ack_timeout,
            unanswered: Unanswered::default(),
            batches: BatchesInFlight::default(),
            unconfirmed: VecDeque::new(),
            last_answer: now,
        }
    }

    /// JetStream over the present connection, for requests about the stream.
    pub fn jetstream(&self) -> Option<&Context> {
        self.live.as_ref().map(|live| &live.connection.jetstream)
    }

    /// Sets the JetStream domain that acknowledgements have to name from now on.
    pub fn set_domain(&mut self, domain: Option<String>) {
        self.domain = domain;
    }

    /// Stream, with its JetStream domain, whose acknowledgements count.
    fn wanted(&self) -> ExpectedStream<'_> {
        ExpectedStream { stream: &self.stream, domain: self.domain.as_deref() }
    }

    /// Gives up a connection over which no answer comes. The connector opens another one.
    pub fn reconnect(&self) {
        if let Some(live) = &self.live {
            let NatsConnection { client, ended, .. } = &live.connection;
            // Messages left in this client's queue must not reach the server after those of the
            // next connection.
            if let Some(Err(error)) = unconstrained(client.force_reconnect()).now_or_never() {
                tracing::debug!(%error, "could not close the connection to NATS");
            }
            ended.cancel();
        }
    }

    /// Gives up the connection, with the messages in the client's queue. Every publish in flight is
    /// unconfirmed.
    pub fn abandon_connection(&mut self) {
        self.reconnect();
        self.live = None;
        self.give_up();
    }

    /// Hands a message to the client and returns at once.
    ///
    /// # Errors
    /// [`NotSent`] says whether it may go later.
    pub fn publish(
        &mut self,
        ticket: Ticket,
        message: Message,
        now: Instant,
    ) -> Result<(), NotSent> {
        let Some(live) = &self.live else { return Err(NotSent::NotNow) };
        let reply = live.reply_to(self.unanswered.next_number());
        live.hand_over(message, Some(reply))?;
        self.wait_for(ticket, now);
        Ok(())
    }

    /// Hands a batch to the client and returns at once.
    ///
    /// # Errors
    /// When the batch was handed over in part only, or not at all. Of an atomic batch the server
    /// then stores nothing.
    pub fn publish_batch(
        &mut self,
        kind: BatchKind,
        tickets: Box<[Ticket]>,
        messages: Vec<Message>,
        now: Instant,
    ) -> Result<(), NotSent> {
        let (Some(live), Some(first)) = (&self.live, tickets.first().copied()) else {
            return Err(NotSent::NotNow);
        };
        let number = self.unanswered.next_number();
        if let Err(why) = self.batches.hand_over(live, number, (kind, tickets), messages) {
            // The server may still answer the messages that were handed over. So the number of this
            // batch is not used again.
            self.unanswered.skip();
            return Err(why);
        }
        self.wait_for(first, now);
        Ok(())
    }

    /// Registers a publish that was handed over under the next number, so that its answer is
    /// recognised.
    fn wait_for(&mut self, ticket: Ticket, now: Instant) {
        if self.unanswered.is_empty() {
            self.last_answer = now;
        }
        self.unanswered.push(ticket, now);
    }

    /// Waits for the next answer or event.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Absorbed {
        loop {
            if self.live.as_ref().is_some_and(|live| live.connection.ended.is_cancelled()) {
                self.live = None;
                self.give_up();
                return Absorbed::Disconnected;
            }
            if let Some(absorbed) = self.try_next(clock::now()) {
                return absorbed;
            }
            let deadline = self.unanswered.oldest().map(|at| at + self.ack_timeout);
            let Some(live) = &mut self.live else {
                match self.connections.recv().await {
                    Some(connection) => self.live = LiveConnection::over(connection),
                    // The task that opens connections has ended, so the program is about to end.
                    None => pending().await,
                }
                if self.live.is_some() {
                    return Absorbed::Connected;
                }
                continue;
            };
            let NatsConnection { events, ended, api_prefix, .. } = &mut live.connection;
            tokio::select! {
                answer = live.answers.next() => {
                    let Some(answer) = answer else {
                        ended.cancel();
                        continue;
                    };
                    if let Some(absorbed) = self.answered(&answer, clock::now()) {
                        return absorbed;
                    }
                }
                Some(event) = events.recv() => {
                    if let Some(absorbed) = happened(event, api_prefix) {
                        return absorbed;
                    }
                }
                () = ended.cancelled() => {}
                () = clock::sleep_until(deadline.unwrap_or_else(far_away)), if deadline.is_some() => {}
            }
        }
    }

    /// Takes the next answer or event that has already come; `None` when there is none.
    pub fn try_next(&mut self, now: Instant) -> Option<Absorbed> {
        let silent = now.duration_since(self.last_answer) >= self.ack_timeout;
        if let Some(ticket) = self.unconfirmed.pop_front() {
            return Some(Absorbed::Unconfirmed { ticket, silent: false });
        }
        if let Some(tickets) = self.batches.next_given_up() {
            let (outcome, took) = (BatchOutcome::Unconfirmed, Duration::ZERO);
            return Some(Absorbed::Batch { tickets, outcome, took, silent: false });
        }
        if let Some((number, ticket)) = self.unanswered.overdue(now, self.ack_timeout) {
            return Some(match self.batches.take(number) {
                Some(batch) => {
                    let (outcome, took) = (BatchOutcome::Unconfirmed, Duration::ZERO);
                    Absorbed::Batch { tickets: batch.tickets, outcome, took, silent }
                }
                None => Absorbed::Unconfirmed { ticket, silent },
            });
        }
        loop {
            let answers = &mut self.live.as_mut()?.answers;
            let answer = unconstrained(answers.next()).now_or_never()??;
            if let Some(absorbed) = self.answered(&answer, now) {
                return Some(absorbed);
            }
        }
    }

    fn answered(&mut self, answer: &async_nats::Message, now: Instant) -> Option<Absorbed> {
        let live = self.live.as_ref()?;
        let number = live.number_of(&answer.subject)?;
        if is_progress(&answer.payload) {
            self.last_answer = now;
            return None;
        }
        let SentMessage { ticket, at } = self.unanswered.take(number)?;
        self.last_answer = now;
        let answer = match answer.status {
            Some(StatusCode::NO_RESPONDERS) => Answer::NoResponders,
            Some(_) | None => Answer::Payload(&answer.payload),
        };
        let took = now.duration_since(at);
        if let Some(batch) = self.batches.take(number) {
            let outcome = batch.outcome(answer, self.wanted(), &live.batch_id(number));
            let tickets = batch.tickets;
            return Some(Absorbed::Batch { tickets, outcome, took, silent: false });
        }
        let outcome = classify_answer(answer, self.wanted());
        Some(Absorbed::Outcome { ticket, outcome, took })
    }

    /// Forgets every publish in flight: the publisher no longer waits for their answers.
    pub fn forget(&mut self) {
        self.unanswered.take_all();
        self.batches.forget();
        self.unconfirmed.clear();
    }

    /// Stops waiting for the answer to a publish that the server has already denied by a complaint.
    pub fn answered_otherwise(&mut self, ticket: Ticket) {
        self.unanswered.take_ticket(ticket);
    }

    /// Stops waiting for the answers to the batches that contain an event for which `has` is true.
    pub fn give_up_batches(&mut self, has: impl Fn(Ticket) -> bool) {
        for number in self.batches.give_up_with(has) {
            self.unanswered.take(number);
        }
    }

    /// Reports every publish in flight as unconfirmed.
    fn give_up(&mut self) {
        for (number, ticket) in self.unanswered.take_all() {
            if !self.batches.give_up(number) {
                self.unconfirmed.push_back(ticket);
            }
        }
    }
}

/// Translates an event of the client; `None` when the relay has nothing to do about it.
fn happened(event: Event, api_prefix: &str) -> Option<Absorbed> {
    match event {
        // The token `ended` reports the end of the connection, so these events need no reaction.
        Event::Connected | Event::Disconnected | Event::Closed => None,
        Event::ServerError(ServerError::Other(text)) if denial::is_denial(&text) => {
            Some(denial::denial(text, api_prefix))
        }
        Event::ServerError(ServerError::AuthorizationViolation) => Some(denial::refused_login()),
        Event::LameDuckMode | Event::Draining | Event::SlowConsumer(_) | Event::ServerError(_) => {
            tracing::info!(client_event = %event, "a notice of the NATS client");
            None
        }
        // The client reports each failed attempt to connect as an event. Logging at debug level is
        // enough, because the relay itself logs from time to time that it waits.
        Event::ClientError(_) => {
            tracing::debug!(error = %event, "the NATS client reports an error of its connection");
            None
        }
    }
}

/// Time for a timer that is disabled, because no message is in flight; any later time would do.
fn far_away() -> Instant {
    clock::now() + Duration::from_hours(1)
}
