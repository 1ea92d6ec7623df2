//! Publisher: sends messages and returns the outcome of each, over one inbox of our own.
//!
//! Each publish carries a reply subject `<inbox>.<n>`, to which a message of a fast batch adds
//! more; the answers come back on one subscription. That costs half of what the client's own
//! acknowledgements do, and leaves nothing behind for an answer that never comes. What is
//! unanswered when its deadline passes, or when the connection ends, is unconfirmed: it may be
//! stored, and is sent again under the same id.

use std::{
    collections::VecDeque,
    future::pending,
    time::{Duration, Instant},
};

use async_nats::{
    Event, HeaderMap, HeaderName, HeaderValue, ServerError, StatusCode, Subscriber,
    client::PublishErrorKind, jetstream::Context,
};
use futures_util::{FutureExt, StreamExt};
use serde::{
    Deserialize as _,
    de::{
        IntoDeserializer as _,
        value::{self, StrDeserializer},
    },
};
use tokio::{sync::mpsc, task::coop::unconstrained};

use super::{
    Connection,
    batch::{BatchesInFlight, is_progress},
    error::{Answer, ExpectedStream, classify_answer},
    sent::{SentMessage, Unanswered},
};
use crate::{
    broker::{Absorbed, Forbidden, NotSent},
    clock,
    delivery::{BatchOutcome, Closure, ClosureKind, Ticket},
    wire::{Headers, Message},
};

/// The header by which a stream recognises a message; the first of every message.
const MESSAGE_ID: &str = "Nats-Msg-Id";

/// The bytes of a message besides its header block and its payload: the version, the name of the
/// first header, the end of the last line, an empty line.
pub(super) const FRAMING_BYTES: usize =
    "NATS/1.0\r\n".len() + MESSAGE_ID.len() + ": \r\n\r\n".len();

/// The sending half and the answers.
#[derive(Debug)]
pub struct Publisher {
    connections: mpsc::Receiver<Connection>,
    pub(super) live: Option<Live>,
    stream: String,
    /// The JetStream domain of the stream, as it was told when the stream was verified.
    domain: Option<String>,
    ack_timeout: Duration,
    sent: Unanswered,
    pub(super) batches: BatchesInFlight,
    /// Publishes that ended without an answer and are yet to be reported.
    unconfirmed: VecDeque<Ticket>,
    last_answer: Instant,
}

/// The connection that `sent` went over.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) connection: Connection,
    answers: Subscriber,
    /// `<inbox>.`, to which the number of a publish is appended.
    pub(super) reply_prefix: String,
}

impl Publisher {
    /// A publisher that waits for its first connection.
    pub fn new(
        connections: mpsc::Receiver<Connection>,
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
            sent: Unanswered::default(),
            batches: BatchesInFlight::default(),
            unconfirmed: VecDeque::new(),
            last_answer: now,
        }
    }

    /// JetStream over the present connection, for questions about the stream.
    pub fn jetstream(&self) -> Option<&Context> {
        self.live.as_ref().map(|live| &live.connection.jetstream)
    }

    /// Acknowledgements have to name this JetStream domain from now on.
    pub fn set_domain(&mut self, domain: Option<String>) {
        self.domain = domain;
    }

    /// Stream that has to answer.
    pub(super) fn wanted(&self) -> ExpectedStream<'_> {
        ExpectedStream { stream: &self.stream, domain: self.domain.as_deref() }
    }

    /// Gives up a connection over which nothing is answered, for another one.
    pub fn reconnect(&self) {
        if let Some(Live { connection: Connection { client, ended, .. }, .. }) = &self.live {
            // What waits in its queue is not to be written later than what another one sends.
            if let Some(Err(error)) = unconstrained(client.force_reconnect()).now_or_never() {
                tracing::debug!(%error, "cannot close the connection");
            }
            ended.cancel();
        }
    }

    /// Gives the connection up, with what waits in the client's queue; everything on its way is
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
        let number = self.next_number();
        let Some(live) = &self.live else { return Err(NotSent::NotNow) };
        let reply = live.reply_to(number);
        let Message { subject, headers, payload, .. } = message;
        // The client's queue has room for a whole window, so this completes at once; but the
        // runtime's budget for one poll of a task has not, and would say that it does not.
        let client = &live.connection.client;
        let headers = map_of(&headers);
        let handing = client.publish_with_reply_and_headers(subject, reply, headers, payload);
        let handed = unconstrained(handing).now_or_never();
        match handed {
            Some(Ok(())) => {
                self.wait_for(ticket, now);
                Ok(())
            }
            Some(Err(error)) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                Err(NotSent::TooLarge)
            }
            Some(Err(_)) | None => Err(NotSent::NotNow),
        }
    }

    /// The number of the next publish that is answered.
    pub(super) fn next_number(&self) -> u64 {
        self.sent.next_number()
    }

    /// A publish was handed over under the next number.
    pub(super) fn wait_for(&mut self, ticket: Ticket, now: Instant) {
        if self.sent.is_empty() {
            self.last_answer = now;
        }
        self.sent.push(ticket, now);
    }

    /// Skips the next number, under which a batch that was handed over in part may be answered.
    pub(super) fn skip_number(&mut self) {
        self.sent.skip();
    }

    /// Waits for the next answer or event.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
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
            let deadline = self.sent.oldest().map(|at| at + self.ack_timeout);
            let Some(live) = &mut self.live else {
                match self.connections.recv().await {
                    Some(connection) => self.live = Live::over(connection),
                    // Nobody makes connections any more: everything ends.
                    None => pending().await,
                }
                if self.live.is_some() {
                    return Absorbed::Connected;
                }
                continue;
            };
            let Connection { events, ended, api_prefix, .. } = &mut live.connection;
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

    /// Next answer or event that came already, without waiting.
    pub fn try_next(&mut self, now: Instant) -> Option<Absorbed> {
        let silent = now.duration_since(self.last_answer) >= self.ack_timeout;
        if let Some(ticket) = self.unconfirmed.pop_front() {
            return Some(Absorbed::Unconfirmed { ticket, silent: false });
        }
        if let Some(tickets) = self.batches.next_given_up() {
            let (outcome, took) = (BatchOutcome::Unconfirmed, Duration::ZERO);
            return Some(Absorbed::Batch { tickets, outcome, took, silent: false });
        }
        if let Some((number, ticket)) = self.sent.overdue(now, self.ack_timeout) {
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
        let prefix = &self.live.as_ref()?.reply_prefix;
        let place = answer.subject.strip_prefix(prefix)?;
        if is_progress(&answer.payload) {
            self.last_answer = now;
            return None;
        }
        // What follows the number in the subject is the server's, of a message of a fast batch.
        let number = place.split_once('.').map_or(place, |(number, _)| number);
        let number: u64 = number.parse().ok()?;
        let SentMessage { ticket, at } = self.sent.take(number)?;
        self.last_answer = now;
        let answer = match answer.status {
            Some(StatusCode::NO_RESPONDERS) => Answer::NoResponders,
            Some(_) | None => Answer::Payload(&answer.payload),
        };
        let took = now.duration_since(at);
        if let Some(batch) = self.batches.take(number) {
            let outcome = self.batch_outcome(answer, number, &batch);
            let tickets = batch.tickets;
            return Some(Absorbed::Batch { tickets, outcome, took, silent: false });
        }
        let outcome = classify_answer(answer, self.wanted());
        Some(Absorbed::Outcome { ticket, outcome, took })
    }

    /// Forgets what is on its way: nobody waits for its answers any more.
    pub fn forget(&mut self) {
        self.sent.take_all();
        self.batches.forget();
        self.unconfirmed.clear();
    }

    /// Drops a publish whose outcome is known from elsewhere.
    pub fn answered_otherwise(&mut self, ticket: Ticket) {
        self.sent.take_ticket(ticket);
    }

    /// No answer is waited for under this number.
    pub(super) fn give_up_number(&mut self, number: u64) {
        self.sent.take(number);
    }

    /// Everything on its way is unconfirmed.
    fn give_up(&mut self) {
        for (number, ticket) in self.sent.take_all() {
            if !self.batches.give_up(number) {
                self.unconfirmed.push_back(ticket);
            }
        }
    }
}

impl Live {
    /// Subscribes to an inbox of its own; `None` when the connection has ended already.
    fn over(connection: Connection) -> Option<Self> {
        let inbox = connection.client.new_inbox();
        // Nothing else is in the client's queue yet, so this completes at once.
        let answers = connection.client.subscribe(format!("{inbox}.>"));
        let Some(Ok(answers)) = unconstrained(answers).now_or_never() else {
            connection.ended.cancel();
            return None;
        };
        Some(Self { connection, answers, reply_prefix: format!("{inbox}.") })
    }

    /// Subject to which the answer to a publish goes.
    pub(super) fn reply_to(&self, number: u64) -> String {
        let mut digits = itoa::Buffer::new();
        [self.reply_prefix.as_str(), digits.format(number)].concat()
    }
}

/// Translates an event of the client.
fn happened(event: Event, api_prefix: &str) -> Option<Absorbed> {
    match event {
        // The connection tells its end by itself.
        Event::Connected | Event::Disconnected | Event::Closed => None,
        Event::ServerError(ServerError::Other(text)) if is_denial(&text) => {
            let forbidden = denied_subject(&text)
                .map_or(Forbidden::Everything, |subject| forbidden(subject, api_prefix));
            let closure = Closure::new(ClosureKind::PermissionDenied, text);
            Some(Absorbed::Denied { closure, forbidden })
        }
        Event::ServerError(ServerError::AuthorizationViolation) => {
            let kind = ClosureKind::PermissionDenied;
            let text = "the server refuses our credentials".to_owned();
            let closure = Closure::new(kind, text);
            Some(Absorbed::Denied { closure, forbidden: Forbidden::Everything })
        }
        Event::LameDuckMode | Event::Draining | Event::SlowConsumer(_) | Event::ServerError(_) => {
            tracing::info!(%event, "nats");
            None
        }
        // Every failed attempt to connect is one; the relay says now and then that it waits.
        Event::ClientError(_) => {
            tracing::debug!(%event, "nats");
            None
        }
    }
}

/// Whether the server forbids something with these words.
pub(super) fn is_denial(text: &str) -> bool {
    text.to_ascii_lowercase().contains("permissions violation")
}

/// The subject in `Permissions Violation for Publish to "orders.placed"`.
pub(super) fn denied_subject(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("for Publish to \"")?;
    rest.split_once('"').map(|(subject, _)| subject.to_owned())
}

/// The scope of a denial: a request to JetStream, or the events of a subject.
fn forbidden(subject: String, api_prefix: &str) -> Forbidden {
    let request = subject.strip_prefix(api_prefix).and_then(|rest| rest.strip_prefix('.'));
    let Some(request) = request else { return Forbidden::Subject(subject) };
    let is_one_of = |verbs: &[&str]| verbs.iter().any(|verb| request.starts_with(verb));
    if is_one_of(&["STREAM.INFO", "STREAM.CREATE"]) {
        Forbidden::Verifying
    } else if is_one_of(&["CONSUMER.CREATE", "CONSUMER.MSG.NEXT"]) {
        Forbidden::Scanning
    } else {
        // Such a request compares single messages, or cleans up.
        Forbidden::Spare
    }
}

/// The headers as the client takes them.
///
/// A map with an entry for each costs as much as everything else that is done for a message. On the
/// wire it is nothing but lines, so all of them go as one entry: the first name, and as its value
/// the rest of the text. Only deserialisation makes a value with line breaks. Should it refuse
/// them some day, there is the map.
pub(super) fn map_of(headers: &Headers) -> HeaderMap {
    const FIRST: HeaderName = HeaderName::from_static(MESSAGE_ID);
    let block: StrDeserializer<'_, value::Error> = headers.block().into_deserializer();
    let mut map = HeaderMap::new();
    if let Ok(block) = HeaderValue::deserialize(block) {
        map.insert(FIRST, block);
        return map;
    }
    let id = headers.block().split("\r\n").next().unwrap_or_default();
    map.append(MESSAGE_ID, id);
    for (name, value) in headers.iter() {
        map.append(name, value);
    }
    map
}

/// A deadline for when there is none; the branch that waits for it is disabled then.
fn far_away() -> Instant {
    clock::now() + Duration::from_hours(1)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::event::EventId;

    #[test]
    fn the_headers_go_as_one_entry() {
        let mut headers = Headers::new(EventId(Uuid::nil()));
        headers.add("ce-kind", "domain");
        let map = map_of(&headers);
        assert_eq!(map.len(), 1, "the client takes no line breaks any more: see map_of");
        let block = map.get(MESSAGE_ID).map(HeaderValue::as_str);
        assert_eq!(block, Some("00000000-0000-0000-0000-000000000000\r\nce-kind: domain"));
    }
}
